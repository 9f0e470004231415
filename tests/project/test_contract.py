"""The starter kit's names, signatures and defaults (INTERFACE.md part B)."""

import inspect
from pkgutil import resolve_name as named

import pytest
import torch

import diffusion
from tests.helpers.project import PROJECT, python
from tests.helpers.sources import module_of, sources
from utils.config import PRESETS

SIGNATURES = {  # the kit's parameters, in its order, with its defaults
    "MLPAutoencoder.MLPAutoencoder": (
        "encoding_dim, img_width, img_height, img_channel=3"
    ),
    "Autoencoder.Encoder": "encoding_dim",
    "Autoencoder.Decoder": "encoding_dim",
    "Autoencoder.Autoencoder": "encoding_dim",
    "VarAutoencoder.VarEncoder": "encoding_dim",
    "VarAutoencoder.VarDecoder": "encoding_dim",
    "VarAutoencoder.VarAutoencoder": "encoding_dim",
    "VarAutoencoder.VAE_loss_function": "outputs, images",
    "utils.train.train": (
        "optimizer, scheduler, model, training_dataloader, validation_dataloader, "
        "num_epochs, early_stopping_patience, device, model_save_root, loss_fn=mse_loss"
    ),
    "utils.scheduler.exponential_decay": (
        "initial_learning_rate=0.001, decay_rate=0.5, decay_epochs=100"
    ),
    "utils.data_processor.create_flower_dataloaders": (
        "batch_size, root, IMG_WIDTH, IMG_HEIGHT, num_worker=0"
    ),
    "utils.data_processor.show_images": "images, nmax=64",
    "utils.data_processor.show_recover_results": "images, recover_images, save_path",
    "diffusion.Diffuser": "n_steps, img_channels=3",
    "diffusion.diffusion_loss_fn": "model, x_0",
    "diffusion.visualize_sampling": "model, sample_shape, n_steps, save_path",
}


def in_words(parameter):
    """Return `name` or `name=default`; functions by their name."""
    if parameter.default is parameter.empty:
        return parameter.name
    default = getattr(parameter.default, "__name__", parameter.default)
    return f"{parameter.name}={default}"


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    """B.1-B.7: the kit's parameters come first; what follows has a default."""
    parameters = list(inspect.signature(named(name)).parameters.values())
    kit = SIGNATURES[name].split(", ")
    assert [in_words(parameter) for parameter in parameters[: len(kit)]] == kit
    more = [p for p in parameters[len(kit) :] if p.kind is not p.VAR_KEYWORD]
    assert all(p.default is not p.empty for p in more)


@pytest.mark.parametrize(
    "method, kit", [("sample", "shape, n_steps"), ("save", "path")]
)
def test_diffuser_methods(method, kit):
    """B.7."""
    parameters = inspect.signature(getattr(diffusion.Diffuser, method)).parameters
    assert list(parameters)[1:] == kit.split(", ")


def test_constants():
    """B.1-B.3, B.7: dimensions 64; 300 steps from 1e-4 to 5e-2."""
    assert named("MLPAutoencoder.MLPAE_ENCODING_DIM") == 64
    assert named("Autoencoder.AE_ENCODING_DIM") == 64
    assert named("VarAutoencoder.VAE_ENCODING_DIM") == 64
    steps = diffusion.num_steps, diffusion.beta_min, diffusion.beta_max
    assert steps == (300, 1e-4, 5e-2)


def test_names_of_models():
    """M1, B.1-B.3, R2: four models, and the short names that files are called by."""
    assert named("MLPAutoencoder.MLPAutoencoder")(64, 24, 24).name == "MLPAE"
    assert named("Autoencoder.Autoencoder")(64).name == "AE"
    assert named("VarAutoencoder.VarAutoencoder")(64).name == "VAE"
    assert diffusion.Diffuser(300).name == "diffusion"


def test_the_kits_call_is_the_default_models():
    """`Diffuser(n_steps=300)` is what the first row trains, for three species."""
    row = PRESETS["diffusion"][0]
    with torch.device("meta"):  # no memory
        kit = diffusion.Diffuser(n_steps=300)
        ours = diffusion.build(row, 3, "diffusion")
    weights, others = kit.state_dict(), ours.state_dict()
    assert list(weights) == list(others)
    assert [w.shape for w in weights.values()] == [w.shape for w in others.values()]
    assert (kit.n_steps, kit.objective, kit.name) == (300, row.objective, "diffusion")
    assert kit.network.null_label == 3
    dropout = [m.p for m in kit.modules() if isinstance(m, torch.nn.Dropout)]
    assert set(dropout) == ({row.dropout} if row.dropout else set())


def test_imports_do_nothing():
    """T24: importing our modules prints nothing, trains nothing, writes nothing."""
    code = "\n".join(f"import {module_of(path)}" for path in sources())

    def files():
        return {p for p in PROJECT.rglob("*") if "__pycache__" not in p.parts}

    before, done = files(), python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert files() == before


def test_show_images_opens_a_window_of_sixty_four(monkeypatch):
    """B.5, T21: a grid of eight a row; pyplot is loaded inside the function alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = []
    monkeypatch.setattr(pyplot, "imshow", lambda picture, **_: shown.append(picture))
    monkeypatch.setattr(pyplot, "show", lambda: shown.append("window"))
    named("utils.data_processor.show_images")(torch.rand(70, 3, 24, 24))
    assert shown[0].shape == (8 * 25 + 1, 8 * 25 + 1, 3) and shown[1] == "window"
    pyplot.close("all")

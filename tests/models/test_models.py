"""The three autoencoders: the assignment's dimension chains, and what follows."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from Autoencoder import Autoencoder, Decoder, Encoder
from MLPAutoencoder import MLPAutoencoder
from tests.helpers.project import PROJECT
from tests.helpers.training import descend
from utils.data.synthetic import draw_flowers
from VarAutoencoder import VAE_loss_function, VarAutoencoder, VarDecoder, VarEncoder

BUILDERS = {
    "MLPAE": lambda w=24, h=24: MLPAutoencoder(64, w, h),
    "AE": lambda w=24, h=24: Autoencoder(64, w, h),
    "VAE": lambda w=24, h=24: VarAutoencoder(64, w, h),
}
CHAIN = "3x24x24 32x12x12 64x6x6 128x6x6 64 128x6x6 64x6x6 32x12x12 3x24x24"
every_model = pytest.mark.parametrize("name", BUILDERS)


def image_of(outputs):
    """Return the reconstruction in what a model returns."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def shapes_through(model, *kinds):
    """Run one image; return its shapes after all layers of these kinds, in order."""
    shapes = []

    def note(_module, _inputs, output):
        shapes.append("x".join(map(str, output.shape[1:])))

    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(note)
    model(torch.rand(1, 3, 24, 24))
    return shapes


def test_mlpae_chain():
    """M4, M5: 1728 -> 256 -> 128 -> 64 -> 128 -> 256 -> 1728, 969,216 parameters."""
    model = BUILDERS["MLPAE"]()
    assert " ".join(shapes_through(model, nn.Linear)) == "256 128 64 128 256 1728"
    assert sum(p.numel() for p in model.parameters()) == 969_216


@pytest.mark.parametrize("name, latents", [("AE", 1), ("VAE", 2)])
def test_convolutional_chain(name, latents):
    """M14-M16, M29, R23: the shapes after pooling, latent layer, transpositions."""
    kinds = nn.MaxPool2d, nn.Conv2d, nn.Linear, nn.Unflatten, nn.ConvTranspose2d
    pooled, convolved, latent, opened, painted = (
        shapes_through(BUILDERS[name](), kind) for kind in kinds
    )
    assert latent == [*latents * ["64"], str(128 * 6 * 6)]
    chain = ["3x24x24", *pooled, convolved[-1], latent[0], *opened, *painted]
    assert " ".join(chain) == CHAIN


@every_model
@pytest.mark.parametrize("width, height", [(24, 24), (28, 20), (8, 8)])
def test_images_in_images_out(name, width, height):
    """M6, M16, T19, R2, R20: (B, 3, H, W) in [0, 1], also for non-square images."""
    images = torch.rand(5, 3, height, width)
    answer = image_of(BUILDERS[name](width, height)(images))
    assert answer.shape == images.shape
    assert answer.min() >= 0 and answer.max() <= 1


@every_model
def test_output_squashed_and_code_not(name):
    """M6, R24: values in [0, 1] whatever comes in; some code values are negative."""
    model = BUILDERS[name]()
    images = 20 * torch.randn(4, 3, 24, 24)
    answer = image_of(model(images))
    assert answer.min() >= 0 and answer.max() <= 1
    code = image_of(model.encoder(torch.rand(16, 3, 24, 24)))
    assert code.shape == (16, 64) and code.min() < 0 < code.max()
    # Sigmoid, not softmax (C5): the values of one image do not share a sum of 1.
    assert answer.flatten(1).sum(1).min() > 1.5


def test_relu_on_every_hidden_layer():
    """M6, M16: as many ReLUs (VAE: GELUs) as hidden layers, and one sigmoid."""
    hidden = {"MLPAE": 4, "AE": 6, "VAE": 6}
    for name, build in BUILDERS.items():
        kinds = [type(module) for module in build().modules()]
        bends = nn.GELU if name == "VAE" else nn.ReLU
        assert (kinds.count(bends), kinds.count(nn.Sigmoid)) == (hidden[name], 1)


@pytest.mark.parametrize("name", ["AE", "VAE"])
@pytest.mark.parametrize("size", [(26, 24), (24, 33), (0, 24), (2, 24)])
def test_sizes_that_do_not_divide_are_refused(name, size):
    """Two halvings need multiples of 4; the message says which value."""
    with pytest.raises(
        ValueError, match=f"multiple of 4, got {min(size, key=lambda s: s % 4 == 0)}"
    ):
        BUILDERS[name](*size)


@pytest.mark.parametrize(
    "build", [Encoder, VarEncoder, lambda dim: MLPAutoencoder(dim, 24, 24)]
)
def test_empty_code_is_refused(build):
    with pytest.raises(ValueError, match="encoding_dim must be at least 1, got 0"):
        build(0)


def test_decoders_and_encoders_stand_alone():
    """B.2, B.3: the halves by themselves, at the kit's 24 x 24."""
    z = torch.randn(3, 64)
    assert Decoder(64)(z).shape == VarDecoder(64)(z).shape == (3, 3, 24, 24)
    mu, log_var = VarEncoder(64)(torch.rand(3, 3, 24, 24))
    assert mu.shape == log_var.shape == Encoder(64)(torch.rand(3, 3, 24, 24)).shape


@every_model
def test_start_at_the_average_colour(name):
    """An untrained decoder answers, on average, with the colour it was started at."""
    torch.manual_seed(0)
    means = torch.tensor([0.2, 0.5, 0.8])
    model = BUILDERS[name]()
    model.init_output_bias(means)
    answer = image_of(model(torch.rand(64, 3, 24, 24)))
    torch.testing.assert_close(answer.mean((0, 2, 3)), means, atol=0.1, rtol=0)


@every_model
def test_one_batch_can_be_overfitted(name):
    """Every part learns: the error on 8 drawn flowers falls to a tenth."""
    torch.manual_seed(0)
    images = draw_flowers(8, 24, 24)[0][::3].float() / 255
    model = BUILDERS[name]()
    loss_fn = VAE_loss_function if name == "VAE" else F.mse_loss

    def error():
        return F.mse_loss(image_of(model(images)), images).item()

    before = error()
    descend(model, lambda: loss_fn(model(images), images), 3e-3, 130)
    assert error() < before / (3 if name == "VAE" else 10)  # the VAE also pays for KL


def test_weights_load_in_a_fresh_process(tmp_path):
    """R21, R22, R28: the kit's way of loading, by a process that knows only the class.

    The first call of the model adds no weights to those of the class.
    """
    code = ["import torch"]
    for name, build in BUILDERS.items():
        model, path = build(), tmp_path / f"{name}.pth"
        model(torch.rand(2, 3, 24, 24))
        torch.save(model.state_dict(), path)
        file, size = type(model).__name__, "64, 24, 24" if name == "MLPAE" else "64"
        code += [
            f"import {file}",
            f"weights = torch.load({str(path)!r}, weights_only=True)",
            f"print({file}.{file}({size}).load_state_dict(weights, strict=True))",
        ]
    line = [sys.executable, "-c", "\n".join(code)]
    done = subprocess.check_output(line, cwd=PROJECT, text=True)
    assert done == 3 * "<All keys matched successfully>\n"

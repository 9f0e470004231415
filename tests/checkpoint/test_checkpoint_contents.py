"""Reading whole files: the right model is rebuilt, a wrong one is named as wrong."""

import itertools
import logging
from dataclasses import asdict, replace
from functools import partial
from unittest.mock import patch

import pytest
import torch

from diffusion import Diffuser
from tests.helpers.damage import refusal
from tests.helpers.memory import memory_limited
from tests.helpers.training import DATA
from utils.checkpoint import (
    find_weights,
    load_checkpoint,
    save_checkpoint,
    weights_name,
)
from utils.checkpoint.resume import keep_previous
from utils.cli import UserError
from utils.config import PRESETS
from utils.registry import build_model, load_model

MODELS = ["MLPAE", "AE", "VAE", "diffusion"]
assert_same = partial(torch.testing.assert_close, rtol=0, atol=0)


def small_model(name, seed=0, size=8):
    """Return an untrained model for photos of `size` x `size`."""
    torch.manual_seed(seed)
    if name == "diffusion":
        return Diffuser(3)
    return build_model(name, encoding_dim=2, img_width=size, img_height=size)


@pytest.fixture
def saved(tmp_path):
    """Return a function: save an MLPAE, its weights and description changed -> path."""

    def save(change=lambda weights: None, **metadata):
        model = small_model("MLPAE")
        weights = model.state_dict()
        weights._metadata["description"] = {
            "format": 2,
            "model": "MLPAE",
            "args": model.args,
            **metadata,
        }
        change(weights)
        torch.save(weights, tmp_path / "Best_MLPAE.pkl")
        return tmp_path / "Best_MLPAE.pkl"

    return save


# Names and contents -----------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_starter_kit_reads_the_file(tmp_path, name):
    """M10, M25, M31, C1, P7, R28: a bare state_dict, for the kit's load."""
    model, twin = small_model(name, seed=1), small_model(name, seed=2)
    path = tmp_path / weights_name(name)
    save_checkpoint(path, model, {"seed": 1})
    weights = torch.load(path, weights_only=True)
    assert list(weights) == list(model.state_dict())
    twin.load_state_dict(weights)
    assert_same(twin.state_dict(), model.state_dict())


@pytest.mark.parametrize("folder", ["models", "model"])
@pytest.mark.parametrize(
    "name, file",
    [
        ("MLPAE", "Best_MLPAE.pkl"),
        ("MLPAE", "Best_MLPAE.pth"),
        ("AE", "Best_AE.pkl"),
        ("VAE", "Best_VAE.pth"),
        ("diffusion", "Best_diffusion.pth"),
        ("diffusion", "Bestmodel_diffusion.pkl"),
    ],
)
def test_readers_find_every_name_of_the_assignment(tmp_path, folder, name, file):
    """C1: our folder or the kit's, either extension, the kit's own name."""
    path = tmp_path / folder / file
    path.parent.mkdir()
    path.touch()
    (tmp_path / folder / "Best_other.pth").touch()
    assert find_weights(name, tmp_path) == path


def test_equal_metadata_give_equal_bytes(tmp_path):
    """Whether strings are one object, as in a resumed run, is not seen in the file."""
    model, files = small_model("MLPAE"), []
    for number, value in enumerate(("torch", "".join(["tor", "ch"]))):
        settings = {"init_weights": value, "channels": (8, 16), "names": [value]}
        path = tmp_path / str(number) / "Best_MLPAE.pkl"
        path.parent.mkdir()
        save_checkpoint(path, model, {"settings": settings})
        files.append(path.read_bytes())
        assert load_checkpoint(path)[1]["settings"] == settings
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "name, command",
    [
        ("AE", "train_script.py --model AE"),
        ("diffusion", "diffusion.py$"),
        ("diffusion_short", "diffusion.py --model diffusion_short"),
        ("diffusion_fast", "-m tools.reflow"),
    ],
)
def test_missing_weights_say_how_to_train(tmp_path, name, command):
    """L01"""
    with pytest.raises(UserError, match=f"train first: python {command}"):
        find_weights(name, tmp_path)


# The right model --------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS[:3])
@pytest.mark.parametrize("size", [8, 24, 32])
def test_the_file_knows_its_model_and_size(tmp_path, name, size):
    """P9, L13, R7: rebuilt at the size it was trained at, bit for bit, in eval mode."""
    model = small_model(name, size=size)
    save_checkpoint(tmp_path / "x.pth", model, {"seed": 5, "data": DATA})
    rebuilt, metadata = load_model(name, tmp_path / "x.pth")
    assert rebuilt.args == model.args and not rebuilt.training
    assert metadata["seed"] == 5 and metadata["data"] == DATA
    assert_same(rebuilt.state_dict(), model.state_dict())


def test_no_description_is_taken_for_the_kits_sizes(tmp_path, caplog):
    """L17: a file of the starter kit loads, with one warning; another size does not."""
    model = build_model("AE", encoding_dim=64)
    torch.save(model.state_dict(), tmp_path / "Best_AE.pth")
    rebuilt, metadata = load_model("AE", tmp_path / "Best_AE.pth")
    assert metadata == {} and [r.levelno for r in caplog.records] == [logging.WARNING]
    assert_same(rebuilt.state_dict(), model.state_dict())
    torch.save(small_model("AE").state_dict(), tmp_path / "Best_AE.pth")
    assert "does not fit AE" in refusal(load_model, "AE", tmp_path / "Best_AE.pth")


def test_prefix_of_data_parallel_is_dropped(tmp_path):
    """L20, P6: `module.` on every key, description kept."""
    model = small_model("MLPAE")
    save_checkpoint(tmp_path / "x.pth", model)
    weights = torch.load(tmp_path / "x.pth", weights_only=True)
    for key in list(weights):
        weights["module." + key] = weights.pop(key)
    torch.save(weights, tmp_path / "x.pth")
    rebuilt, _ = load_model("MLPAE", tmp_path / "x.pth")
    assert_same(rebuilt.state_dict(), model.state_dict())


# The wrong one ----------------------------------------------------------------


@pytest.mark.parametrize("held, asked", [*itertools.permutations(MODELS, 2)])
def test_swapped_models_are_named(tmp_path, held, asked):
    """P9, L12"""
    save_checkpoint(tmp_path / "x.pth", small_model(held))
    message = refusal(load_model, asked, tmp_path / "x.pth")
    assert f"holds a {held}, asked for a {asked}" in message


BIAS = "encoder.1.bias"  # of an MLPAE: float32 (256,)
FIT = "does not fit MLPAE"


def bias(change):
    """Return a function that changes this one tensor of the weights."""
    return lambda weights: weights.update({BIAS: change(weights[BIAS])})


MISFITS = {
    "missing": (lambda w: w.pop(BIAS), f"{BIAS} is missing"),
    "extra": (lambda w: w.update(extra=torch.zeros(1)), "extra is unknown"),
    "shape": (bias(lambda b: b[:9]), "(9,) where float32 (256,)"),
    "dtype": (bias(lambda b: b.double()), "float64 (256,) where"),
    "nan": (lambda w: w[BIAS].fill_(torch.nan), f"{BIAS} is not finite"),
    "inf": (lambda w: w[BIAS].fill_(torch.inf), f"{BIAS} is not finite"),
    "empty": (lambda w: w.clear(), "and 9 more"),  # 3 of 12 are named
    # Kinds of tensor that no model of ours has.
    "sparse": (bias(lambda b: b.to_sparse()), "holds a sparse tensor"),
    "no storage": (bias(lambda b: b.to("meta")), "holds a meta tensor"),
    "float8": (bias(lambda b: b.to(torch.float8_e4m3fn)), "of an unusual type"),
    "nested": (
        bias(lambda b: torch.nested.nested_tensor([b])),
        "holds a nested tensor",
    ),
    "quantized": (
        bias(lambda b: torch.quantize_per_tensor(b, 0.1, 0, torch.qint8)),
        "holds a quantized tensor",
    ),
    "complex": (bias(lambda b: b.to(torch.complex64)), FIT),
}


@pytest.mark.filterwarnings("ignore")  # as the commands do
@pytest.mark.parametrize("change, words", MISFITS.values(), ids=MISFITS)
def test_weights_that_do_not_fit_are_named(saved, change, words):
    """P8, P9, L14-L16: the key and both sides; three of them, then a count."""
    message = refusal(load_model, "MLPAE", saved(change))
    assert words in message and "Best_MLPAE.pkl" in message
    assert "_rebuild" not in message and "torch." not in message


NO_DICTIONARIES = ("text", 5, [1], None)
DESCRIPTIONS = [{"description": content} for content in NO_DICTIONARIES]


def test_newer_format_is_refused(saved):
    """L18"""
    message = refusal(load_checkpoint, saved(format=99))
    assert "written by a newer version (format 99" in message


@pytest.mark.parametrize("metadata", ["text", [1], {5: {}}, *DESCRIPTIONS], ids=repr)
def test_unreadable_metadata_is_refused(saved, metadata):
    """P8, P9: the description, or what carries it, is no dictionary of names."""
    path = saved(lambda w: setattr(w, "_metadata", metadata))
    words = f"{path} is damaged: its metadata is unreadable"
    assert words in refusal(load_checkpoint, path)


BAD_ARGS = ("text", [1], {}, {"depth": 3}, {"encoding_dim": 2.5}, {"encoding_dim": 0})


@pytest.mark.parametrize(
    "metadata",
    [{"args": a} for a in BAD_ARGS] + [{"settings": s} for s in NO_DICTIONARIES],
)
def test_a_description_that_builds_no_model_is_refused(saved, metadata):
    """P9"""
    message = refusal(load_model, "MLPAE", saved(**metadata))
    assert "does not fit MLPAE" in message or "has no valid" in message
    assert "Error" not in message


def test_settings_that_older_weights_lack_have_their_defaults(saved):
    """Those without a default are the preset's."""
    row = replace(PRESETS["MLPAE"][0], hflip=True, batch_size=3)
    with patch.dict(PRESETS, {"MLPAE": (row,)}):
        metadata = load_model("MLPAE", saved(settings={"lr": 7.0}))[1]
    known = {"lr": 7.0, "hflip": False, "batch_size": 16}
    assert metadata["settings"] == asdict(row) | known


def test_unreadable_data_description_does_not_stop_a_training(saved, caplog):
    """P8: what is about to be overwritten may hold anything."""
    path = saved(data="photos")
    keep_previous(path, {"source": "photos"})
    (record,) = caplog.records
    assert "no valid data" in record.getMessage()
    assert "will be replaced" in record.getMessage()


HUGE = {
    "latent": dict(encoding_dim=10**7, img_width=8, img_height=8),
    "image": dict(encoding_dim=2, img_width=10**4, img_height=10**4),
}


@pytest.mark.parametrize("args", HUGE.values(), ids=HUGE)
def test_small_file_cannot_ask_for_a_huge_model(saved, args):
    """P10: refused within 200 MB, before the model that it describes is built."""
    path = saved(args=args)
    assert memory_limited(lambda: refusal(load_model, "MLPAE", path), 200) == 0


def test_small_file_cannot_hold_a_huge_tensor(saved):
    """P10: 10^10 weights of one stored number, by a stride of 0."""
    path = saved(bias(lambda _: torch.zeros(1).expand(10**10)))
    assert path.stat().st_size < 10**6

    def load():
        assert "larger than the file" in refusal(load_model, "MLPAE", path)

    assert memory_limited(load, 200) == 0


def test_memory_limit_is_seen():
    assert memory_limited(lambda: torch.ones(10**8), 200) != 0
    assert memory_limited(lambda: torch.ones(10**6), 200) == 0

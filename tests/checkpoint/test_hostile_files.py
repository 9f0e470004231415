"""Small files that claim much, special files, and texts that a terminal would obey."""

import os
import resource
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from diffusion import Diffuser
from tests.helpers.commands import command, error_line, refused, train
from tests.helpers.damage import Call, refusal
from tests.helpers.memory import memory_limited
from tests.helpers.project import PROJECT
from tests.helpers.training import DATA
from tools.evaluate import read_array
from utils.checkpoint import load_checkpoint, save_checkpoint, weights_name
from utils.cli import process
from utils.data_processor import open_flowers
from utils.evaluation.features import FlowerFeatures, load_features
from utils.files import MAX_BYTES, read_regular
from utils.latents import Priors, fitted_to, load_prior
from utils.registry import build_model, load_model

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
LIMIT = 200  # megabytes of memory


def quick_and_small(work):
    """Assert that work() takes little memory and under 5 seconds of a processor."""
    start = processor_seconds()
    assert memory_limited(work, LIMIT) == 0
    assert processor_seconds() - start < 5


def processor_seconds():
    """Return the time that processors spent on child processes that have ended."""
    # A busy machine makes them wait, which is not counted.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def saved(path, model, **metadata):
    """Save a model whose metadata have other entries -> path."""
    save_checkpoint(path, model, metadata)
    return path


def replace_tensor(path, key, value):
    """Replace a tensor in a file of weights; its metadata stay."""
    weights, metadata = load_checkpoint(path)
    weights[key] = value
    weights._metadata = {"description": metadata}
    torch.save(weights, path)


def rename_attribute(path, old, new):
    """Rename an attribute in a file's pickle; both names are of the same length."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old.encode(), new.encode()))


# Claims -----------------------------------------------------------------------

SMALL = {"n_steps": 4, "img_channels": 3, "name": "diffusion", "channels": (16,)}
CLAIMS = {
    "steps": {"args": SMALL | {"n_steps": 10**9}},
    "blocks": {"args": SMALL | {"num_blocks": 10**6}},
    "channels": {"args": SMALL | {"channels": (10**6,)}},
    "resolutions": {"args": SMALL | {"channels": (16,) * 1000}},
    "classes": {"args": SMALL | {"num_classes": 10**9}},
    "size": {"settings": {"image_size": 3000}},
    "interval of one": {"settings": {"guidance_interval": (0.3,)}},
    "interval of text": {"settings": {"guidance_interval": "12"}},
    "text of a number": {"settings": {"epochs": "5"}},
    "sampler steps": {"settings": {"steps": 10**9}},
    "class names": {"data": DATA | {"classes": [str(i) for i in range(100_000)]}},
    "source": {"data": DATA | {"source": "x" * 100_000}},
    "nested": {"notes": [[[[[[[[[[1]]]]]]]]]]},
}


@pytest.mark.parametrize("metadata", CLAIMS.values(), ids=CLAIMS)
def test_a_description_beyond_every_flag_is_refused(tmp_path, metadata):
    """P10: before anything is built from it."""
    model = Diffuser(**SMALL)
    path = saved(tmp_path / "x.pkl", model, **{"args": SMALL, **metadata})
    quick_and_small(lambda: refusal(load_model, "diffusion", path))


@pytest.mark.parametrize(
    "payload",
    [Call(bytearray, 10**11), Call(bytearray, 2**40), Call(torch.Size, range(10**9))],
    ids=["bytearray", "larger", "range"],
)
def test_a_call_that_takes_memory_is_refused(tmp_path, payload):
    """P10: torch's safe loader would allow a bytearray of any size."""
    torch.save({"weight": torch.zeros(2), "extra": payload}, tmp_path / "x.pth")

    def load():
        assert "holds code" in refusal(load_checkpoint, tmp_path / "x.pth")

    quick_and_small(load)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_second_program_is_refused(tmp_path):
    """A harmless one first, of the same name: torch could run the other."""
    path = tmp_path / "x.pth"
    torch.save({"weight": torch.zeros(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
        archive.writestr(name, b"\x80\x02N.")
    assert "is not a checkpoint" in refusal(load_checkpoint, path)


def test_a_long_program_is_refused(tmp_path):
    weights = {f"key {i}": torch.zeros(()) for i in range(20_000)}
    torch.save(weights, tmp_path / "x.pth")
    assert "holds more than weights" in refusal(load_checkpoint, tmp_path / "x.pth")


def test_priors_and_features_of_stride_0_are_refused(tmp_path):
    """P10: billions of elements that are one stored number."""
    huge = torch.zeros(1).expand(10**10)
    model = build_model("MLPAE", encoding_dim=4, img_width=8, img_height=8)
    priors = Priors("MLPAE", 4, 2)
    prior = saved(tmp_path / "Prior_MLPAE.pth", priors, fitted_to=fitted_to({}))
    replace_tensor(prior, "gmm.weights", huge)
    words = "a tensor is larger than the file"
    path = tmp_path / "Best_MLPAE.pkl"

    def load():
        assert words in refusal(load_prior, "gmm", model, {}, path)

    quick_and_small(load)
    features = saved(tmp_path / "features.pt", FlowerFeatures(["a", "b"]))
    replace_tensor(features, "head.bias", torch.zeros(1).half().expand(10**10))
    quick_and_small(lambda: refusal(load_features, features))


def test_an_array_that_claims_more_than_its_file_is_refused(tmp_path):
    """P10: the header of a .npy file is not believed."""
    path = tmp_path / "x.npy"
    header = (
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 9999, 999, 3), }"
    )
    header = header.ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + bytes([118, 0]) + header + bytes(48))
    quick_and_small(lambda: refusal(read_array, path))


# What the unpickler is told ---------------------------------------------------


@pytest.mark.parametrize("name", ["items", "values", "keys", "copy", "__iter__"])
def test_an_attribute_of_the_mapping_hides_nothing(tmp_path, name):
    """BUILD sets attributes: `items` would bypass the check for finite weights."""
    model = build_model("MLPAE", encoding_dim=4, img_width=8, img_height=8)
    weights = OrderedDict(model.state_dict())
    weights["encoder.1.bias"] = weights["encoder.1.bias"] * torch.nan
    weights._metadata = {"description": {"model": "MLPAE", "args": model.args}}
    other = "~" * len(name)
    setattr(weights, other, {"no": "weights"})
    path = tmp_path / "Best_MLPAE.pkl"
    torch.save(weights, path)
    rename_attribute(path, other, name)
    assert "encoder.1.bias is not finite" in refusal(load_model, "MLPAE", path)


def test_such_a_file_keeps_no_training_from_starting(tmp_path, photo_folder):
    weights = OrderedDict(a=torch.zeros(2))
    setattr(weights, "~~~~~", {"x": 1})
    path = tmp_path / "out" / "models" / "Best_AE.pth"
    path.parent.mkdir(parents=True)
    torch.save(weights, path)
    rename_attribute(path, "~~~~~", "items")
    result = train("AE", tmp_path / "out", photo_folder)
    assert result.code == 0, result.err
    assert load_checkpoint(path)[1]["model"] == "AE"


# Special files ----------------------------------------------------------------


def special(kind, path):
    """Make a file that is not regular."""
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to({"endless": "/dev/zero", "terminal": "/dev/full"}[kind])
    return path


@pytest.mark.parametrize("kind", ["FIFO", "endless"])
def test_a_special_file_is_not_read(tmp_path, photo_folder, kind):
    """It would hang, or eat memory: weights, arrays, logs, weights of a run before."""
    path = special(kind, tmp_path / "x.pth")
    args = ("--model", "AE", "--weights", path, "--out", tmp_path)
    result = command("random_generation.py", *args)
    refused(result, "random_generation.py", "not a regular file")
    assert "not a regular file" in refusal(
        read_array, special(kind, tmp_path / "x.npy")
    )
    for place in ("models/Best_AE.pth", "log/AE.csv"):
        out = tmp_path / place.replace("/", "_")
        (out / place).parent.mkdir(parents=True)
        special(kind, out / place)
        result = train("AE", out, photo_folder)
        line = error_line(result.err, "train_script.py")
        assert result.code == 1 and "not a regular file" in line


@pytest.mark.parametrize("kind", ["FIFO", "endless", "terminal"])
def test_a_special_file_is_not_replaced(tmp_path, kind):
    """--save: a device node or a pipe stays what it is; links to files are followed."""
    path = special(kind, tmp_path / "x.npy")
    weights = PROJECT / "models" / weights_name("VAE")
    args = ("--model", "VAE", "--weights", weights, "--count", 2, "--save")
    result = command("random_generation.py", *args, path)
    line = error_line(result.err, "random_generation.py")
    assert result.code == 1 and "not a regular file" in line and not path.is_file()
    link = tmp_path / "link.npy"
    link.symlink_to(tmp_path / "real.npy")
    assert command("random_generation.py", *args, link).code == 0
    assert link.is_symlink() and np.load(tmp_path / "real.npy").shape == (2, 24, 24, 3)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "x.pth"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: no disk is used
    with pytest.raises(OSError, match="too large"):
        read_regular(path)


# Texts ------------------------------------------------------------------------

ESCAPE = "a\x1b[31m\r\nb\u202e\x07"


def test_a_message_is_printable(tmp_path):
    """No escape sequence, no second line; names and contents are cut."""
    assert process.one_line(ESCAPE) == r"a\x1b[31m b\u202e\x07"
    assert len(process.one_line("x" * 10**6)) == process.MAX_MESSAGE
    name = ESCAPE.replace("/", "")
    done = command("random_generation.py", "--weights", tmp_path / name)
    line = refused(done, "random_generation.py")
    assert line.isprintable() and r"\x1b[31m" in line
    model = build_model("MLPAE", encoding_dim=4, img_width=8, img_height=8)
    path = tmp_path / "x.pkl"
    save_checkpoint(path, model, {"model": ESCAPE})
    args = ("--model", "MLPAE", "--weights", path)
    line = refused(command("random_generation.py", *args), "random_generation.py")
    assert line.isprintable()


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"data": {}}, "no valid data.source"),
        ({"data": DATA | {"classes": [3]}}, "no valid data.classes"),
        ({"data": DATA | {"count": "3"}}, "no valid data.count"),
        ({"epoch": None}, "no valid epoch"),
        ({"epoch": True}, "no valid epoch"),
        ({"valid_loss": "low"}, "no valid valid_loss"),
        ({"settings": {"lr": None}}, "lr is out of bounds"),
        ({"settings": {"optimizer": "magic"}}, "optimizer is out of bounds"),
        ({"settings": {"hflip": 3}}, "hflip is out of bounds"),
    ],
)
def test_wrong_types_in_a_description_are_named(tmp_path, metadata, words):
    """The entry and the remedy, never `KeyError: ...`."""
    model = build_model("MLPAE", encoding_dim=4, img_width=8, img_height=8)
    path = saved(tmp_path / "x.pkl", model, **metadata)
    message = refusal(load_model, "MLPAE", path)
    assert words in message and "Error" not in message and str(path) in message


def test_a_prior_without_components_is_named(tmp_path):
    model = build_model("MLPAE", encoding_dim=4, img_width=8, img_height=8)
    prior = tmp_path / "Prior_MLPAE.pth"
    saved(prior, Priors("MLPAE", 4, 2), fitted_to=fitted_to({}))
    state, _ = load_checkpoint(prior)
    kept = {key: value for key, value in state.items() if key != "gmm.weights"}
    weights = OrderedDict(kept)
    weights._metadata = {"description": load_checkpoint(prior)[1]}
    torch.save(weights, prior)
    message = refusal(load_prior, "gmm", model, {}, tmp_path / "Best_MLPAE.pkl")
    assert "gmm.weights is missing" in message


# The folder of photos ---------------------------------------------------------


def test_a_folder_one_level_too_high_is_named(tmp_path, photo_folder, caplog):
    """One "class" whose own sub-folders hold the photos."""
    (tmp_path / "high").mkdir()
    photo_folder.rename(tmp_path / "high" / "flowers")
    open_flowers(tmp_path / "high", 4, (8, 8))
    (warning,) = caplog.messages
    assert f"use --data {tmp_path / 'high' / 'flowers'}" in warning


def test_photos_in_formats_that_are_not_read_are_counted(photo_folder, caplog):
    for number in range(3):
        (photo_folder / "astilbe" / f"{number}.HEIC").write_bytes(b"x")
    (photo_folder / "calendula" / "x.tif").write_bytes(b"x")
    open_flowers(photo_folder, 4, (8, 8))
    (warning,) = caplog.messages
    assert "formats that are not read: 3 .heic, 1 .tif" in warning

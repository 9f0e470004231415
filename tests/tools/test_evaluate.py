"""The command that measures generated images."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.diffusion import save_small
from tests.helpers.evaluation import measured, read
from tests.helpers.training import DATA
from tools import evaluate
from utils.checkpoint import save_checkpoint
from utils.cli import UsageError, UserError
from utils.config import METRICS
from utils.data.photos import decode, resized
from utils.evaluation import features
from utils.evaluation.evaluate import ALTERATIONS
from utils.evaluation.features import FlowerFeatures
from utils.latents import Priors
from VarAutoencoder import VarAutoencoder

NAMES = {*METRICS, evaluate.CLASSIFIED}


def test_training_photos_are_at_distance_zero_and_all_copies(
    place, capsys, monkeypatch
):
    """With 108 features, the mean colours of 36 squares."""
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    monkeypatch.setattr(evaluate, "find_extractor", lambda *_: colours)
    array = str(place / "train.npy")
    found = measured(place, capsys, array)
    # The training photos.
    ours = found[array]
    altered = {f"training photos, {name}" for name in ALTERATIONS}
    ours_too = {f"our {name}, of other photos" for name in ("AE", "VAE")}
    assert set(found) == {array, "validation photos"} | ours_too | altered
    for name in altered:
        assert set(found[name]) == {"images", "copies by pixels", "copies by features"}
        assert found[name]["images"] == 30 and found[name]["copies by pixels"][0] > 0.9
    assert ours["images"] == 120 and set(ours) == {"images", *NAMES}
    far = found["our VAE, of other photos"]["Frechet distance"][
        0
    ]  # of all photos, 4 of 5 are these
    assert ours["Frechet distance"][0] < far / 10
    for name in ("precision at equal number", "copies by pixels", "copies by features"):
        assert ours[name][0] == 1
    for name in ("nearest by pixels", "nearest by features"):
        assert ours[name][0] == pytest.approx(0, abs=1e-3)
    # Other photos of the same distribution.
    others = found["validation photos"]
    assert others["nearest by pixels"][0] > 0.1
    assert others["images"] == 30 and others["copies by pixels"][0] < 0.1
    assert others["Frechet distance"] == "needs more than 108 images, got 30"
    _, low, high = others["kernel distance"]
    assert low <= 0 <= high
    # Samples of models that were trained on other flowers.
    for name in ("AE", "VAE"):
        assert found[f"our {name}, of other photos"]["images"] == 120
        theirs = found[f"our {name}, of other photos"]["kernel distance"][0]
        assert theirs > ours["kernel distance"][0]


def test_frechet_distances_alone(place, capsys, monkeypatch):
    """The same numbers, and only of IMAGES."""
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(12), torch.nn.Flatten())
    monkeypatch.setattr(evaluate, "find_extractor", lambda *_: colours)
    array = str(place / "train.npy")
    alone = measured(place, capsys, array, "--frechet")
    names = {name for name in METRICS if name[0] == "-" or "distance" in name}
    assert (
        len(names) == 5
        and list(alone) == [array]
        and set(alone[array]) == {"images"} | names
    )
    whole = measured(place, capsys, array)[array]
    assert all(alone[array][name] == whole[name] for name in names)


def test_the_table_has_a_row_per_metric_and_a_column_per_set(place, capsys, caplog):
    flags = ["--data", str(place / "photos"), "--extractor", "pixels"]
    evaluate.main([str(place / "train.npy"), *flags])
    lines = capsys.readouterr().out.splitlines()
    head, _, *rows = [line.strip("| ").split(" | ") for line in lines]
    assert head[0] == "measure" and "train.npy (120)" in head[1]
    assert {row[0] for row in rows} == NAMES
    assert {len(row) for row in rows} == {len(head)} == {5 + len(ALTERATIONS)}
    assert ["Frechet distance", *["-"] * (len(head) - 1)] in rows
    assert "needs more than 1728 images, got 120" in caplog.text


@pytest.mark.parametrize("kind", ["VAE", "diffusion", "folder", "array"])
def test_images_come_from_weights_a_folder_or_an_array(place, tmp_path, kind):
    """All (N, 3, H, W) float32 in [0, 1]; only a diffusion model has species."""
    torch.manual_seed(0)
    path, shape = tmp_path / "weights", (5, 3, 8, 8)
    if kind == "VAE":
        save_checkpoint(path, VarAutoencoder(4, 8, 8))
    elif kind == "diffusion":
        save_small(path)
    elif kind == "folder":
        path, shape = place / "photos" / "astilbe", (50, 3, 24, 24)
    else:
        path, shape = place / "train.npy", (120, 3, 24, 24)
    images, names, facts = read(path)
    assert images.shape == shape and images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert (names is not None) == (facts is not None) == (kind == "diffusion")


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((2, 8, 8, 3)), r"float64 \(2, 8, 8, 3\); uint8"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"uint8 \(2, 3, 8, 8\); uint8"),
        (np.array([None]), "cannot read"),
    ],
)
def test_arrays_of_other_types_and_shapes_are_refused(tmp_path, array, words):
    """P9: objects are not unpickled; the message names type and shape."""
    with pytest.raises(UserError, match="holds no images"):
        read(tmp_path)  # an empty folder
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "x.npy")


def test_inception_gets_8_bit_images(monkeypatch):
    """By a network that returns what it receives."""
    module = SimpleNamespace(NoTrainInceptionV3=lambda *_args: torch.nn.Identity())
    monkeypatch.setitem(sys.modules, "torchmetrics", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", module)
    found = features.find_extractor("inception")(torch.ones(2, 3, 4, 4))
    assert torch.equal(found, torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))


def test_inception_without_its_package(monkeypatch):
    """The message names the command that installs it."""
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[metrics\]'"):
        features.find_extractor("inception")


def test_samples_and_reconstructions_of_weights_are_measured(place, tmp_path, capsys):
    """Of a decoder with a constant output both are the same grey images."""
    model = VarAutoencoder(4)
    with torch.no_grad():
        for parameter in model.decoder.image[-2].parameters():
            parameter.zero_()
    save_checkpoint(tmp_path / "flat.pth", model)
    path = str(tmp_path / "flat.pth")
    flags = ("--extractor", "pixels", "--count", "50")
    found = measured(place, capsys, path, place / "train.npy", *flags)
    samples, rebuilt = found[path], found[f"reconstructions by {path}"]
    assert samples["images"] == 50 and rebuilt["images"] == 120
    assert str(place / "train.npy") in found
    distances = [column["kernel distance"][0] for column in (samples, rebuilt)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-3) and distances[0] > 0


def test_photos_have_the_size_and_split_of_the_weights(place, tmp_path):
    """Copies are sought among the photos that the weights were trained on."""
    metadata = {"settings": {"image_size": 8}, "data": DATA | {"split_seed": 7}}
    save_checkpoint(tmp_path / "x.pth", VarAutoencoder(4, 8, 8), metadata)
    for path, side, seed in ((tmp_path / "x.pth", 8, 7), (place / "train.npy", 24, 0)):
        args = evaluate.parse([str(path), "--data", str(place / "photos")])
        metadata = evaluate.read_metadata(args.images)
        training, _ = evaluate.open_photos(args, metadata)
        assert training.images.shape[2:] == (side, side)
        assert training.metadata["split_seed"] == seed


def test_images_are_resized_as_photos_are(place, tmp_path, capsys, monkeypatch):
    """--image-size: as the file of the same picture is; our models' samples are too."""
    photo = torch.from_numpy(np.load(place / "train.npy")[:1]).permute(0, 3, 1, 2)
    Image.fromarray(photo[0].permute(1, 2, 0).numpy()).save(tmp_path / "x.png")
    expected = decode(tmp_path / "x.png", 12, 12).float()
    found = 255 * resized(photo.float() / 255, 12)
    assert found.shape == (1, 3, 12, 12) and (found - expected).abs().max() <= 1.01
    # Of all sets, 27 features of 12 x 12 pixels.
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    monkeypatch.setattr(evaluate, "find_extractor", lambda *_: colours)
    array = str(place / "train.npy")
    sets = measured(place, capsys, array, "--image-size", 12)
    ours = [name for name in sets if name.startswith("our ")]
    assert len(ours) == 2 and sets[array]["images"] == 120
    far = sets[ours[1]]["Frechet distance"][0]
    assert sets[array]["Frechet distance"][0] < far / 10


def test_pictures_have_the_size_that_photos_are_compared_at(place):
    """--image-size: a folder's pictures are decoded at it, not enlarged to it."""
    path = place / "photos" / "astilbe"
    args = evaluate.parse([str(path), "--image-size", "12"])
    assert evaluate.read_images(path, args, {}).images.shape == (50, 3, 12, 12)


@pytest.mark.parametrize("name", ["features", "prior_AE"])
def test_weights_that_generate_no_images_are_refused(tmp_path, name):
    model = FlowerFeatures(["a", "b"]) if name == "features" else Priors("AE", 2, 1)
    save_checkpoint(tmp_path / "x.pth", model)
    with pytest.raises(
        UserError, match=f"no images can be generated from .*{name}.*MLPAE"
    ):
        read(tmp_path / "x.pth")


def test_images_that_cannot_be_compared_are_refused(place, tmp_path):
    """Other sizes or splits; flags of sampling for existing images.

    P25: more than fit in memory; the message names the number and the limit.
    """
    save_checkpoint(
        tmp_path / "a.pth", VarAutoencoder(4), {"data": DATA | {"split_seed": 1}}
    )
    several = [str(tmp_path / "a.pth"), str(place / "train.npy")]
    with pytest.raises(UsageError, match="IMAGES differ in size or split"):
        evaluate.main([*several, "--extractor", "pixels"])
    for flags in (["--prior", "gmm"], ["--steps", "5"], ["--species", "astilbe"]):
        with pytest.raises(UsageError, match=f"{flags[0]}: existing IMAGES"):
            evaluate.main([several[1], *flags])
    with pytest.raises(UsageError, match="--count: at most 10000, got 10001"):
        evaluate.main([several[1], "--count", "10001"])

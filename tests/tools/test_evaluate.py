"""The command that measures generated images."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.diffusion import save_small
from tests.helpers.evaluation import measured, read
from tests.helpers.project import write_photos
from tools import evaluate
from utils.checkpoint import save_checkpoint
from utils.cli import UsageError, UserError
from utils.data_processor import create_flower_dataloaders
from utils.evaluation import features
from utils.evaluation.features import FlowerFeatures
from utils.latents import Priors
from VarAutoencoder import VarAutoencoder

MEASURES = {
    "Frechet distance",
    "- to validation photos",
    "kernel distance",
    "precision",
    "recall",
    "copies by pixels",
    "copies by features",
    "nearest by pixels",
    "nearest by features",
    "classified as requested",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Drawn photos, and those of training as an array."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_photos(folder / "photos", 50)
    training, _ = create_flower_dataloaders(16, folder / "photos", 24, 24)
    np.save(folder / "train.npy", training.dataset.images.permute(0, 2, 3, 1).numpy())
    return folder


def test_training_photos_are_at_distance_zero_and_all_copies(
    place, capsys, monkeypatch
):
    """By 108 features, the mean colours of 36 places."""
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    monkeypatch.setattr(evaluate, "find_extractor", lambda name: colours)
    array = str(place / "train.npy")
    found = measured(place, capsys, array)
    ours = found[array]
    assert set(found) == {array, "validation photos", "our AE", "our VAE"}
    assert ours["images"] == 120 and set(ours) == {"images", *MEASURES}
    far = found["our VAE"]["Frechet distance"][0]  # 120 of the 150 are near to them
    assert ours["Frechet distance"][0] < far / 10
    for name in ("precision", "copies by pixels", "copies by features"):
        assert ours[name][0] == 1
    for name in ("nearest by pixels", "nearest by features"):
        assert ours[name][0] == pytest.approx(0, abs=1e-3)
    others = found["validation photos"]
    assert others["nearest by pixels"][0] > 0.1
    assert others["images"] == 30 and others["copies by pixels"][0] < 0.1
    assert others["Frechet distance"] == "needs more than 108 images, got 30"
    _, low, high = others["kernel distance"]
    assert low <= 0 <= high
    for name in ("AE", "VAE"):
        assert found[f"our {name}"]["images"] == 120
        theirs = found[f"our {name}"]["kernel distance"][0]
        assert theirs > ours["kernel distance"][0]  # trained on other flowers


def test_frechet_distances_alone(place, capsys, monkeypatch):
    """The same numbers, of the images that are asked for and of no others."""
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(12), torch.nn.Flatten())
    monkeypatch.setattr(evaluate, "find_extractor", lambda name: colours)
    array = str(place / "train.npy")
    alone = measured(place, capsys, array, "--frechet")
    names = "Frechet distance", "- to validation photos"
    assert list(alone) == [array] and set(alone[array]) == {"images", *names}
    whole = measured(place, capsys, array)[array]
    assert all(alone[array][name] == whole[name] for name in names)


def test_the_table_has_a_row_per_measure_and_a_column_per_set(place, capsys, caplog):
    evaluate.main(
        [str(place / "train.npy"), "--data", str(place / "photos")]
        + ["--extractor", "pixels"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "measure" and "train.npy (120)" in lines[0]
    assert {line.split("  ")[0] for line in lines[1:]} == MEASURES
    assert len({len(line) for line in lines}) == 1
    (row,) = [line for line in lines if line.startswith("Frechet")]
    assert row.split() == ["Frechet", "distance", "-", "-", "-", "-"]
    assert "needs more than 1728 images, got 120" in caplog.text


@pytest.mark.parametrize("kind", ["VAE", "diffusion", "folder", "array"])
def test_images_come_from_weights_a_folder_or_an_array(place, tmp_path, kind):
    """All as (N, 3, H, W) in [0, 1], float32; only a diffusion model is asked names."""
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
    images, names = read(path)
    assert images.shape == shape and images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert (names is not None) == (kind == "diffusion")


def test_more_images_than_fit_in_memory_are_refused(tmp_path):
    """P25: the number and the limit are named."""
    with pytest.raises(UsageError, match="--count: at most 10000, got 10001"):
        evaluate.main([str(tmp_path), "--count", "10001"])


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((2, 8, 8, 3)), r"float64 \(2, 8, 8, 3\); uint8"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"uint8 \(2, 3, 8, 8\); uint8"),
        (np.array([None]), "cannot read"),
    ],
)
def test_another_array_is_refused(tmp_path, array, words):
    """P9: never unpickled; the type and shape are named."""
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "x.npy")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no images"):
        read(tmp_path)


def test_the_extractor_of_a_file(tmp_path):
    model = FlowerFeatures(["one", "two"]).eval()
    save_checkpoint(tmp_path / "features.pt", model)
    images = torch.rand(2, 3, 8, 8)
    found = features.find_extractor(tmp_path / "features.pt")(images)
    torch.testing.assert_close(found, model(images))


def test_inception_sees_bytes(monkeypatch):
    """A stand-in of the same interface: uint8 (N, 3, H, W) -> (N, D)."""
    seen = []

    def network(images):
        seen.append(images)
        return images.flatten(1).float()

    module = SimpleNamespace(NoTrainInceptionV3=lambda name, features_list: network)
    monkeypatch.setitem(sys.modules, "torchmetrics", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", module)
    found = features.find_extractor("inception")(torch.ones(2, 3, 4, 4))
    assert found.shape == (2, 48) and seen[0].dtype == torch.uint8
    assert seen[0].min() == 255


def test_inception_without_its_package(monkeypatch):
    """The remedy is named."""
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[metrics\]'"):
        features.find_extractor("inception")


def test_weights_are_judged_by_samples_and_reconstructions(place, tmp_path, capsys):
    """A decoder that always paints one flat colour: both are the same grey images."""
    model = VarAutoencoder(4)
    with torch.no_grad():
        for parameter in model.decoder.image[-2].parameters():
            parameter.zero_()
    save_checkpoint(tmp_path / "flat.pth", model)
    path = str(tmp_path / "flat.pth")
    few = ("--extractor", "pixels", "--count", "50")
    found = measured(place, capsys, path, place / "train.npy", *few)
    drawn, rebuilt = found[path], found[f"reconstructions by {path}"]
    assert drawn["images"] == 50 and rebuilt["images"] == 120
    assert str(place / "train.npy") in found
    distances = [column["kernel distance"][0] for column in (drawn, rebuilt)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-3) and distances[0] > 0


def test_another_split_is_obeyed(place, tmp_path):
    """Copies are sought among the photos that the weights were trained on."""
    metadata = {"settings": {"image_size": 8}, "data": {"split_seed": 7}}
    save_checkpoint(tmp_path / "x.pth", VarAutoencoder(4, 8, 8), metadata)
    for path, side, seed in ((tmp_path / "x.pth", 8, 7), (place / "train.npy", 24, 0)):
        args = evaluate.parse([str(path), "--data", str(place / "photos")])
        training, _ = evaluate.open_photos(args)
        assert training.images.shape[2:] == (side, side)
        assert training.metadata["split_seed"] == seed


@pytest.mark.parametrize("name", ["features", "prior_AE"])
def test_weights_that_draw_nothing_are_refused(tmp_path, name):
    model = FlowerFeatures(["a", "b"]) if name == "features" else Priors("AE", 2, 1)
    save_checkpoint(tmp_path / "x.pth", model)
    with pytest.raises(
        UserError, match=f"no images can be generated from .*{name}.*MLPAE"
    ):
        read(tmp_path / "x.pth")


def test_images_that_cannot_be_compared_are_refused(place, tmp_path):
    """Other sizes or splits; a prior for what is already drawn."""
    save_checkpoint(tmp_path / "a.pth", VarAutoencoder(4), {"data": {"split_seed": 1}})
    several = [str(tmp_path / "a.pth"), str(place / "train.npy")]
    with pytest.raises(UsageError, match="IMAGES differ in size or split"):
        evaluate.main([*several, "--extractor", "pixels"])
    for flags in (["--prior", "gmm"], ["--steps", "5"], ["--species", "astilbe"]):
        with pytest.raises(UsageError, match=f"{flags[0]}: existing IMAGES"):
            evaluate.main([several[1], *flags])

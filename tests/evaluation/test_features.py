"""The classifier whose features measure distances, and the command that trains it."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

from tests.helpers.project import PROJECT, write_photos
from tools import train_features
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.cli import UserError
from utils.data_processor import create_flower_dataloaders
from utils.evaluation.features import FlowerFeatures, find_extractor, load_features
from VarAutoencoder import VarAutoencoder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train five epochs on drawn photos -> (folder, lines of stdout)."""
    folder = tmp_path_factory.mktemp("features")
    write_photos(folder / "photos", 40)
    line = f"--data {folder}/photos --out {folder} --epochs 5 --batch-size 16"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        train_features.main(line.split())
    return folder, output.getvalue().splitlines()


def test_drawn_species_are_classified(trained):
    """The loss falls, accuracy is above chance, and there is one line per epoch."""
    pattern = r"Epoch: (\d), Train Loss: (\d\.\d{4}), Valid Right: ([01]\.\d{4})"
    rows = [re.fullmatch(pattern, line).groups() for line in trained[1]]
    assert [row[0] for row in rows] == list("01234")
    assert float(rows[-1][1]) < float(rows[0][1])
    assert float(rows[-1][2]) > 0.6  # 0.33 is chance


def test_the_file_is_half_precision_and_has_metadata(trained):
    path = trained[0] / "models" / "features.pt"
    weights, metadata = load_checkpoint(path)
    kinds = {value.dtype for value in weights.values()}
    assert kinds == {torch.float16, torch.int64}  # and step counts of batch norm
    assert path.stat().st_size < 6e6
    assert metadata["data"]["classes"] == ["astilbe", "bellflower", "calendula"]
    assert metadata["valid_right"] == pytest.approx(
        float(trained[1][-1][-6:]), abs=1e-4
    )


def test_the_loaded_extractor_is_the_validated_one(trained):
    """In float32 and evaluation mode, with the accuracy in the log."""
    model = find_extractor(trained[0] / "models" / "features.pt")
    assert not model.training  # so that no feature depends on the batch
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    _, validation = create_flower_dataloaders(16, trained[0] / "photos", 24, 24)
    accuracy = train_features.accuracy(model, validation, torch.device("cpu"))
    assert accuracy == pytest.approx(float(trained[1][-1][-6:]), abs=0.05)
    images = next(iter(validation))[0]
    assert model(images).shape == (len(images), 256)
    assert model.classify(images).shape == (len(images), 3)


def test_a_file_of_another_model_is_refused(tmp_path):
    """P9: the message names the command that makes the right one."""
    save_checkpoint(tmp_path / "x.pth", VarAutoencoder(4, 8, 8))
    with pytest.raises(UserError, match="python -m tools.train_features"):
        load_features(tmp_path / "x.pth")


def test_a_missing_file_and_what_does_not_fit_are_refused(tmp_path):
    """A file of wrong metadata, or of other weights."""
    with pytest.raises(UserError, match="is missing; make it"):
        load_features(tmp_path / "features.pt")
    model = FlowerFeatures(["one", "two"])
    right, model.head = model.args, torch.nn.Linear(7, 2)
    for args in ({}, {"classes": 7}, {"kinds": ["one"]}, right):
        model.args = args
        save_checkpoint(tmp_path / "features.pt", model)
        words = "head.weight is" if args is right else "does not fit features"
        with pytest.raises(UserError, match=words):
            load_features(tmp_path / "features.pt")


@pytest.mark.parametrize("name, count", [("features", 256), ("features_b", 192)])
@pytest.mark.parametrize("size", [(33, 33), (9, 26), (24, 24)])
def test_any_size_has_features(size, name, count):
    model = FlowerFeatures("ab", name).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, count)


def test_the_second_extractor_has_a_file_of_its_own(tmp_path):
    """It is trained, saved and loaded as the first one."""
    write_photos(tmp_path / "photos", 10)
    line = f"--data {tmp_path}/photos --out {tmp_path} --epochs 1 --model features_b"
    train_features.main(line.split())
    model = find_extractor(tmp_path / "models" / "features_b.pt")
    assert model.name == "features_b" and not (tmp_path / "models/features.pt").exists()
    assert model(torch.rand(3, 3, 24, 24)).shape == (3, 192)


def test_no_setting_is_chosen_by_the_second_extractor():
    """It is named where it is made and reported, and in no search."""
    searches = ["tools/ablations.py", "tools/compare_samplers.py", "tools/reflow.py"]
    searches += sorted(PROJECT.glob("docs/*.toml"))
    assert len(searches) > 4
    for path in searches:
        assert "features_b" not in Path(PROJECT, path).read_text("utf-8"), path


def test_one_species_is_refused(tmp_path):
    """P25: a classifier needs two."""
    root = write_photos(tmp_path / "photos", 2)
    for kind in ("astilbe", "bellflower"):
        for path in (root / kind).iterdir():
            path.unlink()
    with pytest.raises(UserError, match="at least two"):
        train_features.main(["--data", str(root), "--out", str(tmp_path / "out")])

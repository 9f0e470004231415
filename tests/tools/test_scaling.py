"""Seconds per epoch against photos, pixels and processes."""

import json

import pytest

from tests.helpers.project import PROJECT
from tools import scaling
from utils.cli import UserError


def test_only_epochs_without_a_validation_count(tmp_path):
    """The median of the others."""
    log = tmp_path / "log.csv"
    lines = ["epoch,valid_per_photo,seconds", "1,1.5,9", "2,,2", "3,,4", "4,,3"]
    log.write_text("\n".join([*lines, "5,1.4,9"]))
    assert scaling.seconds_per_epoch(log) == 3


@pytest.mark.parametrize("slope, start", [(0.5, 0), (0.5, 3)])
def test_points_of_a_line_deviate_from_none(slope, start):
    points = {str(x): start + slope * x for x in (1, 2, 4, 8)}
    assert scaling.line_through(points) == pytest.approx([slope, start, 0], abs=1e-9)


def test_the_deviation_is_relative():
    """Three points, of which the middle is too high by a half of what it should be."""
    # The line of least relative squares a + b x: distances 1 - (a + b x) / y.
    points = {"1": 1.0, "2": 3.0, "3": 3.0}
    # By hand: u, v, w the lines' values; u + w = 2 v; minimize (1-u)^2 + (1-v/3)^2 +
    # (1-w/3)^2. Stationary: u = 1 - m, v = 3 + 18 m, w = 3 - 9 m with multiplier m, so
    # that 4 - 10 m = 6 + 36 m, m = -1 / 23.
    m = -1 / 23
    *_, deviation = scaling.line_through(points)
    assert deviation == pytest.approx(-6 * m)


def test_photos_are_copied_evenly(tmp_path, few_photos):
    """All classes; each file once."""
    scaling.copy_photos(few_photos, 5, tmp_path / "copy")
    found = sorted(path for path in (tmp_path / "copy").glob("*/*"))
    assert len(found) == 5
    assert len({path.read_bytes() for path in found}) == 5
    assert {p.parent.name for p in found} == {
        p.name for p in few_photos.iterdir() if p.is_dir()
    }


def test_too_few_photos_are_named(tmp_path, few_photos):
    with pytest.raises(UserError, match="need 100000; get them: python -m tools.get_"):
        scaling.copy_photos(few_photos, 100_000, tmp_path / "copy")
    with pytest.raises(UserError, match="missing holds 0 photos, need 5; get them"):
        scaling.copy_photos(tmp_path / "missing", 5, tmp_path / "copy")


@pytest.mark.slow
def test_every_point_is_a_training(tmp_path, few_photos, monkeypatch, capsys):
    """Really, and two processes too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(scaling, "PHOTOS", (32, 64))
    monkeypatch.setattr(scaling, "SIZES", (8, 16))
    monkeypatch.setattr(scaling, "BASE", (64, 8, 1))
    flags = [
        "--channels",
        "16,32",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--out",
        str(tmp_path),
    ]
    scaling.main([*flags, "--data", str(few_photos)])
    found = json.loads((tmp_path / "log" / "scaling.json").read_text())
    numbers = {name: list(found[name]) for name in ("photos", "pixels", "processes")}
    expected = {"photos": ["32", "64"], "pixels": ["64", "256"]}
    assert numbers == expected | {"processes": ["1", "2"]}
    assert all(value > 0 for name in numbers for value in found[name].values())
    # The same training is the base of all three.
    assert found["photos"]["64"] == found["pixels"]["64"] == found["processes"]["1"]
    assert capsys.readouterr().out == scaling.table(found) + "\n"
    assert (tmp_path / "vis" / "scaling.png").stat().st_size > 10_000


def test_the_page_has_what_was_measured():
    found = json.loads((PROJECT / "log" / "scaling.json").read_text("utf-8"))
    assert scaling.table(found) in (PROJECT / "docs" / "scale.md").read_text("utf-8")
    assert all(line[-1] <= 0.15 for line in found["lines"].values())

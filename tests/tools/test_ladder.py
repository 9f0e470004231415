"""Quality against training time: minutes, the record and the figure."""

import json

import pytest

from tests.helpers.diffusion import save_small
from tools import ladder
from utils.checkpoint import save_checkpoint
from utils.cli import UserError
from VarAutoencoder import VarAutoencoder

METRICS = {
    "images": 2000,
    "kernel distance to validation photos": [0.2, 0.1, 0.3],
    "kernel distance": [0.4, 0.3, 0.5],
    "recall at equal number": [0.5, 0.4, 0.6],
    "precision at equal number": [0.75, 0.7, 0.8],
}


@pytest.fixture
def place(tmp_path):
    """Weights of two models, and what was measured of their samples."""
    small = save_small(tmp_path / "Best_diffusion.pkl", channels=(16, 32))
    vae = tmp_path / "Best_VAE.pth"
    data = {"count": 160, "classes": [], "source": "photos", "split_seed": 0}
    settings = {"epochs": 20, "batch_size": 16, "image_size": 8, "beta": 1.0}
    metadata = {"settings": settings, "data": data | {"split": "0"}}
    save_checkpoint(vae, VarAutoencoder(4, 8, 8), metadata)
    (tmp_path / "log").mkdir()
    for path in (small, vae):
        record = tmp_path / "log" / f"evaluate_{path.stem}.json"
        found = {str(path): METRICS, "validation photos": METRICS}
        record.write_text(json.dumps(found))
    return tmp_path


def command(place, *names):
    ladder.main(["--out", str(place), *(str(place / name) for name in names)])


def test_minutes_are_those_of_all_steps(place, monkeypatch, capsys):
    """The VAE: 128 of 160 photos, 8 steps of 16, 20 epochs, 3 seconds a step."""
    monkeypatch.setattr(ladder, "seconds_per_step", lambda *step: 3.0)
    command(place, "Best_VAE.pth", "Best_diffusion.pkl")
    found = json.loads((place / "log" / "ladder.json").read_text())
    assert found["models"]["VAE"] == METRICS | {"minutes": 8.0}
    assert list(found["models"]) == ["VAE", "diffusion"]
    assert "threads" in found["machine"]
    assert capsys.readouterr().out.splitlines()[0] == "VAE: 8.0 min"
    assert (place / "vis" / "ladder.png").stat().st_size > 10_000


def test_the_photos_are_those_of_the_first_weights(place, monkeypatch):
    """Not those of another record, and not of a file's name."""
    seen = []
    monkeypatch.setattr(ladder, "seconds_per_step", lambda *step: 1.0)
    monkeypatch.setattr(
        ladder, "plot_ladder", lambda rows, photos, path: seen.append(photos)
    )
    record = place / "log" / "evaluate_z.json"
    record.write_text(json.dumps({"x.pkl": {}, "validation photos": {"other": 1}}))
    command(place, "Best_VAE.pth")
    assert seen == [METRICS]


def test_of_several_measurements_that_of_most_images_counts(place, monkeypatch):
    """Wherever its name stands in the alphabet."""
    monkeypatch.setattr(ladder, "seconds_per_step", lambda *step: 1.0)
    for name in "az":
        fewer = METRICS | {"images": 500, "kernel distance": [0.9, 0.8, 1.0]}
        found = {str(place / "Best_VAE.pth"): fewer, "validation photos": METRICS}
        (place / "log" / f"evaluate_{name}.json").write_text(json.dumps(found))
    command(place, "Best_VAE.pth")
    found = json.loads((place / "log" / "ladder.json").read_text())["models"]
    assert found["VAE"] == METRICS | {"minutes": found["VAE"]["minutes"]}


def test_a_model_of_generated_images_has_no_row(place):
    """Its steps are of couplings, of which the photos' number says nothing."""
    path = save_small(place / "Best_diffusion_fast.pkl", name="diffusion_fast")
    record = place / "log" / "evaluate_fast.json"
    found = {str(path): METRICS, "validation photos": METRICS}
    record.write_text(json.dumps(found))
    with pytest.raises(UserError, match="was trained on images, not photos; omit it"):
        command(place, path.name)


def test_a_step_of_every_kind_of_model_is_timed(place):
    """Really: their losses have gradients."""
    command(place, "Best_VAE.pth", "Best_diffusion.pkl")
    found = json.loads((place / "log" / "ladder.json").read_text())["models"]
    assert all(model["minutes"] > 0 for model in found.values())


def test_weights_that_were_not_evaluated_are_named(place):
    save_small(place / "other.pkl")
    with pytest.raises(UserError, match="has .*other.pkl; make one: .* log/evaluate_o"):
        command(place, "other.pkl")

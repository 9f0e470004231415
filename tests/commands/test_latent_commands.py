"""What the commands make of fitted priors, other splits and a weighed KL."""

import itertools
import re

import numpy as np
import pytest
import torch

from tests.helpers.commands import files_below, refused, train, use
from tests.helpers.outputs import pixels, small_picture
from tests.helpers.training import rows_of
from utils.checkpoint import load_checkpoint
from utils.data_processor import create_flower_dataloaders
from utils.experiment import generate
from utils.registry import load_model


@pytest.mark.parametrize("name", ["MLPAE", "AE", "VAE"])
def test_a_training_leaves_priors_to_draw_from(tmp_path, photo_folder, name):
    """Three priors, three pictures; N(0, 1) is what is drawn from unasked."""
    assert train(name, tmp_path, photo_folder).code == 0
    pictures = {}
    for prior in ("normal", "gaussian", "gmm", None):
        asked = ("--prior", prior) if prior else ()
        assert use("random_generation.py", name, tmp_path, *asked).code == 0
        pictures[prior] = pixels(tmp_path / "vis" / f"random_images_{name}.png")
    assert np.array_equal(pictures["normal"], pictures[None])
    for prior in ("gaussian", "gmm"):  # the same here: 24 codes make one Gaussian
        assert not np.array_equal(pictures[prior][40:], pictures["normal"][40:])
    assert (tmp_path / "models" / f"Prior_{name}.pth").stat().st_size < 400_000


def test_a_prior_that_is_missing_is_fitted_to_the_trainings_photos(
    tmp_path, photo_folder
):
    """As after a Ctrl-C; of other weights too. Without the photos: exit 1, no picture.

    The images are those of the prior that the whole training fitted, but for the VAE,
    whose codes are drawn.
    """
    for seed in "01":
        assert train("AE", tmp_path / seed, photo_folder, "--seed", seed).code == 0
    models = [tmp_path / seed / "models" for seed in "01"]
    picture = tmp_path / "1" / "vis" / "random_images_AE.png"
    call = ("random_generation.py", "AE", tmp_path / "1", "--prior", "gmm")
    assert use(*call).code == 0
    wanted = picture.read_bytes()
    picture.unlink()

    # The prior of other weights; ./flowers holds other photos, or the training's.
    prior = models[1] / "Prior_AE.pth"
    prior.write_bytes((models[0] / "Prior_AE.pth").read_bytes())
    (tmp_path / "flowers").mkdir()
    result = use(*call, project=tmp_path)
    refused(result, "random_generation.py", "cannot be fitted", "train again")
    assert not picture.exists()
    (tmp_path / "flowers").rmdir()
    (tmp_path / "flowers").symlink_to(photo_folder)
    for _ in range(2):
        assert use(*call, project=tmp_path).code == 0
        assert picture.read_bytes() == wanted
        prior.unlink()


def test_a_copy_of_weights_replaces_no_prior(tmp_path, photo_folder):
    """The file beside it has the priors of the best weights, which stay."""
    assert train("AE", tmp_path, photo_folder).code == 0
    prior, copy = (tmp_path / "models" / f"{k}_AE.pth" for k in ("Prior", "Previous"))
    assert train("AE", tmp_path, photo_folder, "--seed", "1").code == 0
    before = prior.read_bytes()
    (tmp_path / "flowers").symlink_to(photo_folder)
    call = ("random_generation.py", "AE", tmp_path, "--prior", "gmm")
    assert use(*call, "--weights", copy, project=tmp_path).code == 0
    assert prior.read_bytes() == before


def test_python_finds_the_prior_of_the_projects_weights(
    tmp_path, photo_folder, monkeypatch
):
    """README: `generate` needs no path."""
    assert train("AE", tmp_path, photo_folder).code == 0
    monkeypatch.setattr("utils.experiment.PROJECT", tmp_path)
    model, metadata = load_model("AE", tmp_path / "models" / "Best_AE.pth")
    assert len(generate(model, metadata, 3, prior="gmm")) == 3
    # N(0, I) is in no file.
    monkeypatch.setattr("utils.experiment.PROJECT", tmp_path / "empty")
    assert len(generate(model, metadata, 3)) == 3


def test_codes_too_long_for_a_covariance_get_no_prior(tmp_path, photo_folder):
    result = train("MLPAE", tmp_path, photo_folder, "--encoding-dim", "257")
    assert result.code == 0 and "codes of more than 256" in result.err
    assert files_below(tmp_path / "models") == ["Best_MLPAE.pkl", "Last_MLPAE.pth"]


def test_another_split_is_kept_and_obeyed(tmp_path, photo_folder):
    """--split-seed: in the description, and the photos that are shown are its own."""
    flags = ("--split-seed", "1")
    assert train("MLPAE", tmp_path, photo_folder, *flags).code == 0
    data = load_checkpoint(tmp_path / "models" / "Best_MLPAE.pkl")[1]["data"]
    _, validation = create_flower_dataloaders(16, photo_folder, 8, 8, split_seed=1)
    assert data["split_seed"] == 1 and data == validation.dataset.metadata
    result = use("visualization.py", "MLPAE", tmp_path, "--data", photo_folder)
    assert result.code == 0 and result.err == ""  # no word of another split
    first = (next(iter(validation))[0][0] * 255).round().byte().permute(1, 2, 0)
    picture = small_picture(tmp_path / "vis" / "valid_MLPAE.png", 12, left=9)
    assert np.array_equal(picture[1:9, 1:9], first.numpy())


@pytest.mark.parametrize("beta", ["0.05", "optimal"])
def test_a_weighed_kl_trains_and_is_kept(tmp_path, photo_folder, beta):
    """The CSV's loss is the weighed one; its parts are still there."""
    result = train("VAE", tmp_path, photo_folder, "--beta", beta)
    assert result.code == 0, result.err
    metadata = load_checkpoint(tmp_path / "models" / "Best_VAE.pth")[1]
    assert str(metadata["settings"]["beta"]) == beta
    row = {k: float(v) for k, v in rows_of(tmp_path / "log" / "VAE.csv")[-1].items()}
    assert row["valid_squared_error"] > 0 and 0 <= row["valid_active_units"] <= 64
    of_each = [value for k, value in row.items() if re.fullmatch(r"valid_kl_\d\d", k)]
    assert len(of_each) == 64
    assert sum(of_each) == pytest.approx(row["valid_kl"], rel=1e-4)
    if beta == "optimal":
        assert row["valid_per_photo"] < 100  # nats of a density
    else:
        parts = row["valid_squared_error"] + 0.05 * row["valid_kl"]
        assert row["valid_per_photo"] == pytest.approx(parts, rel=1e-4)


FLAGS_OF_AE = (
    *("", "--no-hflip", "--translate 2", "--ema 0.9", "--init-weights own"),
    *("--warm-up 0.5", "--weight-decay 0.01", "--scheduler constant", "--split-seed 3"),
)


@pytest.mark.parametrize(
    "model, flags",
    [("AE", FLAGS_OF_AE), ("VAE", ("", "--antithetic-pairs 0", "--translate 0"))],
)
def test_each_setting_reaches_the_training(tmp_path, photo_folder, model, flags):
    """No flag is accepted and ignored: each gives other weights."""
    seen = {}
    for number, flag in enumerate(flags):
        out = tmp_path / str(number)
        more = [*flag.split(), "--batch-size", "4"]
        assert train(model, out, photo_folder, *more).code == 0
        weights, _ = load_checkpoint(out / "models" / f"Best_{model}.pth")
        seen[flag] = torch.cat([weight.flatten() for weight in weights.values()])
    for one, other in itertools.combinations(flags, 2):
        assert not torch.equal(seen[one], seen[other]), (one, other)

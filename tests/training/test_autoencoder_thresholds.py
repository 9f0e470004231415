"""What the autoencoders' own settings reach, on the real photos: means of three seeds.

Run with `pytest -m thresholds -s`, beside test_thresholds.py.
"""

import shutil
from statistics import mean

import pytest

from tests.helpers.thresholds import pytestmark, train  # noqa: F401  (the marker)
from tests.helpers.training import rows_of

THREE_EPOCHS = "--epochs 3 --no-hflip --translate 0 --init-weights own --batch-size 8"
THREE_EPOCHS += " --lr 0.003 --weight-decay 0.2"


def last_losses(folder, photos, arguments):
    """Train on three seeds -> mean (train, valid) per photo of the last epoch."""
    rows = []
    for seed in "012":
        _, out = train(folder, photos, *arguments.split(), "--seed", seed)
        (path,) = (out / "log").glob("*.csv")
        rows.append(rows_of(path)[-1])
    columns = "train_per_photo", "valid_per_photo"
    found = [mean(float(row[name]) for row in rows) for name in columns]
    print(f"{arguments}: train {found[0]:.5g}, valid {found[1]:.5g}")
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "arguments, most_train, most_valid",
    [
        ("--model AE", 0.0062, 0.0070),  # PCA of 64 components: 0.00705, 0.00797
        (f"--model AE {THREE_EPOCHS}", 0.010, 0.012),
        ("--model AE --optimizer sgd", 0.0105, 0.0265),
        ("--model MLPAE", 0.03, 0.03),
        ("--model MLPAE --optimizer adamw", 0.0125, 0.0125),
        # A linear VAE's best is 727 per batch of 16 on the training photos.
        ("--model VAE", 695 / 16, 695 / 16),
    ],
)
def test_losses_per_photo(place, real_photos, arguments, most_train, most_valid):
    found = last_losses(place, real_photos, arguments)
    assert found[0] <= most_train and found[1] <= most_valid


@pytest.mark.parametrize("model", ["AE", "VAE"])
@pytest.mark.parametrize("split", ["1", "2"])
def test_other_splits_change_little(place, real_photos, model, split):
    """Validation losses within 5 % of those of the default split."""
    _, here = last_losses(place, real_photos, f"--model {model}")
    flags = f"--model {model} --split-seed {split}"
    _, there = last_losses(place, real_photos, flags)
    assert there == pytest.approx(here, rel=0.05)

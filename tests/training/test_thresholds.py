"""Every number that the assignment asks for, on the real photos, over three seeds.

Run with `pytest -m thresholds -s`; it trains every model anew, which takes about an
hour on two cores. Needs FLOWERS_PHOTOS.
"""

import json
import time
from math import inf

import pytest
import torch

from diffusion import Diffuser
from tests.helpers.project import PROJECT, run_command
from tests.helpers.thresholds import pytestmark, train  # noqa: F401  (the marker)
from utils.checkpoint import load_checkpoint
from utils.data_processor import create_flower_dataloaders

seeds = pytest.mark.parametrize("seed", [0, 1, 2])


@seeds
@pytest.mark.parametrize(
    "arguments, most_epochs, most_train, most_valid",
    [
        # M12: with the kit's own SGD, lr 1.0, no momentum.
        ("--model MLPAE", 100, 0.03, 0.03),
        # M19: at the 60th line; validation is compared to the MLPAE below.
        ("--model AE --optimizer sgd", 60, 0.015, inf),
        ("--model AE", 15, 0.010, 0.012),  # M22
        ("--model VAE", 20, 800, 800),  # M33: per batch of 16
    ],
)
def test_losses(
    tmp_path, real_photos, seed, arguments, most_epochs, most_train, most_valid
):
    """Within so many epochs both losses are below their bounds."""
    flags = (*arguments.split(), "--seed", str(seed))
    rows, _ = train(tmp_path, real_photos, *flags)
    print(f"{arguments}, seed {seed}: {rows[-1]} after {len(rows)} epochs")
    assert len(rows) <= most_epochs
    assert rows[-1][0] < most_train and rows[-1][1] < most_valid


@seeds
def test_ae_by_sgd_passes_below_the_mlpae(tmp_path, real_photos, seed):
    """M19: on both losses."""
    (ae, _), (mlpae, _) = (
        train(tmp_path, real_photos, *flags.split(), "--seed", str(seed))
        for flags in ("--model AE --optimizer sgd", "--model MLPAE")
    )
    assert ae[-1][0] < mlpae[-1][0] and ae[-1][1] < mlpae[-1][1]


def train_diffusion(folder, photos, *flags):
    """Train diffusion.py -> (the path of its best weights, seconds)."""
    start = time.perf_counter()
    where = ("--data", photos, "--out", folder)
    done = run_command("diffusion.py", *flags, *where, timeout=1800)
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    (folder / "log" / "train.out").write_text(done.stdout)
    return folder / "models" / "Best_diffusion.pkl", seconds


@seeds
def test_diffusion(tmp_path, real_photos, seed):
    """M38-M43: ten minutes, a sixteenth of the VAE's distance; colours and contrast."""
    weights, seconds = train_diffusion(tmp_path, real_photos, "--seed", seed)
    facts = compare(draw_samples(weights, 200), photos_of(real_photos))
    facts["distances"] = ours, vaes = distances(real_photos, weights)
    print(f"diffusion seed {seed}: {seconds / 60:.1f} min, {facts}")
    assert seconds < 600 and ours < vaes / 16
    assert facts["colour"] < 0.1 and facts["contrast"] >= 0.7
    assert facts["saturated"] < 0.05


def test_diffusion_in_four_minutes(tmp_path, real_photos):
    """A twelfth of the VAE's distance."""
    weights, seconds = train_diffusion(tmp_path, real_photos, "--budget", "4m")
    ours, vaes = distances(real_photos, weights)
    print(f"diffusion, 4 minutes: {seconds:.0f} s, {ours} against {vaes}")
    assert seconds < 260 and ours < vaes / 12


def distances(photos, *weights):
    """Frechet distances to all photos: by weights, and by the committed VAE."""
    paths = *weights, PROJECT / "models" / "Best_VAE.pth"
    flags = "--frechet", "--json", "--data", photos
    done = run_command("tools.evaluate", *paths, *flags, timeout=1800)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return [found[str(path)]["Frechet distance"][0] for path in paths]


def draw_samples(path, count):
    """Sample `count` images in [0, 1] by the whole chain from a file of weights."""
    model = Diffuser(300)
    model.load_state_dict(load_checkpoint(path)[0], strict=True)
    torch.manual_seed(0)
    *_, x_0 = model.eval().states(torch.randn(count, 3, 24, 24), 300)
    return ((x_0 + 1) / 2).clamp(0, 1)


def photos_of(root):
    """Return all training photos, (N, 3, 24, 24) in [0, 1]."""
    training, _ = create_flower_dataloaders(16, root, 24, 24)
    return training.dataset.images.float() / 255


def compare(samples, photos):
    """Return how far the samples are from the photos, in plain numbers.

    colour: largest difference of a channel's mean; contrast: ratio of the mean standard
    deviation within an image; saturated: share of values at 0 or 1.
    """

    def contrast(images):
        return images.flatten(1).std(dim=1).mean()

    means = (samples.mean((0, 2, 3)) - photos.mean((0, 2, 3))).abs()
    levels = (samples * 255).round()
    return {
        "colour": round(means.max().item(), 4),
        "contrast": round((contrast(samples) / contrast(photos)).item(), 4),
        "saturated": round(((levels == 0) | (levels == 255)).float().mean().item(), 4),
    }

"""Reflow: against flows in closed form, and the command."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

import random_generation
from diffusion import Diffuser, diffusion_loss_fn
from tests.helpers.project import write_photos
from tools import reflow
from utils import experiment as pace
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.cli import UsageError, UserError
from utils.diffusion.denoiser import SIGMA_DATA
from utils.diffusion.rectified_flow import (
    LABEL_DROPOUT,
    coupling_loaders,
    draw_coupling_labels,
    draw_couplings,
    rectified_flow_loss,
)
from utils.diffusion.sampling import (
    SIGMA_MAX,
    SIGMA_MIN,
    SamplerConfig,
    sample_states,
    sigmas_for,
)
from utils.evaluation import evaluate as trials
from VarAutoencoder import VarAutoencoder

VARIANCE = 0.25  # of the Gaussian whose flow is known
# Image over start of its flow, whose last step, from LOWEST, takes the estimate.
SHRUNK = ((VARIANCE + SIGMA_MIN**2) / (VARIANCE + SIGMA_MAX**2)) ** 0.5
SHRUNK *= VARIANCE / (VARIANCE + SIGMA_MIN**2)
PLAIN = SamplerConfig(guidance=1.0)
ABOUT = {
    "settings": {"image_size": 8, "channels": (16, 32), "ema": 0.9},
    "class_proportions": [0.5, 0.3, 0.2],
    "data": {"source": "photos", "split": "?", "split_seed": 0, "count": 30},
}


class Gaussian(nn.Module):
    """The ideal denoiser of N(0, VARIANCE): its flow shrinks noise to SHRUNK of it."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def denoise(self, x, sigma, labels):
        sigma = sigma.view(-1, 1, 1, 1)
        return x * VARIANCE / (VARIANCE + sigma**2)


class Straight(nn.Module):
    """Knows the straight lines from starts to SHRUNK of them; answers by `flow`."""

    objective = "flow"

    def predict(self, weight, x, sigma, labels=None):
        return self.model_output(x, sigma, labels)

    def model_output(self, x, sigma, labels=None):
        sigma = sigma.view(-1, 1, 1, 1)
        image, noise = self.line(x, sigma)
        return noise - image / SIGMA_DATA

    def denoise(self, x, sigma, labels=None):
        return self.line(x, sigma.view(-1, 1, 1, 1))[0]

    def line(self, x, sigma):
        """Return the (image, noise) of the line through x."""
        start = x / (SHRUNK + sigma / SIGMA_MAX * (1 - SHRUNK))
        return SHRUNK * start, (1 - SHRUNK) * start / SIGMA_MAX


@pytest.fixture(scope="module")
def couplings():
    """Of the Gaussian's flow, by 100 steps."""
    torch.manual_seed(0)
    config = replace(PLAIN, steps=100)
    return draw_couplings(Gaussian(), config, torch.zeros(300, dtype=torch.int64), 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos, and tiny weights whose ways are crooked."""
    folder = tmp_path_factory.mktemp("reflow")
    write_photos(folder / "photos", 10)
    torch.manual_seed(0)
    model = Diffuser(300, channels=(16, 32))
    for weights in model.network.conv_out.parameters():
        nn.init.normal_(weights, std=0.2)
    save_checkpoint(folder / "tiny.pkl", model, ABOUT)
    return folder


def command(place, out, *arguments):
    """Run the command on few pairs."""
    few = ["--couplings", 160, "--batch-size", 16, "--epochs", 1, "--out", out]
    line = ["--weights", place / "tiny.pkl", *few, *arguments]
    reflow.main(list(map(str, line)))


# Pairs and lines -------------------------------------------------------------------


def test_pairs_are_what_the_flow_gives(couplings):
    """A line's start is noise at the highest level, and its end SHRUNK of that."""
    noise, image = couplings.unbind(dim=1)
    start = image + SIGMA_MAX * noise
    assert start.std().item() == pytest.approx(SIGMA_MAX, rel=0.02)
    torch.testing.assert_close(image, SHRUNK * start, rtol=1e-3, atol=1e-4)


def test_pairs_belong_to_their_species():
    """Each species' flow ends in its own photo, in the order that was asked."""

    class Photos(Gaussian):
        def denoise(self, x, sigma, labels):
            return labels.view(-1, 1, 1, 1).expand_as(x).float() / 4

    labels = torch.arange(600) % 4
    images = draw_couplings(Photos(), PLAIN, labels, 2)[:, 1]
    expected = labels.view(-1, 1, 1, 1) / 4
    torch.testing.assert_close(images, expected.expand_as(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "config", [SamplerConfig("ddpm", 2), SamplerConfig("ddim", 2, eta=0.5)]
)
def test_a_sampler_that_adds_noise_makes_no_pairs(config):
    with pytest.raises(ValueError, match=f"adds no noise, got {config.sampler}"):
        draw_couplings(Gaussian(), config, torch.zeros(2), 2)


def test_a_perfect_straight_model_has_no_loss(couplings):
    """Nor has it any but with the noise of the pairs: with another's it is large."""
    labels = torch.zeros(len(couplings), dtype=torch.int64)
    assert rectified_flow_loss(Straight(), couplings, labels).item() < 1e-5
    mixed = torch.stack([couplings[:, 0].roll(1, dims=0), couplings[:, 1]], dim=1)
    assert rectified_flow_loss(Straight(), mixed, labels).item() > 1
    sigma = torch.full((len(couplings),), 0.5)
    assert (
        diffusion_loss_fn(
            Straight(), couplings[:, 1], sigma=sigma, weight="flow"
        ).item()
        > 0.5
    )


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_straight_model_needs_one_step(steps):
    """From the start to SHRUNK of it, in however many."""
    noise = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    *_, image = sample_states(Straight(), noise, SamplerConfig("flow", steps))
    torch.testing.assert_close(image, SHRUNK * SIGMA_MAX * noise)


@pytest.mark.parametrize("objective", ["flow", "v"])
def test_an_untrained_flow_is_straight_already(objective):
    """A network that answers 0 sends noise straight to DEVIATION of it; v's bends."""
    model = Diffuser(300, channels=(16,), objective=objective).eval()
    labels = torch.zeros(64, dtype=torch.int64)
    couplings = draw_couplings(model, SamplerConfig("heun", 60), labels, 8)
    loss = rectified_flow_loss(model, couplings, labels).item()
    assert loss < 1e-4 if objective == "flow" else loss > 0.01


def test_some_species_are_not_named():
    torch.manual_seed(0)
    labels = draw_coupling_labels([0.5, 0.5], 2, 20_000)
    shares = (labels.bincount() / len(labels)).tolist()
    named = (1 - LABEL_DROPOUT) / 2
    assert shares == pytest.approx([named, named, LABEL_DROPOUT], abs=0.02)
    assert draw_coupling_labels(None, 2, 3).tolist() == [2, 2, 2]


def test_a_tenth_of_the_pairs_validates():
    """Every pair once, with its species; the others shuffled anew each time."""
    couplings, labels = torch.arange(40.0).view(40, 1), torch.arange(40)
    training, validation = coupling_loaders(couplings, labels, 8, seed=0)
    assert len(training) == 5 and len(validation) == 1
    held_out = torch.cat([labels for _, labels in validation])
    assert held_out.tolist() == [36, 37, 38, 39]
    orders = [torch.cat([labels for _, labels in training]).tolist() for _ in "ab"]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order) == list(range(36))
    assert all(torch.equal(batch[:, 0], labels) for batch, labels in training)


# The command -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(place, tmp_path_factory):
    """The command's files, after enough epochs to tell."""
    out = tmp_path_factory.mktemp("done")
    colours = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "find_extractor", lambda name: colours)
        data = ("--data", place / "photos", "--frechet", "--count", 40)
        command(place, out, *data, "--epochs", 4, "--guidance", 2, "--lr", "2e-3")
    return out


def test_the_new_weights_draw_in_two_steps(done, tmp_path):
    """They are a diffusion model's, and say where they come from."""
    path = done / "models" / "Best_diffusion_reflow.pkl"
    metadata = load_checkpoint(path)[1]
    assert metadata["model"] == "diffusion" and metadata["seed"] == 0
    assert (
        metadata["reflow"]["couplings"] == 160 and metadata["reflow"]["guidance"] == 2
    )
    assert metadata["settings"]["epochs"] == 4 and metadata["settings"]["ema"] == 0.9
    assert metadata["settings"]["guidance"] == 1  # which is in its pairs
    assert metadata["class_proportions"] == ABOUT["class_proportions"]
    line = ["--model", "diffusion", "--weights", str(path), "--out", str(tmp_path)]
    few = ["--sampler", "flow", "--steps", "2", "--guidance", "1", "--count", "4"]
    random_generation.main([*line, *few])
    assert (tmp_path / "vis" / "random_images_diffusion.png").is_file()


def test_validation_is_by_pairs_that_are_held_out_and_falls(done):
    with open(done / "log" / "diffusion_reflow.csv", newline="") as file:
        losses = [float(row["valid_per_photo"]) for row in csv.DictReader(file)]
    assert len(losses) == 4 and losses[-1] < losses[0]


def test_distances_before_and_after_are_told(done):
    """Of 1, 2 and 4 evaluations, and of the pairs' sampler: 2 where it was guided."""
    found = json.loads((done / "log" / "reflow_diffusion.json").read_text())
    sigmas = sigmas_for(None, PLAIN)[:-1]
    guided = sum(PLAIN.guidance_interval[0] <= sigma for sigma in sigmas)
    for name, last in (("before", len(sigmas) + guided), ("after", len(sigmas))):
        assert [point["nfe"] for point in found[name]] == [1, 2, 4, last]
        assert all(p["frechet"][1] < p["frechet"][2] for p in found[name])
    assert found["reflow"]["weights"]["model"] == "diffusion"
    assert found["command"].startswith("python -m tools.reflow --weights ")
    assert found["count"] == 40 and "threads" in found["machine"]
    with Image.open(done / "vis" / "reflow_diffusion.png") as image:
        image.load()
        assert image.width > 1000


def test_without_photos_there_is_a_picture_and_no_distance(
    place, tmp_path, monkeypatch, capsys
):
    """Nor are there more epochs than fit into what the pairs have left."""

    def fitting(left, per_epoch):
        assert 0 < per_epoch < left < 1000
        return 2

    monkeypatch.setattr(pace, "epochs_within", fitting)
    command(place, tmp_path, "--budget", "1000s", "--couplings", "20")
    assert capsys.readouterr().out.count("/2, Train Loss: ") == 2
    assert (tmp_path / "vis" / "reflow_diffusion.png").is_file()
    assert not (tmp_path / "log" / "reflow_diffusion.json").exists()


def test_wrong_commands_are_refused(place, tmp_path):
    """P25: each names the flag or the file."""
    with pytest.raises(UsageError, match="--data: photos are for --frechet only"):
        command(place, tmp_path, "--data", place / "photos")
    with pytest.raises(UserError, match="--budget leaves 0 s"):
        command(place, tmp_path, "--budget", "0.01s", "--couplings", "2")
    save_checkpoint(tmp_path / "x.pth", VarAutoencoder(4, 8, 8))
    with pytest.raises(UserError, match="holds a VAE; name weights that diffusion.py"):
        reflow.main(["--weights", str(tmp_path / "x.pth"), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as refusal:
        command(place, tmp_path, "--couplings", "1")
    assert refusal.value.code == 2

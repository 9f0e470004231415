"""Rectified flow: couplings and losses in closed form, and the command tools.reflow."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

import random_generation
from diffusion import diffusion_loss_fn
from tests.helpers.diffusion import (
    VARIANCE,
    gaussian,
    ideal,
    save_small,
    small,
)
from tests.helpers.project import write_photos
from tools import reflow
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.cli import UsageError, UserError
from utils.config import SamplerConfig
from utils.diffusion.rectified_flow import (
    FIRST,
    LABEL_DROPOUT,
    coupling_loaders,
    draw_coupling_labels,
    draw_couplings,
    rectified_flow_loss,
)
from utils.diffusion.sampling import SIGMA_MAX, SIGMA_MIN, sample_states, sigmas_for
from utils.evaluation import evaluate
from utils.registry import load_diffusion
from VarAutoencoder import VarAutoencoder

# The ODE's exact image over its start, down to SIGMA_MIN; the last step takes the
# denoiser's estimate.
RATIO = ((VARIANCE + SIGMA_MIN**2) / (VARIANCE + SIGMA_MAX**2)) ** 0.5
RATIO *= VARIANCE / (VARIANCE + SIGMA_MIN**2)
UNGUIDED = SamplerConfig(guidance=1.0)


def straight(x, sigma, labels):
    """The ideal estimate on the straight lines from starts to RATIO times them."""
    # x is RATIO of its start at sigma 0, and all of it at SIGMA_MAX.
    return RATIO * x / (RATIO + sigma / SIGMA_MAX * (1 - RATIO))


@pytest.fixture(scope="module")
def couplings():
    """Couplings of the Gaussian's ODE, solved in 100 steps: (300, 2, 3, 8, 8).

    The ODE multiplies a start by RATIO.
    """
    torch.manual_seed(0)
    config = replace(UNGUIDED, steps=100)
    labels = torch.zeros(300, dtype=torch.int64)
    return draw_couplings(ideal(small(), gaussian), config, labels, 8)


# Couplings and lines ------------------------------------------------------------------


def test_couplings_follow_the_ode(couplings):
    """A line starts at noise of SIGMA_MAX, and ends at RATIO times its start."""
    noise, image = couplings.unbind(dim=1)
    start = image + SIGMA_MAX * noise
    assert start.std().item() == pytest.approx(SIGMA_MAX, rel=0.02)
    torch.testing.assert_close(image, RATIO * start, rtol=1e-3, atol=1e-4)


def test_couplings_have_the_given_labels():
    """Every label has an image of its own, over more than one batch."""
    model = ideal(
        small(), lambda x, sigma, labels: labels.view(-1, 1, 1, 1) / 8 + 0 * x
    )
    # Batches of 256 start at different labels.
    labels = torch.arange(600) % 7
    images = draw_couplings(model, UNGUIDED, labels, 2)[:, 1]
    expected = labels.view(-1, 1, 1, 1) / 8
    torch.testing.assert_close(images, expected.expand_as(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "config", [SamplerConfig("ddpm", 2), SamplerConfig("ddim", 2, eta=0.5)]
)
def test_samplers_that_add_noise_are_refused(config):
    with pytest.raises(ValueError, match=f"adds no noise, got {config.sampler}"):
        draw_couplings(small(), config, torch.zeros(2), 2)


def test_the_loss_of_an_ideal_straight_model_is_zero(couplings):
    model = ideal(small(), straight)
    labels = torch.zeros(len(couplings), dtype=torch.int64)
    assert rectified_flow_loss(model, couplings, labels).item() < 1e-5
    # But only with the noise of the couplings: not if that is permuted, nor drawn anew.
    permuted = torch.stack([couplings[:, 0].roll(1, dims=0), couplings[:, 1]], dim=1)
    assert rectified_flow_loss(model, permuted, labels).item() > 1
    options = {"sigma": torch.full((len(couplings),), 0.5), "weight": "flow"}
    assert diffusion_loss_fn(model, couplings[:, 1], **options).item() > 0.5


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_straight_model_needs_one_step(steps):
    """Any number of steps leads to the same image."""
    noise = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    config = replace(reflow.COMPARED[0], steps=steps)
    *_, image = sample_states(ideal(small(), straight), noise, config)
    torch.testing.assert_close(image, RATIO * SIGMA_MAX * noise)


@pytest.mark.parametrize("objective", ["flow", "v"])
def test_an_untrained_flow_is_straight(objective):
    """A network whose output is 0 has straight trajectories for flow, not for v."""
    # heun follows the ODE closely.
    model = small(objective=objective)
    labels = torch.zeros(64, dtype=torch.int64)
    couplings = draw_couplings(model, SamplerConfig("heun", 60), labels, 8)
    loss = rectified_flow_loss(model, couplings, labels).item()
    assert loss < 1e-4 if objective == "flow" else loss > 0.01


def test_some_labels_are_dropped():
    torch.manual_seed(0)
    labels = draw_coupling_labels([0.5, 0.5], 2, 20_000)
    proportions = (labels.bincount() / len(labels)).tolist()
    kept = (1 - LABEL_DROPOUT) / 2
    assert proportions == pytest.approx([kept, kept, LABEL_DROPOUT], abs=0.02)
    # Weights without classes have the null label only.
    assert draw_coupling_labels(None, 2, 3).tolist() == [2, 2, 2]


def test_the_last_tenth_of_the_couplings_is_the_validation_set():
    """Every coupling is in one set, with its label; training batches are shuffled."""
    couplings, labels = torch.arange(40.0).view(40, 1), torch.arange(40)
    training, validation = coupling_loaders(couplings, labels, 8, seed=0)
    assert len(training) == 5 and len(validation) == 1
    held_out = torch.cat([labels for _, labels in validation])
    assert held_out.tolist() == [36, 37, 38, 39]
    # Two passes have different orders.
    orders = [torch.cat([labels for _, labels in training]).tolist() for _ in "ab"]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order) == list(range(36))
    assert all(torch.equal(batch[:, 0], labels) for batch, labels in training)


def test_half_of_the_training_couplings_are_mirrored():
    """Noise and image alike, and anew in each pass; validation couplings never are."""
    couplings = torch.randn(400, 2, 3, 4, 4)
    loaders = coupling_loaders(couplings, torch.arange(400), 20, seed=0, hflip=True)
    training, validation = loaders
    passes = []
    for _ in range(2):
        rows = [
            r for batch, labels in training for r in zip(batch, labels, strict=True)
        ]
        mirrored = [not torch.equal(row, couplings[label]) for row, label in rows]
        for (row, label), flipped in zip(rows, mirrored, strict=True):
            kept = couplings[label].flip(-1) if flipped else couplings[label]
            assert torch.equal(row, kept)
        assert 0.4 < sum(mirrored) / len(mirrored) < 0.6
        passes.append(
            {int(label): m for (_, label), m in zip(rows, mirrored, strict=True)}
        )
    assert passes[0] != passes[1]
    (held_out, labels), *_ = validation
    assert torch.equal(held_out, couplings[labels])


def test_a_part_of_the_times_is_where_samplers_start(couplings):
    """There x is the drawn noise, times SIGMA_MAX; others are uniform below."""
    seen = []

    class Watching(nn.Module):
        objective = "flow"

        def model_output(self, x, sigma, labels):
            seen.append(sigma)
            return torch.zeros_like(x)

    labels = torch.zeros(len(couplings), dtype=torch.int64)
    rectified_flow_loss(Watching(), couplings, labels)
    (sigma,) = seen
    time = sigma / (1 + sigma)
    first = time == time.max()
    assert sigma[first].max().item() == pytest.approx(SIGMA_MAX, rel=1e-4)
    assert first.float().mean().item() == pytest.approx(FIRST, abs=0.05)
    assert time[~first].mean().item() == pytest.approx(
        SIGMA_MAX / (1 + SIGMA_MAX) / 2, abs=0.05
    )


# The command --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of photos and of tiny weights, whose trajectories are not straight."""
    folder = tmp_path_factory.mktemp("reflow")
    write_photos(folder / "photos", 10)
    save_small(folder / "tiny.pkl", channels=(16, 32))
    return folder


def command(folder, out, *arguments):
    """Run the command on few couplings."""
    few = ["--couplings", 160, "--batch-size", 16, "--epochs", 1]
    few += ["--lr", 5e-4, "--out", out]
    line = ["--weights", folder / "tiny.pkl", *few, *arguments]
    reflow.main(list(map(str, line)))


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """The files of a run of 4 epochs with Frechet distances."""
    out = tmp_path_factory.mktemp("done")
    # Features: mean colours of 4 x 4 pixels, 12 numbers per image.
    colours = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "find_extractor", lambda *_: colours)
        data = ("--data", folder / "photos", "--frechet", "--count", 40)
        command(folder, out, *data, "--epochs", 4, "--guidance", 2, "--lr", "2e-3")
    return out


def test_the_new_weights_are_those_of_a_diffusion_model(done, tmp_path):
    """Their metadata says how they were trained; they generate images in two steps."""
    path = done / "models" / "Best_diffusion_fast.pkl"
    metadata = load_checkpoint(path)[1]
    assert metadata["model"] == "diffusion_fast" and metadata["seed"] == 0
    assert metadata["class_proportions"] == [0.5, 0.25, 0.25]
    origin, settings = metadata["reflow"], metadata["settings"]
    assert origin["couplings"] == 160 and origin["guidance"] == 2
    assert settings["epochs"] == 4 and settings["ema"] == 0.9
    assert settings["guidance"] == 1  # the couplings' images are guided already
    # As the tool's docstring says; two evaluations are its default.
    line = ["--model", "diffusion_fast", "--weights", str(path), "--out", str(tmp_path)]
    random_generation.main([*line, "--count", "4"])
    assert (tmp_path / "vis" / "random_images_diffusion_fast.png").is_file()
    assert (settings["sampler"], settings["steps"]) == ("flow", 2)


def test_a_smaller_student_is_trained(folder, tmp_path):
    """Its architecture is that of --student; other species are refused."""
    student = save_small(tmp_path / "student.pkl", channels=(16,))
    command(folder, tmp_path, "--student", student, "--couplings", 20)
    model, _ = load_diffusion(tmp_path / "models" / "Best_diffusion_fast.pkl")
    first, last = load_checkpoint(student)[0], model.state_dict()
    assert first.keys() == last.keys() and model.guide is None
    assert any(not torch.equal(first[name], last[name]) for name in first)
    weights, metadata = load_checkpoint(student)
    data = metadata["data"] | {"classes": ["a", "b", "c"]}
    model.load_state_dict(weights)
    save_checkpoint(student, model, metadata | {"data": data})
    with pytest.raises(UserError, match="student.pkl knows other species"):
        command(folder, tmp_path, "--student", student, "--couplings", 20)
    settings = metadata["settings"] | {"image_size": 16}
    save_checkpoint(student, model, metadata | {"settings": settings})
    with pytest.raises(UserError, match="student.pkl is of images of 16 pixels"):
        command(folder, tmp_path, "--student", student, "--couplings", 20)


def test_weights_of_another_first_noise_level_are_refused(tmp_path):
    """The lines of couplings begin at SIGMA_MAX."""
    path = save_small(tmp_path / "tiny.pkl", channels=(16,))
    weights, metadata = load_checkpoint(path)
    model, _ = load_diffusion(path)
    settings = metadata["settings"] | {"sigma_max": 20.0}
    save_checkpoint(path, model, metadata | {"settings": settings})
    with pytest.raises(UserError, match="from noise level 20, couplings need 80"):
        command(tmp_path, tmp_path)


def test_earlier_weights_are_kept_as_a_copy(folder, tmp_path):
    for seed in "12":
        command(folder, tmp_path, "--couplings", 20, "--seed", seed)
    models = tmp_path / "models"
    seeds = [
        load_checkpoint(models / f"{kind}_diffusion_fast.pkl")[1]["seed"]
        for kind in ("Previous", "Best")
    ]
    assert seeds == [1, 2]


def test_a_copy_of_the_model_is_trained(folder, tmp_path):
    """The model itself is compared to the copy."""
    line = ["--out", str(tmp_path), "--couplings", "20", "--epochs", "1"]
    model, metadata = load_diffusion(folder / "tiny.pkl")
    before = load_checkpoint(folder / "tiny.pkl")[0]
    after, _ = reflow.reflow(reflow.parse(line), UNGUIDED, model, metadata, origin={})
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())
    assert any(
        not torch.equal(w, before[name]) for name, w in after.state_dict().items()
    )


def test_the_validation_loss_decreases(done):
    with open(done / "log" / "diffusion_fast.csv", newline="") as file:
        # Of the held-out couplings.
        losses = [float(row["valid_per_photo"]) for row in csv.DictReader(file)]
    assert len(losses) == 4 and losses[-1] < losses[0]


def test_the_record_has_distances_before_and_after(done):
    """Of 1, 2 and 4 evaluations, and of the couplings' sampler."""
    found = json.loads((done / "log" / "reflow_diffusion.json").read_text())
    # Before, guidance evaluates the network twice at noise levels of its interval.
    sigmas = sigmas_for(None, UNGUIDED)[:-1]
    guided = sum(UNGUIDED.guidance_interval[0] <= sigma for sigma in sigmas)
    for name, last in (("before", len(sigmas) + guided), ("after", len(sigmas))):
        assert [point["nfe"] for point in found[name]] == [1, 2, 4, last]
        assert all(p["frechet"][1] < p["frechet"][2] for p in found[name])
    # Where the numbers come from.
    assert found["reflow"]["weights"]["model"] == "diffusion"
    assert found["command"].startswith("python -m tools.reflow --weights ")
    assert found["count"] == 40 and "threads" in found["machine"]
    with Image.open(done / "vis" / "reflow_diffusion.png") as image:
        image.load()
        assert image.width > 1000


def test_a_run_without_photos_saves_a_picture_only(folder, tmp_path, capsys):
    command(folder, tmp_path, "--epochs", "2", "--couplings", "20")
    assert capsys.readouterr().out.count("/2, Train Loss: ") == 2
    assert (tmp_path / "vis" / "reflow_diffusion.png").is_file()
    assert not (tmp_path / "log" / "reflow_diffusion.json").exists()


def test_wrong_commands_are_refused(folder, tmp_path):
    """P25: each message names the flag or the file."""
    with pytest.raises(UsageError, match="--data: photos are for --frechet only"):
        command(folder, tmp_path, "--data", folder / "photos")
    # Weights of another model.
    save_checkpoint(tmp_path / "x.pth", VarAutoencoder(4, 8, 8))
    with pytest.raises(UserError, match="holds a VAE; name weights that diffusion.py"):
        reflow.main(["--weights", str(tmp_path / "x.pth"), "--out", str(tmp_path)])
    # Too few couplings for a training and a validation set.
    with pytest.raises(SystemExit) as refusal:
        command(folder, tmp_path, "--couplings", "1")
    assert refusal.value.code == 2

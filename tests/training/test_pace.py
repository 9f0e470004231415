"""How much training fits into a budget, by a clock of one's own."""

import re
from dataclasses import replace

import pytest
import torch

import diffusion
from tests.helpers.commands import command, error_line, files_below
from tests.helpers.diffusion import small
from tests.helpers.training import rows_of
from utils import experiment as pace
from utils.checkpoint import load_checkpoint
from utils.cli import UserError
from utils.config import PRESETS
from utils.data_processor import create_flower_dataloaders
from utils.experiment import (
    MARGIN,
    PROBE_STEPS,
    epochs_within,
    seconds_per_step,
    with_budget,
)

SETTINGS = replace(PRESETS["diffusion"][0], batch_size=8, channels=(16,), epochs=7)


# What fits ---------------------------------------------------------------------


def test_epochs_within_a_budget():
    """As many as fit into 94 % of it, and one at least."""
    assert epochs_within(600, 9.0) == 62  # 564 / 9 = 62.7
    assert epochs_within(100, 94.0) == 1
    assert epochs_within(100, 47.01) == 1


@pytest.mark.parametrize("seconds, left", [(100, "100 s"), (-5, "0 s")])
def test_a_budget_without_room_for_an_epoch_is_refused(seconds, left):
    with pytest.raises(UserError, match=f"--budget leaves {left}.*about 120 s; give"):
        epochs_within(seconds, 120.0)


def quick_model():
    """A model of one weight, its optimizer, and a loss that draws a random number."""
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss_fn(model, images, labels):
        return model(images).square().mean() * torch.rand(())

    return model, optimizer, loss_fn


def test_the_first_steps_of_a_probe_do_not_count(monkeypatch):
    """They pay for memory and kernels; of the others the median counts."""
    times = [50.0] * (PROBE_STEPS // 3) + [2.0] * 5 + [90.0] * 3
    assert len(times) == PROBE_STEPS
    ticks = iter([t for seconds in times for t in (0.0, seconds)])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(ticks))
    assert seconds_per_step(*quick_model(), torch.ones(4, 1), None) == 2.0


def test_a_probe_leaves_the_random_state_alone():
    """It trains the model that it is given, really."""
    model, optimizer, loss_fn = quick_model()
    before, state = model.weight.item(), torch.get_rng_state()
    found = seconds_per_step(model, optimizer, loss_fn, torch.ones(4, 1), None)
    assert torch.equal(torch.get_rng_state(), state)
    assert abs(model.weight.item()) < abs(before) and 0 < found < 5


def test_epochs_of_a_budget_are_counted_on_a_copy(photo_folder, monkeypatch):
    """The model is as it was, bit for bit; the number follows from the step's time."""
    loader, _ = create_flower_dataloaders(8, photo_folder, 8, 8)  # 3 steps an epoch
    model, seen = small(), []

    def probe(copy, optimizer, loss_fn, images, labels):
        seen.append((len(images), len(labels), copy is model, copy.training))
        seconds_per_step(copy, optimizer, loss_fn, images, labels)
        return 0.5

    monkeypatch.setattr(pace, "seconds_per_step", probe)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    loss_fn = diffusion.training_loss(SETTINGS)
    found = with_budget(SETTINGS, 60.0, model, loader, loss_fn)
    assert found == replace(SETTINGS, epochs=int(MARGIN * 60 / (3 * 0.5)))
    assert seen == [(8, 8, False, True)] and not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


# The command -------------------------------------------------------------------


def budgeted(out, photos, budget):
    """Train on 8 x 8 pixels for a time."""
    small = ("--image-size", "8", "--channels", "16,32", "--device", "cpu")
    where = ("--data", photos, "--out", out)
    return command("diffusion.py", *small, *where, "--budget", budget)


def test_a_budget_trains_as_long_as_it_says(tmp_path, photo_folder, monkeypatch):
    """Its number of epochs is known from the start: the rate ends near zero with it."""
    monkeypatch.setattr("diffusion.PICTURE_EVERY", 10**6)
    result = budgeted(tmp_path, photo_folder, "2s")
    assert (result.code, result.err) == (0, "")
    _, metadata = load_checkpoint(tmp_path / "models" / "Best_diffusion.pkl")
    epochs = metadata["settings"]["epochs"]
    assert epochs > 1
    told = re.findall(r"^Epoch: (\d+)/(\d+), ", result.out, re.MULTILINE)
    assert told == [(str(n + 1), str(epochs)) for n in range(epochs)]
    rates = [float(row["lr"]) for row in rows_of(tmp_path / "log" / "diffusion.csv")]
    assert len(rates) == epochs and rates[-1] < max(rates) / 1000
    assert max(rates) <= metadata["settings"]["lr"] * (1 + 1e-6)


def test_a_budget_that_is_too_short_is_refused(tmp_path, photo_folder):
    """P25: exit 1, before an epoch; what is left and what one takes are named."""
    out = tmp_path / "out"
    result = budgeted(out, photo_folder, "0.001s")
    line = error_line(result.err, "diffusion.py")
    assert result.code == 1 and "Epoch" not in result.out
    assert "--budget leaves 0 s" in line and "give more" in line
    assert not files_below(out)


@pytest.mark.parametrize("value", ["0m", "x", "10", "-1m", "1e3s", "10 m", "9999h", ""])
def test_a_budget_that_is_no_time_is_refused(tmp_path, value):
    """P25: exit 2 before any work."""
    result = command("diffusion.py", f"--budget={value}", "--out", tmp_path / "new")
    line = error_line(result.err, "diffusion.py")
    assert (result.code, result.out) == (2, "") and not list(tmp_path.iterdir())
    words = "must be a time such as 90s, 10m or 1h"
    assert f"argument --budget: {words}, got {value!r}" in line

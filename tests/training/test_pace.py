"""How much training fits into a budget, by a clock of one's own."""

import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import diffusion
from tests.helpers.commands import command, error_line, files_below
from tests.helpers.training import rows_of
from utils import experiment as pace
from utils.checkpoint import load_checkpoint
from utils.cli import UserError
from utils.config import NARROW, PRESETS
from utils.data_processor import create_flower_dataloaders
from utils.experiment import (
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


def budget_of(seconds, photos, monkeypatch, per_step, **given):
    """Return (settings for a budget, what was probed); a step takes per_step(copy)."""
    loader, _ = create_flower_dataloaders(8, photos, 8, 8)  # 3 steps an epoch
    seen = []

    def probe(model, optimizer, loss_fn, images, labels):
        seconds_per_step(model, optimizer, loss_fn, images, labels)
        seen.append((len(images), len(labels), model.training))
        return per_step(model)

    monkeypatch.setattr(pace, "seconds_per_step", probe)
    given = {"model": "diffusion", "channels": None, "device": "cpu"} | given
    given = {"guide_at": None, "autoguidance": None} | given
    args = SimpleNamespace(budget=seconds, **given)
    monkeypatch.setattr(pace.time, "monotonic", lambda: 7.0)  # the probe takes no time
    build = partial(diffusion.build, num_classes=3, name="diffusion")
    training = build, loader, diffusion.training_loss(SETTINGS)
    return with_budget(args, SETTINGS, 7.0, *training), seen


def test_epochs_of_a_budget(photo_folder, monkeypatch):
    """The number follows from the time of a step; no random number is drawn."""
    state = torch.get_rng_state()
    given = 300.0, photo_folder, monkeypatch, lambda model: 0.5
    found, seen = budget_of(*given)
    assert found == replace(SETTINGS, epochs=188)  # 0.94 x 300 s / 1.5 s
    assert seen == [(8, 8, True)]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_short_budget_trains_the_narrow_model(photo_folder, monkeypatch):
    """Where it has time for few epochs, or for none; not if channels are given."""

    def per_step(model):
        return 4.0 if model.args["channels"] == NARROW else 40.0

    few = 60.0, photo_folder, monkeypatch, per_step
    found, seen = budget_of(*few)
    quick = replace(SETTINGS, epochs=4, channels=NARROW)  # 56.4 s / 12 s
    assert found == replace(quick, autoguidance=1.0, guide_at=0.0)
    assert len(seen) == 2
    assert budget_of(*few, guide_at=0.5)[0] == quick
    for given in ({"channels": (16,)}, {"model": "diffusion_64"}):
        with pytest.raises(UserError, match="an epoch takes about 120 s"):
            budget_of(*few, **given)


# The command -------------------------------------------------------------------


def budgeted(out, photos, budget):
    """Train on 8 x 8 pixels for a time."""
    small = ("--image-size", "8", "--channels", "16,32", "--device", "cpu")
    where = ("--data", photos, "--out", out)
    return command("diffusion.py", *small, *where, "--budget", budget)


def test_a_budget_trains_as_long_as_it_says(tmp_path, photo_folder, monkeypatch):
    """Its number of epochs is known from the start: the rate ends near zero with it."""
    monkeypatch.setattr("diffusion.PICTURE_EVERY", 10**6)
    # An epoch has one step; a busy machine takes a few minutes at most before it.
    monkeypatch.setattr(pace, "seconds_per_step", lambda *training: 60.0)
    result = budgeted(tmp_path, photo_folder, "10m")
    assert (result.code, result.err) == (0, "")
    _, metadata = load_checkpoint(tmp_path / "models" / "Best_diffusion.pkl")
    epochs = metadata["settings"]["epochs"]
    assert 1 < epochs <= 9  # 0.94 x 600 s / 60 s
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

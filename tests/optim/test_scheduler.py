"""Truths about learning rates and optimizers by name."""

import pytest
import torch
from torch import nn

from utils.config import Settings
from utils.optim.factory import make_optimizer, make_scheduler
from utils.scheduler import exponential_decay


@pytest.mark.parametrize(
    "epoch, rate", [(0, 1e-3), (99, 1e-3), (100, 5e-4), (199, 5e-4), (300, 1.25e-4)]
)
def test_exponential_decay_of_the_kit(epoch, rate):
    """B.5: lr0 times rate to the power epoch // decay_epochs."""
    decay = exponential_decay()
    assert decay(epoch) == pytest.approx(rate, rel=1e-15)
    assert vars(decay) == {
        "initial_learning_rate": 0.001,
        "decay_rate": 0.5,
        "decay_epochs": 100,
    }


def row(lr, optimizer="adamw", scheduler="onecycle", **more):
    return Settings(epochs=1, lr=lr, optimizer=optimizer, scheduler=scheduler, **more)


@pytest.mark.parametrize(
    "name, first, second",  # weights after steps along gradients 2 and 2, from 1
    [
        ("sgd", 1 - 0.2, 1 - 0.4),
        ("momentum", 1 - 0.2, 1 - 0.2 - 0.1 * (0.9 * 2 + 2)),
        ("adam", 1 - 0.1, 1 - 0.2),
        ("adamw", 1 * 0.999 - 0.1, (1 * 0.999 - 0.1) * 0.999 - 0.1),  # decay 0.01
        ("muon", 1 * 0.999 - 0.1, (1 * 0.999 - 0.1) * 0.999 - 0.1),  # as no matrix
    ],
)
def test_optimizers_by_name(name, first, second):
    """M21: two steps of each, worked out by hand for lr = 0.1; weights decay apart."""
    w = nn.Parameter(torch.tensor([1.0]))
    decay = 0.01 if name in ("adamw", "muon") else 0.0
    optimizer = make_optimizer(row(0.1, name, weight_decay=decay), [w])
    for expected in (first, second):
        w.grad = torch.tensor([2.0])
        optimizer.step()
        assert w.item() == pytest.approx(expected, rel=1e-6)


def cycle_of(steps, warm_up):
    """Return the rate of every step of a onecycle schedule up to 0.4."""
    optimizer = make_optimizer(row(0.4), [nn.Parameter(torch.ones(1))])
    cycle, rates = make_scheduler(row(0.4, warm_up=warm_up), optimizer, steps), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            cycle.step()
    return rates


def test_schedulers_by_name():
    """M12 (x 0.9 every 10 epochs), R12; onecycle peaks where told, ends near 0."""
    kit = make_scheduler(row(1.0, scheduler="exponential"), None, 99)
    assert [kit(n) for n in (0, 9, 10, 25)] == pytest.approx([1, 1, 0.9, 0.81])
    constant = make_scheduler(row(0.4, scheduler="constant"), None, 99)
    assert {constant(n) for n in range(0, 1000, 7)} == {0.4}
    rates = cycle_of(40, warm_up=0.25)
    assert max(rates) == pytest.approx(0.4) and rates.index(max(rates)) == 9
    assert rates[0] == pytest.approx(0.4 / 25) and rates[-1] < 1e-5
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.25, 0.5, 1 / 3])
def test_a_cycle_of_any_length_rises_and_falls(share):
    """Also where the rise ends at the first step; the top is where the share says."""
    for steps in range(1, 41):
        rates = cycle_of(steps, share)
        assert max(rates) <= 0.4 + 1e-9 and min(rates) >= 0
        top = max(0, round(share * steps - 1))
        assert steps < 20 or abs(rates.index(max(rates)) - top) <= 1

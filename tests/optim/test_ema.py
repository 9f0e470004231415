"""The running average of weights against its closed form."""

import pytest
import torch
from torch import nn

from utils.optim.factory import make_ema, warmed_up_ema


def test_average_starts_short_and_stays_an_average():
    """T6: keeps min(decay, (1 + n) / (10 + n)) of the old; buffers are copied."""
    average = warmed_up_ema(0.9)
    for count, keep in ((0, 0.1), (1, 2 / 11), (10, 0.55), (1000, 0.9)):
        old = [torch.tensor([1.0])]
        average(old, [torch.tensor([0.0])], torch.tensor(count))
        assert old[0].item() == pytest.approx(keep)


def test_average_of_a_model():
    """Weights apart from the model's own; no average at all for a decay of 0."""
    model = nn.Linear(1, 1, bias=False)
    assert make_ema(model, 0.0) is None
    averaged, mean = make_ema(model, 0.5), model.weight.item()
    for count in range(6):
        with torch.no_grad():
            model.weight.fill_(float(count))
        averaged.update_parameters(model)
        keep = min(0.5, (1 + count) / (10 + count)) if count else 0.0  # first: a copy
        mean = keep * mean + (1 - keep) * count
    assert averaged.module.weight.item() == pytest.approx(mean)

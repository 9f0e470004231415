"""The running average of weights against its closed form."""

import pytest
import torch
from torch import nn

from utils.optim.factory import make_ema


def test_average_of_a_model():
    """T6: keeps min(decay, (1 + n) / (10 + n)) of the old; none for a decay of 0.

    The average has weights apart from the model's own.
    """
    model = nn.Linear(1, 1, bias=False)
    assert make_ema(model, 0.0) is None
    averaged, mean = make_ema(model, 0.5), model.weight.item()
    for count in range(12):  # keeps 0.5 from the ninth on
        with torch.no_grad():
            model.weight.fill_(float(count))
        averaged.update_parameters(model)
        keep = min(0.5, (1 + count) / (10 + count)) if count else 0.0  # first: a copy
        mean = keep * mean + (1 - keep) * count
        assert averaged.module.weight.item() == pytest.approx(mean)

"""The running average of weights that is validated, saved and sampled from."""

import torch
from torch.optim.swa_utils import AveragedModel


def warmed_up_average(decay):
    """Return AveragedModel's multi_avg_fn: an exponential average that starts short.

    After n updates the old average weighs min(decay, (1 + n) / (10 + n)), so that the
    untrained weights are soon forgotten.
    """

    @torch.no_grad()
    def average(averaged, current, count):
        keep = min(decay, (1 + float(count)) / (10 + float(count)))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, 1 - keep)

    return average


def running_average(model, decay):
    """Return an AveragedModel of this decay, or None for a decay of 0."""
    return (
        AveragedModel(model, multi_avg_fn=warmed_up_average(decay)) if decay else None
    )

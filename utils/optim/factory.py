"""Optimizers and learning rates by their names on the command line."""

import torch
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel

from utils.optim.muon import Muon
from utils.scheduler import exponential_decay


def make_optimizer(settings, parameters, **muon):
    """Return the torch optimizer that the settings name; `muon` are Muon's options."""
    options = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, **options)
    if settings.optimizer == "momentum":
        return torch.optim.SGD(parameters, momentum=0.9, **options)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, fused=True, **options)
    if settings.optimizer == "muon":
        return Muon(parameters, **options, **muon)
    return torch.optim.AdamW(parameters, betas=(0.9, 0.99), fused=True, **options)


def make_scheduler(settings, optimizer, steps):
    """Return the learning rate over `steps` batches, or over epochs."""
    if settings.scheduler == "exponential":
        return exponential_decay(settings.lr, 0.9, 10)
    if settings.scheduler == "constant":
        return exponential_decay(settings.lr, 1.0)
    rise = settings.warm_up
    if rise * steps == 1:  # a rise that ends at the first step divides by 0 in torch
        rise *= 1 + 1e-6
    return OneCycleLR(
        optimizer, settings.lr, steps, pct_start=rise, cycle_momentum=False
    )


def prepare_training(settings, model, steps):
    """Return (the model's running average, optimizer, scheduler over `steps`)."""
    from utils.optim.factory import make_optimizer, make_scheduler, running_average

    muon = {"inner": model.network.inner_weights(), "quick": True}
    optimizer = make_optimizer(settings, model.parameters(), **muon)
    scheduler = make_scheduler(settings, optimizer, steps)
    return running_average(model, settings.ema), optimizer, scheduler


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

"""Optimizers, learning-rate schedules and averages of weights, from settings."""

from functools import partial

import torch
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel

from utils.optim.muon import Muon
from utils.scheduler import exponential_decay

OPTIMIZERS = {  # name -> function of (parameters, lr, weight_decay, options of Muon)
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    # Kingma & Ba 2015, arXiv:1412.6980.
    "adam": partial(torch.optim.Adam, fused=True),
    # Loshchilov & Hutter 2019, arXiv:1711.05101.
    "adamw": partial(torch.optim.AdamW, betas=(0.9, 0.99), fused=True),
    "muon": Muon,
}


def start_without_compiler():
    """Keep torch.optim.Optimizer from importing the compiler, which takes seconds."""
    # It would exclude these methods from a compilation, of which there is none here.
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method:
            vars(method).setdefault("__dynamo_disable", method)


def make_optimizer(settings, parameters, **muon_options):
    """Return the torch optimizer that the settings name."""
    start_without_compiler()
    options = muon_options if settings.optimizer == "muon" else {}
    return OPTIMIZERS[settings.optimizer](
        parameters, lr=settings.lr, weight_decay=settings.weight_decay, **options
    )


# Schedules: name -> function of (settings, optimizer, number of steps) ------------


def onecycle(settings, optimizer, steps):
    """Rise to `lr` in a proportion `warm_up` of the steps, then fall to about 0."""
    rise = settings.warm_up
    if rise * steps == 1:  # torch divides by 0 where the rise ends at the first step
        rise *= 1 + 1e-6
    return OneCycleLR(
        optimizer, settings.lr, steps, pct_start=rise, cycle_momentum=False
    )


SCHEDULERS = {
    # The starter kit's: a tenth less after every ten epochs.
    "exponential": lambda settings, *_: exponential_decay(settings.lr, 0.9, 10),
    "onecycle": onecycle,
    "constant": lambda settings, *_: exponential_decay(settings.lr, 1.0),
}


def make_scheduler(settings, optimizer, steps):
    """Return an LRScheduler over `steps`, or a function of the epoch."""
    return SCHEDULERS[settings.scheduler](settings, optimizer, steps)


# Exponential moving average ----------------------------------------------------


def warmed_up_ema(decay):
    """Return AveragedModel's multi_avg_fn: an exponential average with a warm-up."""
    # After n updates the old average is weighted by min(decay, (1 + n) / (10 + n)), so
    # that the untrained weights are soon forgotten.

    @torch.no_grad()
    def update(averaged, current, count):
        # A short memory at first, the full one later.
        keep = min(decay, (1 + float(count)) / (10 + float(count)))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, 1 - keep)

    return update


def make_ema(model, decay):
    """Return an AveragedModel of this decay, or None for a decay of 0."""
    return AveragedModel(model, multi_avg_fn=warmed_up_ema(decay)) if decay else None


def prepare_training(settings, model, steps):
    """Return (optimizer, scheduler over `steps`, AveragedModel or None) for a model."""
    # A model may name the weights that Muon orthogonalizes by `inner_weights()`.
    muon_options = {}
    if hasattr(model, "inner_weights"):
        muon_options = {"inner": model.inner_weights(), "batched": True}
    optimizer = make_optimizer(settings, model.parameters(), **muon_options)
    scheduler = make_scheduler(settings, optimizer, steps)
    return optimizer, scheduler, make_ema(model, settings.ema)

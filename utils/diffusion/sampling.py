"""Sampling from a trained denoiser: any sampler, any species, with guidance."""

# A model has `denoise(x, sigma, labels)`, which estimates the image in x = image +
# sigma * noise (B, C, H, W), with sigma and labels (B,), and `sigmas` (T,), the rising
# noise levels of its own schedule. How to sample is a utils.config.SamplerConfig.

import math
from dataclasses import fields, replace

import torch

from utils.cli import UsageError
from utils.cli.arguments import did_you_mean
from utils.cli.progress import TimeEstimate, bar
from utils.config import SamplerConfig
from utils.device import device_of
from utils.diffusion.samplers import SAMPLERS, schedule_sigmas

BATCH_SIZE = 256  # images per call of the network
SIGMA_MAX = SamplerConfig.sigma_max  # standard deviation, for images in [-1, 1]
SIGMA_MIN = 0.07  # the last sigma before 0, of samplers without a schedule


class CFGDenoiser:
    """Guidance; what a sampler calls: denoise(x, sigma) -> denoised.

    To the estimate c with the labels two differences are added:

    (guidance - 1) * (c - u), where sigma lies in the guidance interval (Kynkaanniemi et
    al. 2024, arXiv:2404.07724). u is the estimate with the null label: classifier-free
    guidance (Ho & Salimans 2022, arXiv:2207.12598). Without labels there is none.

    (autoguidance - 1) * (c - g). g is the estimate of the model's guide with the
    labels, which is the same network earlier in its training: autoguidance (Karras et
    al. 2024, arXiv:2406.02507). Without a guide there is none.

    `nfe` counts the evaluations of networks per image.
    """

    def __init__(self, model, config, labels=None):
        self.model, self.config, self.labels = model, config, labels
        self.clip_denoised = SAMPLERS[config.sampler].clip_denoised
        self.nfe = 0

    @torch.no_grad()
    def __call__(self, x, sigma):
        """x (B, C, H, W), sigma: a float -> (B, C, H, W)."""
        config, (low, high) = self.config, self.config.guidance_interval
        denoised = conditional = self.evaluate(self.model, x, sigma, self.labels)
        if self.labels is not None and config.guidance != 1 and low <= sigma <= high:
            other = self.evaluate(self.model, x, sigma, None)
            denoised = denoised + (config.guidance - 1) * (conditional - other)
        if self.model.guide and config.autoguidance != 1:
            other = self.evaluate(self.model.guide, x, sigma, self.labels)
            denoised = denoised + (config.autoguidance - 1) * (conditional - other)
        return denoised.clamp(-1, 1) if self.clip_denoised else denoised

    def evaluate(self, model, x, sigma, labels):
        """Evaluate a network once."""
        self.nfe += 1
        sigmas = torch.full((len(x),), sigma, device=x.device)
        labels = None if labels is None else labels.to(x.device)
        return model.denoise(x, sigmas, labels)


# States --------------------------------------------------------------------------


def sigmas_for(model, config):
    """Return the falling noise levels of a sampler's steps, 0 at the end, as floats."""
    # Raises ValueError if the sampler uses the model's schedule and that has fewer
    # steps.
    sampler = SAMPLERS[config.sampler]
    if sampler.uses_schedule:
        schedule = schedule_from(model.sigmas, config.sigma_min)
        return schedule_sigmas(config.steps, schedule)
    return sampler.sigmas(config.steps, config.sigma_max, config.sigma_min or SIGMA_MIN)


def free_sigmas(model, config):
    """Return the sigmas of a sampler's steps; None if they are the model's schedule."""
    used = SAMPLERS[config.sampler].uses_schedule
    return None if used else sigmas_for(model, config)


def schedule_from(schedule, sigma_min):
    """Return the levels of a model's own schedule (T,) from sigma_min up."""
    return schedule[schedule >= sigma_min]


def sample_states(model, noise, config, labels=None, denoiser=None):
    """Yield the states from noise (B, C, H, W) ~ N(0, 1) to images, about [-1, 1].

    Each is scaled to the variance of the starter kit's x_t, by 1 / sqrt(1 + sigma^2),
    and on the model's device, wherever the noise is. `denoiser`: by default a
    CFGDenoiser of the model.
    """
    sigmas = sigmas_for(model, config)
    denoiser = denoiser or CFGDenoiser(model, config, labels)
    x = sigmas[0] * noise.to(device_of(model))
    states = states_from(x, denoiser, sigmas, config)
    for sigma, x in zip(sigmas, states, strict=True):
        yield x / math.sqrt(1 + sigma**2)


def states_from(x, denoiser, sigmas, config):
    """Yield the states from x = image + sigmas[0] * noise, at every sigma."""
    sampler = SAMPLERS[config.sampler]
    options = {name: getattr(config, name) for name in sampler.options}
    yield from sampler.generate(denoiser, x, sigmas, **options)


def sample(model, noise, config, labels=None, estimate=None):
    """Return (images (B, C, H, W) in [0, 1], network evaluations per image).

    The images are on the CPU. noise: (B, C, H, W) ~ N(0, 1), on any device; labels:
    (B,) int64, or None for any class; estimate: a TimeEstimate that counts the states
    of each image.
    """
    denoiser = CFGDenoiser(model, config, labels)
    for state in sample_states(model, noise, config, labels, denoiser):
        x = state
        if estimate:
            estimate.add(len(x))
    return ((x + 1) / 2).clamp(0, 1).cpu(), denoiser.nfe


def sample_batches(model, config, labels, count, size):
    """Yield `count` images in batches (B, 3, size, size) in [0, 1]."""
    # labels: (count,), or None.
    estimate = TimeEstimate("samples", count * (config.steps + 1))
    for start in bar(range(0, count, BATCH_SIZE), "batches"):
        batch = None if labels is None else labels[start : start + BATCH_SIZE]
        # Drawn on the CPU, so that a seed starts the same images on every device.
        noise = torch.randn(min(BATCH_SIZE, count - start), 3, size, size)
        yield sample(model, noise, config, batch, estimate)[0]


# Labels --------------------------------------------------------------------------


def draw_labels(proportions, count):
    """Draw `count` labels by the proportions of the classes -> (count,) int64.

    Stratified: each class has its share of the labels, up to one, in random order.
    """
    edges = torch.as_tensor(proportions, dtype=torch.float64).cumsum(dim=0)
    # Evenly spaced positions from 0 to the sum, with one random offset.
    positions = edges[-1] * (torch.arange(count) + torch.rand(1).double()) / count
    labels = torch.searchsorted(edges, positions, right=True)
    return labels.clamp(max=len(edges) - 1)[torch.randperm(count)]


def labels_for(names, metadata, count):
    """Return the labels (count,) of images to sample, or None for any class.

    Equal proportions of the named species, in their order; without names a draw by the
    proportions of the training photos, which are in the metadata of the weights.

    Raises:
        UsageError: if the weights know no such species.
    """
    if not names:
        proportions = metadata.get("class_proportions")
        return draw_labels(proportions, count) if proportions else None
    known = metadata.get("data", {}).get("classes", [])
    remedy = "choose from " + ", ".join(known) if known else "omit it"
    for name in names:
        if name not in known:
            raise UsageError(
                f"argument --species: these weights know no {name!r}; {remedy}"
                + did_you_mean(name, known)
            )
    indices = torch.arange(count) * len(names) // count
    return torch.tensor([known.index(name) for name in names])[indices]


# Configuration -------------------------------------------------------------------


def default_sampler_config(metadata):
    """Return the SamplerConfig in the settings of weights with this metadata."""
    settings = metadata.get("settings", {})
    names = [f.name for f in fields(SamplerConfig) if f.name in settings]
    return SamplerConfig(**{name: settings[name] for name in names})


def sampler_config(args, model, metadata):
    """Return the SamplerConfig that a command line asks for."""
    # Another sampler than the weights' own has its own default number of steps: all of
    # the model's schedule, if it uses that.
    # Raises UsageError if its parts do not fit together.
    # What was given replaces the defaults of the weights.
    flags = {f.name: getattr(args, f.name) for f in fields(SamplerConfig)}
    given = {name: value for name, value in flags.items() if value is not None}
    config = default_sampler_config(metadata)
    sampler = SAMPLERS[given.get("sampler", config.sampler)]
    if given.get("sampler", config.sampler) != config.sampler:
        default_steps = model.n_steps if sampler.uses_schedule else SamplerConfig.steps
        given = {"steps": default_steps, "sigma_min": 0.0} | given
    config = replace(config, **given)
    if given.get("autoguidance", 1) != 1 and not model.guide:
        raise UsageError(
            "argument --autoguidance: these weights have no guide; omit it"
        )
    check_sampler(config, model.sigmas)
    return config


def check_sampler(config, schedule):
    """Raise a UsageError if the parts of a SamplerConfig do not fit together."""
    # schedule: the model's own noise levels (T,).
    sampler = SAMPLERS[config.sampler]
    low, high = config.guidance_interval
    if low > high:
        raise UsageError(
            f"argument --guidance-interval: must be LOW, then HIGH, got {low:g} "
            f"{high:g}"
        )
    if config.eta and "eta" not in sampler.options:
        taking = " or ".join(n for n, s in SAMPLERS.items() if "eta" in s.options)
        raise UsageError(
            f"argument --eta: {config.sampler} has none; use --sampler {taking}"
        )
    if sampler.uses_schedule:
        levels = len(schedule_from(schedule, config.sigma_min))
        if config.steps > levels:
            raise UsageError(
                f"argument --steps: {config.sampler} takes 1 to {levels}, got "
                f"{config.steps}"
            )
    elif (config.sigma_min or SIGMA_MIN) >= config.sigma_max:
        raise UsageError(
            f"argument --sigma-max: must be above the last noise level, "
            f"{config.sigma_min or SIGMA_MIN:g}, got {config.sigma_max:g}"
        )

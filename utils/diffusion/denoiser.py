"""A denoiser for any noise level: preconditioning, training targets, noise levels.

A noised image is x = x_0 + sigma * noise, with x_0 in [-1, 1] and noise ~ N(0, 1). The
network's output F gives an estimate of x_0 by c_skip * x + c_out * F, as in EDM (Karras
et al. 2022, arXiv:2206.00364). An objective is a choice of c_skip and c_out, and so of
the quantity that the network predicts; one estimate converts to any of them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from utils.device import device_of
from utils.diffusion.unet import UNet

SIGMA_DATA = 0.5  # standard deviation of photos in [-1, 1], about
TAIL = 1e-4  # probability at either end of a density that is never drawn
BUCKETS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, math.inf)  # bounds, in units of SIGMA_DATA

# Objectives --------------------------------------------------------------------


class Objective(NamedTuple):
    """What the network predicts, for data of standard deviation 1."""

    # Both functions take `s`, the noise level in units of the data's deviation.

    coefficients: Callable  # s -> (c_skip, c_out)
    target: Callable  # (x_0, noise, s) -> the quantity itself


OBJECTIVES = {
    # The noise n (Ho et al. 2020, arXiv:2006.11239, equation 12).
    "eps": Objective(
        lambda s: (torch.ones_like(s), -s),
        lambda x_0, noise, s: noise,
    ),
    # The image x_0 itself.
    "x0": Objective(
        lambda s: (torch.zeros_like(s), torch.ones_like(s)),
        lambda x_0, noise, s: x_0,
    ),
    # The velocity on the circle from image to noise (Salimans & Ho 2022,
    # arXiv:2202.00512, appendix D); up to its sign the output of EDM's network.
    "v": Objective(
        lambda s: (1 / (1 + s**2), -s / (1 + s**2).sqrt()),
        lambda x_0, noise, s: (noise - s * x_0) / (1 + s**2).sqrt(),
    ),
    # The velocity on the straight line from image to noise (Liu et al. 2022,
    # arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747).
    "flow": Objective(
        lambda s: (1 / (1 + s), -s / (1 + s)),
        lambda x_0, noise, s: noise - x_0,
    ),
}


class Preconditioning(NamedTuple):
    """Scalings of the network's input and output at noise levels (B,)."""

    c_skip: torch.Tensor  # (B, 1, 1, 1), of x in the estimate of x_0
    c_out: torch.Tensor  # (B, 1, 1, 1), of the network's output in the estimate
    x_std: torch.Tensor  # (B, 1, 1, 1), deviation of x; c_in of EDM is 1 / x_std
    c_noise: torch.Tensor  # (B,), sigma / SIGMA_DATA; the network takes its logarithm


def preconditioning(objective, sigma):
    """Return the Preconditioning of an objective at noise levels sigma (B,), above 0.

    Raises:
        ValueError: if there is no such objective.
    """
    s = sigma / SIGMA_DATA
    c_skip, c_out = objective_named(objective).coefficients(s.view(-1, 1, 1, 1))
    x_std = (SIGMA_DATA**2 + sigma**2).sqrt().view(-1, 1, 1, 1)
    return Preconditioning(c_skip, SIGMA_DATA * c_out, x_std, s)


def training_target(objective, x_0, noise, sigma):
    """Return the network's target for x_0 + sigma * noise: (B, C, H, W).

    x_0, noise: (B, C, H, W); sigma: (B,).

    Raises:
        ValueError: if there is no such objective.
    """
    s = sigma.view(-1, 1, 1, 1) / SIGMA_DATA
    return objective_named(objective).target(x_0 / SIGMA_DATA, noise, s)


def objective_named(name):
    """Return the Objective of this name, or raise a ValueError."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {tuple(OBJECTIVES)}, got {name!r}")
    return OBJECTIVES[name]


# Noise levels of training --------------------------------------------------------


def normal_quantile(u):
    """Return the numbers below which N(0, 1) has probability u: (B,) -> (B,)."""
    # MPS has no such function.
    on = "cpu" if u.device.type == "mps" else u.device
    return torch.special.ndtri(u.to(on)).to(u.device)


DENSITIES = {  # name -> (u in (0, 1), schedule, mean, std) -> quantile of s
    # ln s ~ N(mean, std^2); a logit-normal time of flow matching is the same (Esser et
    # al. 2024, arXiv:2403.03206).
    "lognormal": lambda u, schedule, mean, std: torch.exp(
        mean + std * normal_quantile(u)
    ),
    # Nichol & Dhariwal 2021, arXiv:2102.09672.
    "cosine": lambda u, *_: torch.tan(math.pi / 2 * u),
    # The starter kit's schedule (T,), rising, at uniform steps.
    "kit": lambda u, schedule, *_: schedule[(u * len(schedule)).long()],
}


def sigma_quantile(density, u, schedule, p_mean=0.0, p_std=1.0):
    """Return the levels below which the density has probability u: (B,) -> (B,)."""
    # In units of SIGMA_DATA. schedule: (T,), the model's own levels, in the same units.
    # Raises ValueError if there is no such density.
    if density not in DENSITIES:
        raise ValueError(f"density must be one of {tuple(DENSITIES)}, got {density!r}")
    return DENSITIES[density](u.clamp(TAIL, 1 - TAIL), schedule, p_mean, p_std)


def stratified_uniform(count, device=None):
    """Return (count,) random numbers in [0, 1), one in each of `count` equal parts."""
    strata = torch.arange(count, device=device) + torch.rand(count, device=device)
    return strata / count


def draw_sigma(settings, count, schedule):
    """Draw stratified noise levels (count,) from the density of DiffusionSettings."""
    # schedule: (T,), the model's own noise levels.
    u = stratified_uniform(count, schedule.device)
    density = settings.density, u, schedule / SIGMA_DATA
    return SIGMA_DATA * sigma_quantile(*density, settings.p_mean, settings.p_std)


# The model ---------------------------------------------------------------------


class Denoiser(nn.Module):
    """Estimates the image in a noised one, for a class or for any.

    objective: one of OBJECTIVES; bfloat16: see utils.diffusion.unet.UNet, as for
    `network`, its other arguments. Labels (B,) count from 0; without them the null
    label is used.

    Raises:
        ValueError: if there is no such objective.
    """

    def __init__(self, img_channels=3, objective="flow", bfloat16=None, **network):
        super().__init__()
        objective_named(objective)
        self.objective = objective
        self.network = UNet(img_channels, bfloat16=bfloat16, **network)
        self.set_guide(None)

    def set_guide(self, guide):
        """Set the denoiser that autoguidance moves away from, or None."""
        # Not a module of this one: its weights are saved in a file of their own.
        self.__dict__["guide"] = guide and guide.to(device_of(self))

    def _apply(self, fn, recurse=True):
        # Moves to another device and changes of type; the guide follows.
        if self.guide:
            self.guide._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def inner_weights(self):
        """Yield the weights between features, which Muon orthogonalizes."""
        return self.network.inner_weights()

    def model_output(self, x, sigma, labels=None):
        """Return the raw network output F(x, sigma, labels): (B, C, H, W).

        x: (B, C, H, W); sigma: (B,), above 0; labels: (B,) or None.
        """
        if labels is None:
            null_label = self.network.null_label
            labels = torch.full((len(x),), null_label, device=x.device)
        scalings = preconditioning(self.objective, sigma)
        return self.network(x / scalings.x_std, scalings.c_noise, labels)

    def denoise(self, x, sigma, labels=None):
        """Estimate x_0 (B, C, H, W) from x = x_0 + sigma * noise; sigma: (B,)."""
        c_skip, c_out, *_ = preconditioning(self.objective, sigma)
        return c_skip * x + c_out * self.model_output(x, sigma, labels)

    def predict(self, objective, x, sigma, labels=None):
        """Return what a network of another objective would output: (B, C, H, W)."""
        if objective == self.objective:
            return self.model_output(x, sigma, labels)
        c_skip, c_out, *_ = preconditioning(objective, sigma)
        return (self.denoise(x, sigma, labels) - c_skip * x) / c_out

    def validation_details(self, images, labels):
        """Return what `summarize_details` needs of images (B, 3, H, W) in [0, 1]."""
        # Names -> (B,): a noise level, in units of SIGMA_DATA, and the mean squared
        # error of the estimate at it, weighted as by the objective v, so that
        # objectives can be compared.
        x_0, labels = 2 * images - 1, labels.to(images.device)
        u = stratified_uniform(len(x_0), x_0.device)
        s = sigma_quantile("lognormal", u, None)  # (B,)
        x = x_0 + SIGMA_DATA * s.view(-1, 1, 1, 1) * torch.randn_like(x_0)
        error = (self.denoise(x, SIGMA_DATA * s, labels) - x_0) / SIGMA_DATA
        error = error.square().flatten(1).mean(dim=1) * (1 + 1 / s**2)
        return {"sigma": s, "error": error}

    def summarize_details(self, details):
        """Details of many images -> mean error in each bucket of noise levels."""
        return bucket_means(details["sigma"], details["error"])


def bucket_means(sigma, errors):
    """Return the mean of errors (N,) in each bucket of sigma (N,): name -> float."""
    means = {}
    for low, high in zip(BUCKETS[:-1], BUCKETS[1:], strict=True):
        inside = errors[(sigma > low) & (sigma <= high)]
        name = f"error_above_{low:g}" if math.isinf(high) else f"error_to_{high:g}"
        means[name] = inside.mean().item() if len(inside) else None
    return means

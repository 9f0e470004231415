"""Noise levels, and what a denoising network may be asked for at them.

A noised image is x = x_0 + sigma * n with n ~ N(0, 1): sigma is noise over signal, in
units of the data's standard deviation. Every objective is a line in x and the network's
answer F, x_0 = skip * x + scale * F, so one pair of numbers turns each into the others.
"""

import math

import torch

OBJECTIVES = ("flow", "v", "eps", "x0")
DENSITIES = ("lognormal", "cosine", "kit")
EDGE = 1e-4  # share at either end of a density that is never drawn
BUCKETS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, math.inf)  # bounds of noise levels


def coefficients(objective, sigma):
    """Return (skip, scale) of x_0 = skip * x + scale * F; sigma: any shape, above 0.

    eps: F = n, the noise (Ho et al. 2020, equation 12).
    x0: F = x_0 itself.
    v: F = (n - sigma * x_0) / sqrt(1 + sigma^2), the velocity on the circle from image
        to noise (Salimans & Ho 2022, arXiv:2202.00512, appendix D); up to its sign what
        EDM's network answers (Karras et al. 2022, arXiv:2206.00364).
    flow: F = n - x_0, the velocity on the straight line from image to noise (Liu et al.
        2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747).

    Raises:
        ValueError: if there is no such objective.
    """
    if objective == "eps":
        return torch.ones_like(sigma), -sigma
    if objective == "x0":
        return torch.zeros_like(sigma), torch.ones_like(sigma)
    if objective == "v":
        return 1 / (1 + sigma**2), -sigma / (1 + sigma**2).sqrt()
    if objective == "flow":
        return 1 / (1 + sigma), -sigma / (1 + sigma)
    raise ValueError(f"objective must be one of {OBJECTIVES}, got {objective!r}")


def target(objective, x_0, noise, sigma):
    """Return what the network should answer to x_0 + sigma * noise.

    Raises:
        ValueError: if there is no such objective.
    """
    if objective == "eps":
        return noise
    if objective == "x0":
        return x_0
    if objective == "v":
        return (noise - sigma * x_0) / (1 + sigma**2).sqrt()
    if objective == "flow":
        return noise - x_0
    raise ValueError(f"objective must be one of {OBJECTIVES}, got {objective!r}")


def stratified(count, device=None):
    """Return `count` numbers from 0 to 1, one in each of as many equal parts."""
    places = torch.arange(count, device=device) + torch.rand(count, device=device)
    return places / count


def level_at(density, share, kit_levels=None, mean=0.0, deviation=1.0):
    """Return the noise level below which a density has this share: (B,) -> (B,).

    lognormal: ln sigma ~ N(mean, deviation^2); a logit-normal time of flow matching is
        the same (Esser et al. 2024, arXiv:2403.03206).
    cosine: sigma = tan(pi / 2 * share) (Nichol & Dhariwal 2021, arXiv:2102.09672).
    kit: the starter kit's schedule at uniform steps; kit_levels: (T,), rising.

    Raises:
        ValueError: if there is no such density.
    """
    share = share.clamp(EDGE, 1 - EDGE)
    if density == "lognormal":
        return torch.exp(mean + deviation * torch.special.ndtri(share))
    if density == "cosine":
        return torch.tan(math.pi / 2 * share)
    if density == "kit":
        return kit_levels[(share * len(kit_levels)).long()]
    raise ValueError(f"density must be one of {DENSITIES}, got {density!r}")


def bucket_means(levels, errors):
    """Mean of errors (N,) in each bucket of levels (N,) -> name -> float, or None."""
    means = {}
    for low, high in zip(BUCKETS[:-1], BUCKETS[1:], strict=True):
        inside = errors[(levels > low) & (levels <= high)]
        name = f"error_above_{low:g}" if math.isinf(high) else f"error_to_{high:g}"
        means[name] = inside.mean().item() if len(inside) else None
    return means

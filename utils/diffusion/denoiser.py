"""A network that sees images in noise of any level, and what its training minimises.

A noised image is x = x_0 + level * noise, x_0 in [-1, 1] and noise ~ N(0, 1). The
network answers by an objective (`utils.noise`); every answer converts to an image.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.diffusion.unet import UNet

DEVIATION = 0.5  # of photos in [-1, 1], about


class Denoiser(nn.Module):
    """Estimates the image in a noised one, for a species or for any.

    `species` (B,), where it is given, counts from 0. `objective`: one of
    utils.noise.OBJECTIVES; `network`: arguments of utils.unet.UNet.
    """

    def __init__(self, img_channels=3, objective="flow", **network):
        super().__init__()
        coefficients(objective, torch.ones(1))  # refuses an unknown one
        self.objective = objective
        self.network = UNet(img_channels, **network)

    def answer(self, x, level, species=None):
        """What the network says of x (B, C, H, W) at levels (B,), above 0.

        It sees values of about unit variance, and the level in units of the photos'
        deviation (Karras et al. 2022, arXiv:2206.00364, equation 7).
        """
        if species is None:
            species = torch.full((len(x),), self.network.unnamed, device=x.device)
        size = (DEVIATION**2 + level**2).sqrt().view(-1, 1, 1, 1)
        return self.network(x / size, level / DEVIATION, species)

    def denoise(self, x, level, species=None):
        """Estimate x_0 (B, C, H, W) from x = x_0 + level * noise; level: (B,)."""
        relative = (level / DEVIATION).view(-1, 1, 1, 1)
        skip, scale = coefficients(self.objective, relative)
        return skip * x + DEVIATION * scale * self.answer(x, level, species)

    def details(self, images, species):
        """What `summary` needs of images (B, 3, H, W) in [0, 1]: names -> (B,).

        Each is judged at one of the noise levels that matter most, by the squared error
        of an answer of unit variance, so that objectives can be compared.
        """
        x_0, species = 2 * images - 1, species.to(images.device)
        level = level_at("lognormal", stratified(len(x_0), x_0.device))  # (B,)
        x = x_0 + DEVIATION * level.view(-1, 1, 1, 1) * torch.randn_like(x_0)
        off = (self.denoise(x, DEVIATION * level, species) - x_0) / DEVIATION
        error = off.square().flatten(1).mean(dim=1) * (1 + 1 / level**2)
        return {"level": level, "error": error}

    def summary(self, details):
        """Details of many images -> mean error in each bucket of noise levels."""
        return bucket_means(details["level"], details["error"])


def objective_loss_fn(model, x_0, level, species=None, noise=None):
    """Mean squared error of the network's answer, by its objective -> scalar.

    x_0: (B, C, H, W) in [-1, 1]; level: (B,), above 0; noise: as x_0, drawn from
    N(0, 1) where it is not given.
    """
    noise = torch.randn_like(x_0) if noise is None else noise
    level = level.view(-1, 1, 1, 1)
    answer = model.answer(x_0 + level * noise, level.flatten(), species)
    wanted = target(model.objective, x_0 / DEVIATION, noise, level / DEVIATION)
    return F.mse_loss(answer, wanted)


def training_loss(settings):
    """Return the loss(model, images (B, C, H, W) in [0, 1], species (B,)) -> scalar.

    Levels are drawn by the settings' density, one in each of B equal parts of it. In
    training some photos' species are not told (Ho & Salimans 2022, arXiv:2207.12598).
    """

    def loss(model, images, species):
        level = DEVIATION * level_at(
            settings.density,
            stratified(len(images), images.device),
            model.levels / DEVIATION,
            settings.level_mean,
            settings.level_deviation,
        )
        species = species.to(images.device)
        if model.training:
            chance = torch.rand(len(species), device=images.device)
            untold = chance < settings.label_dropout
            species = species.masked_fill(untold, model.network.unnamed)
        return objective_loss_fn(model, 2 * images - 1, level, species)

    return loss


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

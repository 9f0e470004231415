"""A network that sees images in noise of any level, and what its training minimises.

A noised image is x = x_0 + level * noise, x_0 in [-1, 1] and noise ~ N(0, 1). The
network answers by an objective (`utils.noise`); every answer converts to an image.
"""

import torch
import torch.nn.functional as F
from torch import nn

from utils.noise import bucket_means, coefficients, level_at, stratified, target
from utils.unet import UNet

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

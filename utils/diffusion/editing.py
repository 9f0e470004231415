"""Images that a trained denoiser changes: parts filled in, drawn anew, mixed.

Images are (B, C, H, W) in [0, 1]; model, how and species are those of utils.sampling.
"""

import math

import torch

from utils.diffusion.samplers import ddpm, pairs
from utils.diffusion.sampling import Guided, levels_for, states_from
from utils.latents import spherical

ROUNDS = 4  # in which each step of a filling is repeated


def filled(model, images, known, how, species=None, rounds=ROUNDS):
    """Keep what is known of images, and draw the rest so that it fits.

    known: bool, (B, 1, H, W) or (1, 1, H, W). RePaint (Lugmayr et al. 2022,
    arXiv:2201.09865): the ancestral chain over the levels of `how`, whose estimates are
    overruled where the truth is known, so that the noise there is the forward process's
    own. Each step is taken `rounds` times, its noise put back between them, which lets
    the new part agree with the known one.
    """
    truth = 2 * images - 1
    guided = Guided(model, how._replace(sampler="ddpm"), species)

    def denoise(x, level):
        return torch.where(known, truth, guided(x, level))

    levels = levels_for(model, how)
    x = torch.where(known, truth, 0) + levels[0] * torch.randn_like(images)
    for now, after in pairs(levels):
        for again in range(rounds if after else 1):
            if again:
                x = x + math.sqrt(now**2 - after**2) * torch.randn_like(x)
            *_, x = ddpm(denoise, x, [now, after])
    return torch.where(known, images, ((x + 1) / 2).clamp(0, 1))


def redrawn(model, images, strength, noise, how, species=None):
    """Noise images and denoise them: SDEdit (Meng et al. 2022, arXiv:2108.01073).

    strength is the share of noise where the sampler sets in, at (1 - strength) * image
    + strength * noise: 0 returns the images, 1 is sampling, whatever they show.
    """
    levels = levels_for(model, how)
    start = min(strength / (1 - strength), levels[0]) if strength < 1 else levels[0]
    kept = 2 * images - 1 if strength < 1 else torch.zeros_like(images)
    levels = [start, *(level for level in levels if level < start)]
    denoiser = Guided(model, how, species)
    *_, x = states_from(kept + start * noise, denoiser, levels, how)
    return ((x + 1) / 2).clamp(0, 1)


def arcs(starts, ends, steps):
    """Noises (N, C, H, W) -> the arcs from one to the other (N, steps, C, H, W)."""
    ways = [
        spherical(start.flatten(), end.flatten(), steps).unflatten(1, start.shape)
        for start, end in zip(starts, ends, strict=True)
    ]
    return torch.stack(ways)

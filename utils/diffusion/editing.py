"""Editing images with a trained denoiser: inpainting, SDEdit, interpolated noise."""

# Images are (B, C, H, W) in [0, 1], on the CPU; model, config and labels are those of
# utils.diffusion.sampling.

import math
from itertools import pairwise

import torch

from utils.device import device_of
from utils.diffusion.samplers import ddim
from utils.diffusion.sampling import CFGDenoiser, sigmas_for, states_from
from utils.latents import slerp

RESAMPLINGS = 4  # repetitions of each step of inpainting


def inpaint(model, images, known, config, labels=None, resamplings=RESAMPLINGS):
    """Keep the known pixels of images, and generate the others.

    known: bool, (B, 1, H, W) or (1, 1, H, W). RePaint (Lugmayr et al. 2022,
    arXiv:2201.09865): an ancestral sampler over the sigmas of `config`, whose clipped
    estimates are replaced by the images where they are known. Each step is taken
    `resamplings` times, and its noise added again in between, so that the generated
    part fits the known one.
    """
    device = device_of(model)
    known, x_0 = known.to(device), 2 * images.to(device) - 1
    guided = CFGDenoiser(model, config, labels)

    def denoise(x, sigma):
        return torch.where(known, x_0, guided(x, sigma).clamp(-1, 1))

    # Ancestral steps, since resampling adds noise anyway.
    sigmas = sigmas_for(model, config)
    x = torch.where(known, x_0, 0) + sigmas[0] * torch.randn_like(images).to(device)
    for sigma, sigma_next in pairwise(sigmas):
        for repetition in range(resamplings if sigma_next else 1):
            if repetition:  # back from sigma_next to sigma
                added = math.sqrt(sigma**2 - sigma_next**2)
                x = x + added * torch.randn_like(x)
            *_, x = ddim(denoise, x, [sigma, sigma_next], eta=1.0)
    return torch.where(known.cpu(), images.cpu(), ((x + 1) / 2).clamp(0, 1).cpu())


def sdedit(model, images, strength, noise, config, labels=None):
    """Add noise to images and denoise them: SDEdit (Meng et al. 2022).

    arXiv:2108.01073. Sampling starts at (1 - strength) * image + strength * noise:
    strength 0 returns the images, and 1 is sampling from noise.
    """
    sigmas = sigmas_for(model, config)
    x_0, start = torch.zeros_like(images), sigmas[0]
    if strength < 1:
        x_0, start = 2 * images - 1, min(strength / (1 - strength), sigmas[0])
    # Only the part of the schedule below the start.
    sigmas = [start, *(sigma for sigma in sigmas if sigma < start)]
    denoiser = CFGDenoiser(model, config, labels)
    x = (x_0 + start * noise).to(device_of(model))
    *_, x = states_from(x, denoiser, sigmas, config)
    return ((x + 1) / 2).clamp(0, 1).cpu()


def noise_slerp(starts, ends, steps):
    """Interpolate noise (N, C, H, W) spherically -> (N, steps, C, H, W)."""
    paths = [
        slerp(start.flatten(), end.flatten(), steps).unflatten(1, start.shape)
        for start, end in zip(starts, ends, strict=True)
    ]
    return torch.stack(paths)

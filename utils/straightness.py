"""How straight the ways from noise to images are.

In flow matching's coordinates a way leads from the noise z_1 at time t = 1 to the image
z_0 at t = 0, by z = x / (1 + level), t = level / (1 + level). The probability-flow
equation moves it with velocity dz / dt = noise - image, the two that the denoiser sees
in x. Where the velocity never changes, a single step is exact.
"""

from typing import NamedTuple

import torch

from utils.samplers import dpm_solver_3m
from utils.sampling import HIGHEST

STEPS = 64  # evaluations of a way, at even times
FINEST = 0.01  # noise level to which ways are followed, finer than for samples


class Ways(NamedTuple):
    """Ways of B images at T times, which fall from 1 to 0."""

    times: torch.Tensor  # (T,)
    points: torch.Tensor  # (T, B, C, H, W)
    velocities: torch.Tensor  # (T, B, C, H, W)


def ways(denoise, noise, steps=STEPS):
    """Follow the equation from noise (B, C, H, W) -> Ways with T = steps + 2.

    denoise(x, level: float) estimates the image in x. Beyond the highest level and the
    lowest the ways go straight on.
    """
    ends = [level / (1 + level) for level in (HIGHEST, FINEST)]
    times = torch.linspace(*ends, steps, dtype=torch.float64)
    levels = [*(times / (1 - times)).tolist(), 0.0]
    points, velocities = [], []

    def watched(x, level):
        image = denoise(x, level)
        points.append(x / (1 + level))
        velocities.append((x - image) / level - image)
        return image

    *_, images = dpm_solver_3m(watched, levels[0] * noise, levels)
    first = points[0] + (1 - ends[0]) * velocities[0]
    return Ways(
        torch.cat([torch.ones(1), times.float(), torch.zeros(1)]),
        torch.stack([first, *points, images]),
        torch.stack([velocities[0], *velocities, velocities[-1]]),
    )


def bends(ways):
    """Squared distance of the velocities from the chord z_1 - z_0, at each time: (T,).

    A mean over images and pixel values.
    """
    chord = ways.points[0] - ways.points[-1]
    return (chord - ways.velocities).square().flatten(1).mean(dim=1)


def straightness(ways):
    """Integral of `bends` over time -> float, 0 for straight ways.

    Liu et al. 2022, arXiv:2209.03003, section 2.2, S(Z), per pixel value.
    """
    return -torch.trapezoid(bends(ways), ways.times).item()

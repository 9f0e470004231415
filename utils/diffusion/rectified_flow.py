"""Reflow: a model learns the straight lines from its own noise to its own images.

Liu et al. 2022, arXiv:2209.03003, section 2. The probability-flow equation leads each
noise to one image. A model that is trained on the straight lines between the two flows
nearly straight, and few of Euler's steps follow it.

A line is x = image + level * noise. It begins at x = HIGHEST * (what was drawn), where
samplers begin, so that its `noise` is the drawn one less image / HIGHEST.
"""

from typing import NamedTuple

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from utils.cli.progress import progress
from utils.diffusion.denoiser import objective_loss_fn, stratified
from utils.diffusion.samplers import dpm_solver_3m
from utils.diffusion.sampling import (
    BATCH,
    HIGHEST,
    LOWEST,
    drawn_species,
    sampled_states,
)

VALIDATION = 0.1  # share of the pairs
UNTOLD = 0.1  # share of the pairs whose species is not named


def species_to_learn(shares, unnamed, count):
    """Draw the species (count,) int64 of pairs, some of which are of none named.

    shares: of each species among the photos, or None; unnamed: the number of none. An
    image of none has a way of its own, so that it is drawn as such, too.
    """
    if not shares:
        return torch.full((count,), unnamed)
    untold = torch.rand(count) < UNTOLD
    return drawn_species(shares, count).masked_fill(untold, unnamed)


def drawn_pairs(model, how, species, size):
    """Draw noise, and where the probability-flow equation leads it -> (N, 2, 3, S, S).

    First the noise of the line, then the image, about [-1, 1], unclipped, on the CPU.
    how: a Sampling; species: (N,) int64; size: S.

    Raises:
        ValueError: if the sampler adds noise, and so leads nowhere in particular.
    """
    if how.sampler == "ddpm" or how.eta:
        raise ValueError(f"pairs need a sampler that adds no noise, not {how.sampler}")
    device = next(model.parameters()).device
    pairs = torch.empty(len(species), 2, 3, size, size)
    for start in progress(range(0, len(species), BATCH), "pairs"):
        lines = pairs[start : start + BATCH]
        some = species[start : start + BATCH].to(device)
        noise = torch.randn(len(lines), 3, size, size, device=device)
        for state in sampled_states(model, noise, how, some):
            image = state
        lines[:, 0], lines[:, 1] = noise - image / HIGHEST, image
    return pairs


def straight_loss(model, pairs, species):
    """Mean squared error of the network's answers along lines -> scalar.

    pairs: (B, 2, 3, H, W), of `drawn_pairs`; species: (B,). Times level / (1 + level)
    are uniform, one in each of B equal parts.
    """
    noise, image = pairs.unbind(dim=1)
    first, last = (level / (1 + level) for level in (LOWEST, HIGHEST))
    time = first + (last - first) * stratified(len(image), image.device)
    level, species = time / (1 - time), species.to(image.device)
    return objective_loss_fn(model, image, level, species, noise)


def pair_loaders(pairs, species, batch_size, seed):
    """Return (training, validation) loaders of batches (pairs, species).

    The last of the pairs validate; `seed` shuffles the others.
    """
    cut = len(pairs) - max(1, round(VALIDATION * len(pairs)))
    training = TensorDataset(pairs[:cut], species[:cut])
    validation = TensorDataset(pairs[cut:], species[cut:])
    generator = torch.Generator().manual_seed(seed)
    shuffled = RandomSampler(training, generator=generator)
    return tuple(
        DataLoader(side, None, sampler=BatchSampler(order, batch_size, False))
        for side, order in ((training, shuffled), (validation, range(len(validation))))
    )


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

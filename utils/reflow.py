"""Reflow: a model learns the straight lines from its own noise to its own images.

Liu et al. 2022, arXiv:2209.03003, section 2. The probability-flow equation leads each
noise to one image. A model that is trained on the straight lines between the two flows
nearly straight, and few of Euler's steps follow it.

A line is x = image + level * noise. It begins at x = HIGHEST * (what was drawn), where
samplers begin, so that its `noise` is the drawn one less image / HIGHEST.
"""

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from utils.denoiser import objective_loss_fn
from utils.noise import stratified
from utils.sampling import BATCH, HIGHEST, LOWEST, drawn_species, sampled_states
from utils.train import progress

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

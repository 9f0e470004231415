"""Trials of a denoiser: the same noise through any sampler, timed, and how good it is.

All on the CPU.
"""

import time
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch

from utils.cli import UsageError
from utils.cli.progress import progress
from utils.data_processor import open_flowers
from utils.device import fixed_noise
from utils.diffusion.sampling import BATCH, Sampling, drawn_species, sampled
from utils.evaluation.features import find_extractor
from utils.evaluation.metrics import (
    Estimate,
    among,
    extract,
    frechet_distance,
    kernel_distance,
    nearest,
    nearest_training_images,
    share,
    with_interval,
)
from utils.experiment import warn_of_other_data


class Start(NamedTuple):
    """What all trials start from."""

    noise: torch.Tensor  # (N, 3, S, S) ~ N(0, 1)
    species: torch.Tensor | None  # (N,) int64
    seed: int  # of it, and of what a sampler adds

    def parts(self):
        """Return [(noise (B, 3, S, S), species (B,) or None), ...]."""
        noise = self.noise.split(BATCH)
        if self.species is None:
            return [(part, None) for part in noise]
        return list(zip(noise, self.species.split(BATCH), strict=True))


class Drawn(NamedTuple):
    """What a sampler made of a start."""

    images: torch.Tensor  # (N, 3, S, S) in [0, 1]
    evaluations: int  # of the network, counted, per image
    seconds: float  # per image, in the median batch


class Judge(NamedTuple):
    """What images are compared with."""

    extractor: Callable  # images (B, 3, S, S) in [0, 1] -> (B, D)
    photos: torch.Tensor  # features (N, D) of all photos
    validation: torch.Tensor  # features (M, D) of those of validation
    data: dict  # description of the photos

    def distances(self, images):
        """Images (N, 3, S, S) -> Frechet distances: name -> Estimate, or why not."""
        features = extract(self.extractor, images)
        return {
            "frechet": frechet(features, self.photos),
            "frechet_to_validation": frechet(features, self.validation),
        }


def start_of(about, count, seed):
    """Draw a Start for weights of this description: its species by their shares."""
    size, shares = about["settings"]["image_size"], about.get("species_shares")
    with fixed_noise(seed):
        noise = torch.randn(count, 3, size, size)
        species = drawn_species(shares, count) if shares else None
    return Start(noise, species, seed)


def draw(model, how, start):
    """Return Drawn: images as `how`, a Sampling, makes them from the start.

    Noise that the sampler adds has the next seed, and is the same at every call.
    """
    images, times = [], []
    with fixed_noise(start.seed + 1):
        for noise, species in progress(start.parts(), f"{how.sampler}, {how.steps}"):
            begin = time.perf_counter()
            some, evaluations = sampled(model, noise, how, species)
            times.append((time.perf_counter() - begin) / len(noise))
            images.append(some)
    return Drawn(torch.cat(images), evaluations, median(times))


def warm_up(model, start):
    """Draw a few images, so that the first that are timed pay for nothing more."""
    some = [part if part is None else part[:BATCH] for part in start[:2]]
    draw(model, Sampling("euler", 2, guidance=1.0), Start(*some, start.seed))


def judge_for(args, about):
    """Return the Judge that a command line asks for, for weights described by `about`.

    Raises:
        UsageError: if no distance of so few images, or to so few photos, is known.
    """
    extractor, size = find_extractor(args.extractor), about["settings"]["image_size"]
    split_seed = about.get("data", {}).get("split_seed", 0)
    options = {"split_seed": split_seed, "strict": args.strict_data}
    loaders = open_flowers(args.data, BATCH, (size, size), **options)
    sides = [loader.dataset for loader in loaders]
    warn_of_other_data(about, sides[0].about)
    training, validation = (extract(extractor, side.all_images()) for side in sides)
    photos = torch.cat([training, validation])
    for what, number in (("--count", args.count), ("--data", len(photos))):
        if number <= photos.shape[1]:
            raise UsageError(
                f"argument {what}: distances by these features need more than "
                f"{photos.shape[1]} images, got {number}"
            )
    return Judge(extractor, photos, validation, sides[0].about)


class Photos:
    """One side of the split, (N, 3, H, W) in [0, 1]; its features are computed once."""

    def __init__(self, images, extractor):
        self.images, self.extractor = images, extractor

    @cached_property
    def features(self):
        """Features of the photos: (N, D)."""
        return extract(self.extractor, self.images)

    @cached_property
    def mirrored(self):
        """Features of their mirror images: (N, D)."""
        return extract(self.extractor, self.images.flip(3))


def measures(images, extractor, training, validation=None, only_frechet=False):
    """Measure images (N, 3, H, W) against Photos -> name -> Estimate, or why not.

    Distances, precision and recall are to all photos; without validation photos, to
    those of training. Copies are of training photos, and "nearest" is the median
    distance to the nearest of them.
    """
    ones, others = extract(extractor, images), training.features
    to_validation = "they are these"
    if validation:
        others = torch.cat([others, validation.features])
        to_validation = frechet(ones, validation.features)
    found = {
        "Frechet distance": frechet(ones, others),
        "- to validation photos": to_validation,
    }
    if only_frechet:
        return found
    found |= {
        "kernel distance": kernel_distance(ones, others),
        "precision": precision(ones, others),
        "recall": recall(ones, others),
    }
    for name, near in (
        ("pixels", nearest_training_images(images, training.images)),
        ("features", nearest(ones, training.features, training.mirrored)),
    ):
        found[f"copies by {name}"] = share(near.copies())
        found[f"nearest by {name}"] = with_interval(median, near.first)
    return found


def median(values):
    """Median of (N,) -> float."""
    return values.median().item()


def frechet(ones, others):
    """Frechet distance of features (N, D) and (M, D) -> Estimate, or why not."""
    width, fewest = ones.shape[1], min(len(ones), len(others))
    if fewest <= width:
        return f"needs more than {width} images, got {fewest}"
    return with_interval(lambda some: frechet_distance(some, others), ones)


def precision(ones, others):
    """Share of features (N, D) among (M, D) -> Estimate; the balls are of all M."""
    return within_bounds(with_interval(mean, among(ones, others)))


def recall(ones, others):
    """Share of features (M, D) among (N, D) -> Estimate; fewer N have larger balls."""
    return within_bounds(with_interval(lambda some: mean(among(others, some)), ones))


def mean(chosen):
    """Share of true values in (N,) of bool -> float."""
    return chosen.double().mean().item()


def within_bounds(estimate):
    """Return the estimate of a share, with its interval cut to [0, 1]."""
    value, *ends = estimate
    return Estimate(value, *(min(1.0, max(0.0, end)) for end in ends))

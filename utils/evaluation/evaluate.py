"""Every metric of a set of images against the photos, each with its interval.

Also what comparisons of samplers and models share: the same noise for all, the photos'
features, timed samples.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F

from utils.cli import UsageError
from utils.cli.progress import TimeEstimate, bar
from utils.data.duplicates import near_duplicates
from utils.device import choose_device, fork_rng
from utils.diffusion.sampling import BATCH_SIZE, draw_labels, sample
from utils.evaluation.features import find_extractor
from utils.evaluation.metrics import (
    BLOCKS,
    FEWEST_PER_DIM,
    MIN_IMAGES,
    Estimate,
    extract,
    extrapolated_frechet_distance,
    frechet_distance,
    in_manifold,
    kernel_distance,
    nearest,
    nearest_training_images,
    proportion,
    with_interval,
)
from utils.experiment import image_size, open_datasets

# What is compared --------------------------------------------------------------------


class ReferencePhotos:
    """One side of the split, (N, 3, H, W) in [0, 1]; features are computed once."""

    def __init__(self, images, extractor):
        self.images, self.extractor = images, extractor

    @cached_property
    def features(self):
        """Features of the photos: (N, D)."""
        return extract(self.extractor, self.images)

    @cached_property
    def flipped(self):
        """Features of their mirror images: (N, D)."""
        return extract(self.extractor, self.images.flip(3))

    @cached_property
    def unique(self):
        """Return which photos copies are sought among: (N,) of bool."""
        # One of each group of near-duplicates. A copy of one that is there twice would
        # have a second nearest photo at the same distance.
        chosen = torch.ones(len(self.images), dtype=torch.bool)
        for group in near_duplicates((255 * self.images).round().byte()):
            chosen[sorted(group)[1:]] = False
        return chosen


@dataclass
class Comparison:
    """Images, and the photos that they are compared to; features are computed once."""

    images: torch.Tensor  # (N, 3, H, W) in [0, 1]
    extractor: Callable  # (B, 3, H, W) -> (B, D)
    training: ReferencePhotos
    validation: ReferencePhotos | None = None  # None if the images are those photos

    @cached_property
    def generated(self):
        """Features of the images: (N, D)."""
        return extract(self.extractor, self.images)

    @property
    def held_out(self):
        """Features of photos that the images should resemble: (M, D)."""
        # The validation photos, or the training photos if the images are the former.
        return (self.validation or self.training).features

    @cached_property
    def real(self):
        """Features of all photos that are given: (M, D)."""
        if self.validation is None:
            return self.training.features
        return torch.cat([self.training.features, self.validation.features])

    @property
    def equal_count(self):
        """The number of images at which precision and recall are compared."""
        return len(self.generated if self.validation is None else self.held_out)

    @cached_property
    def nearest_by_pixels(self):
        """The Nearest training photos."""
        photos = self.training.images[self.training.unique]
        return nearest_training_images(self.images, photos)

    @cached_property
    def nearest_by_features(self):
        """The Nearest training photos."""
        sides = self.training.features, self.training.flipped
        return nearest(self.generated, *(side[self.training.unique] for side in sides))


# Metrics: functions of a Comparison -> Estimate, or the reason why there is none ------


def frechet(x, y, measure=frechet_distance, per_dim=1.0):
    """Return the Frechet distance of features (N, D) and (M, D) with its interval."""
    # Covariances of no more images than features are singular.
    needed, fewest = math.ceil(per_dim * x.shape[1]), min(len(x), len(y))
    needed = max(needed, BLOCKS - 1)
    if fewest <= needed:
        return f"needs more than {needed} images, got {fewest}"
    return with_interval(lambda rows: measure(rows, y), x)


def kernel(x, y):
    """Return the kernel distance of features (N, D) and (M, D)."""
    fewest = min(len(x), len(y))
    if fewest < MIN_IMAGES:
        return f"needs {MIN_IMAGES} images, got {fewest}"
    return kernel_distance(x, y)


def extrapolated(x, y):
    """Return the Frechet distance, extrapolated to infinitely many images."""
    # A group of the jackknife's 20 is left out.
    return frechet(x, y, extrapolated_frechet_distance, FEWEST_PER_DIM * 20 / 19)


def at_equal_count(measure, x, y, count):
    """Return measure(`count` images, photos), a mean over disjoint parts of (N, D)."""
    # Precision and recall depend on the number of images.
    parts = len(x) // count
    if not parts or count < BLOCKS:
        return f"needs {max(count, BLOCKS)} images, got {len(x)}"
    estimates = [
        with_interval(lambda rows: measure(rows, y), x[part::parts][:count])
        for part in range(parts)
    ]
    # Of independent estimates the squared half widths add up.
    value = sum(estimate.value for estimate in estimates) / parts
    half = math.hypot(*(e.high - e.value for e in estimates)) / parts
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def precision(x, y):
    """Return the proportion of (N, D) in the manifold of (M, D)."""
    return mean(in_manifold(x, y))


def recall(x, y):
    """Return the proportion of (M, D) in the manifold of (N, D)."""
    return mean(in_manifold(y, x))


def mean(chosen):
    """Return the proportion of true values in (N,) as a float."""
    return chosen.double().mean().item()


def median_distance(found):
    """Return the median distance to the nearest photo; found: a Nearest."""
    if len(found.first) < BLOCKS:
        return f"needs {BLOCKS} images, got {len(found.first)}"
    return with_interval(lambda rows: rows.median().item(), found.first)


METRICS = {
    "kernel distance to validation photos": lambda c: kernel(c.generated, c.held_out),
    "- to validation photos": lambda c: frechet(c.generated, c.held_out),
    "- extrapolated": lambda c: extrapolated(c.generated, c.held_out),
    "Frechet distance": lambda c: frechet(c.generated, c.real),
    "kernel distance": lambda c: kernel(c.generated, c.real),
    "recall at equal number": lambda c: at_equal_count(
        recall, c.generated, c.training.features, c.equal_count
    ),
    "precision at equal number": lambda c: at_equal_count(
        precision, c.generated, c.training.features, c.equal_count
    ),
    "copies by pixels": lambda c: proportion(c.nearest_by_pixels.copies()),
    "nearest by pixels": lambda c: median_distance(c.nearest_by_pixels),
    "copies by features": lambda c: proportion(c.nearest_by_features.copies()),
    "nearest by features": lambda c: median_distance(c.nearest_by_features),
}


def evaluate(comparison, names=tuple(METRICS)):
    """Return {name: Estimate, or the reason why there is none} of the named METRICS."""
    return {name: METRICS[name](comparison) for name in names}


# The power of the search for copies ---------------------------------------------------

ALTERATIONS = {  # name -> function of photos (N, 3, H, W) in [0, 1], of the same shape
    "moved by a pixel": lambda x: F.pad(x, (1, 0, 1, 0), "replicate")[..., :-1, :-1],
    "mirrored": lambda x: x.flip(3),
    "brightened": lambda x: (1.25 * x).clamp(0, 1),
    "darkened": lambda x: 0.6 * x,
    "noisy": lambda x: x + 0.02 * torch.randn_like(x),
}


def copies_found(name, count, training, extractor):
    """Return the metrics of copies of `count` altered training photos.

    name: of one of ALTERATIONS; training: ReferencePhotos. The proportion of copies is
    the power of the search: how many of the altered photos it finds.
    """
    photos = training.images[training.unique][:count]
    altered = Comparison(ALTERATIONS[name](photos), extractor, training)
    return evaluate(altered, [metric for metric in METRICS if "copies" in metric])


# Samplers and models, compared on the same noise -------------------------------------


class Start(NamedTuple):
    """The noise and labels that all compared samplers start from."""

    noise: torch.Tensor  # (N, 3, S, S) ~ N(0, 1)
    labels: torch.Tensor | None  # (N,) int64
    seed: int  # of both, and of noise that a sampler adds

    def batches(self):
        """Return [(noise (B, 3, S, S), labels (B,) or None), ...]."""
        noise = self.noise.split(BATCH_SIZE)
        if self.labels is None:
            return [(batch, None) for batch in noise]
        return list(zip(noise, self.labels.split(BATCH_SIZE), strict=True))


class Generated(NamedTuple):
    """Images that a sampler generated, and their cost."""

    images: torch.Tensor  # (N, 3, S, S) in [0, 1]
    nfe: int  # counted network evaluations per image
    seconds: float  # per image, in the median batch


class ReferenceStats(NamedTuple):
    """Features of photos that samples are compared to."""

    extractor: Callable  # images (B, 3, S, S) in [0, 1] -> (B, D)
    photos: torch.Tensor  # (N, D), of all photos
    validation: torch.Tensor  # (M, D), of the validation photos
    data: dict  # metadata of the photos

    def distances(self, images):
        """Return distances of images (N, 3, S, S): name -> Estimate."""
        features = extract(self.extractor, images)
        return {
            "kernel_to_validation": kernel(features, self.validation),
            "frechet_to_validation": frechet(features, self.validation),
            "frechet": frechet(features, self.photos),
        }


def draw_start(metadata, count, seed):
    """Draw a Start for weights of this metadata, with their class proportions."""
    size, proportions = image_size(metadata), metadata.get("class_proportions")
    with fork_rng(seed):
        noise = torch.randn(count, 3, size, size)  # before the labels
        labels = draw_labels(proportions, count) if proportions else None
    return Start(noise, labels, seed)


def generate_from(model, config, start):
    """Return what a SamplerConfig generates from a Start, timed."""
    # Noise that the sampler adds has the next seed, and is the same at every call.
    images, times = [], []
    with fork_rng(start.seed + 1):
        name = f"{config.sampler}, {config.steps} steps"
        estimate = TimeEstimate(name, len(start.noise) * (config.steps + 1))
        for noise, labels in bar(start.batches(), name):
            begin = time.perf_counter()
            # The images come back to the CPU, so the time includes all work of a GPU.
            batch, nfe = sample(model, noise, config, labels, estimate)
            times.append((time.perf_counter() - begin) / len(noise))
            images.append(batch)
    return Generated(torch.cat(images), nfe, median(times))


def warm_up(model, start, config):
    """Generate a few images, so that the first timed ones are not slower."""
    noise, labels = start.batches()[0]
    generate_from(model, replace(config, steps=2), Start(noise, labels, start.seed))


def reference_stats(args, metadata):
    """Return the ReferenceStats that a command line asks for, for these weights.

    Raises:
        UsageError: if there are too few samples or photos for a distance.
    """
    extractor = find_extractor(args.extractor, choose_device(args.device))
    sides = open_datasets(metadata, args.data, strict=args.strict_data)
    training, validation = (extract(extractor, side.all_images()) for side in sides)
    photos = torch.cat([training, validation])
    # A covariance of D features needs more than D images.
    for flag, count in (("--count", args.count), ("--data", len(photos))):
        if count <= photos.shape[1]:
            raise UsageError(
                f"argument {flag}: distances of these features need more than "
                f"{photos.shape[1]} images, got {count}"
            )
    return ReferenceStats(extractor, photos, validation, sides[0].metadata)

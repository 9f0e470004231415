"""Every metric of a set of images against the photos, each with its interval.

Also what comparisons of samplers and models share: the same noise for all, the photos'
features, timed samples.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import NamedTuple

import torch

from utils.cli import UsageError
from utils.cli.progress import TimeEstimate, bar
from utils.device import fork_rng
from utils.diffusion.sampling import BATCH_SIZE, draw_labels, sample
from utils.evaluation.features import find_extractor
from utils.evaluation.metrics import (
    Estimate,
    extract,
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

    @cached_property
    def real(self):
        """Features of all photos that are given: (M, D)."""
        if self.validation is None:
            return self.training.features
        return torch.cat([self.training.features, self.validation.features])

    @cached_property
    def nearest_by_pixels(self):
        """The Nearest training photos."""
        return nearest_training_images(self.images, self.training.images)

    @cached_property
    def nearest_by_features(self):
        """The Nearest training photos."""
        return nearest(self.generated, self.training.features, self.training.flipped)


# Metrics: functions of a Comparison -> Estimate, or the reason why there is none ------


def frechet(x, y):
    """Return the Frechet distance of features (N, D) and (M, D) with its interval."""
    dim, fewest = x.shape[1], min(len(x), len(y))
    if fewest <= dim:  # the covariances would be singular
        return f"needs more than {dim} images, got {fewest}"
    return with_interval(lambda rows: frechet_distance(rows, y), x)


def frechet_to_validation(comparison):
    """Return the Frechet distance to the validation photos."""
    if comparison.validation is None:
        return "the images are these photos"
    return frechet(comparison.generated, comparison.validation.features)


def precision(x, y):
    """Return the proportion of (N, D) in the manifold of (M, D), the same for all N."""
    return within_bounds(with_interval(mean, in_manifold(x, y)))


def recall(x, y):
    """Return the proportion of (M, D) in the manifold of (N, D)."""
    # Fewer N have larger balls, so each estimate of the jackknife has its own.
    return within_bounds(with_interval(lambda rows: mean(in_manifold(y, rows)), x))


def mean(chosen):
    """Return the proportion of true values in (N,) as a float."""
    return chosen.double().mean().item()


def within_bounds(estimate):
    """Return the Estimate of a proportion, with its interval cut to [0, 1]."""
    value, *ends = estimate
    return Estimate(value, *(min(1.0, max(0.0, end)) for end in ends))


def median_distance(found):
    """Return the median distance to the nearest photo; found: a Nearest."""
    return with_interval(lambda rows: rows.median().item(), found.first)


METRICS = {
    "Frechet distance": lambda c: frechet(c.generated, c.real),
    "- to validation photos": frechet_to_validation,
    "kernel distance": lambda c: kernel_distance(c.generated, c.real),
    "precision": lambda c: precision(c.generated, c.real),
    "recall": lambda c: recall(c.generated, c.real),
    "copies by pixels": lambda c: proportion(c.nearest_by_pixels.copies()),
    "nearest by pixels": lambda c: median_distance(c.nearest_by_pixels),
    "copies by features": lambda c: proportion(c.nearest_by_features.copies()),
    "nearest by features": lambda c: median_distance(c.nearest_by_features),
}


def evaluate(comparison, names=tuple(METRICS)):
    """Return {name: Estimate, or the reason why there is none} of the named METRICS."""
    return {name: METRICS[name](comparison) for name in names}


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
        """Return Frechet distances of images (N, 3, S, S): name -> Estimate."""
        features = extract(self.extractor, images)
        return {
            "frechet": frechet(features, self.photos),
            "frechet_to_validation": frechet(features, self.validation),
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
    extractor = find_extractor(args.extractor)
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

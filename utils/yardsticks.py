"""All measures of a set of images against the photos, each with its interval."""

from functools import cached_property

import torch

from utils.metrics import (
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

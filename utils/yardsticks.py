"""All measures of a set of images against the photos, each with its interval."""

from typing import NamedTuple

import torch

from utils.metrics import (
    Estimate,
    extract,
    frechet_distance,
    kernel_distance,
    nearest_training_images,
    precision_and_recall,
    share,
    with_interval,
)


class Photos(NamedTuple):
    """One side of the split, and its features."""

    images: torch.Tensor  # (N, 3, H, W) in [0, 1]
    features: torch.Tensor  # (N, D)


def photos_of(images, extractor):
    """Return Photos of images (N, 3, H, W) in [0, 1]."""
    return Photos(images, extract(extractor, images))


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
        "precision": covered(ones, others, 0),
        "recall": covered(ones, others, 1),
    }
    for name, by in (("pixels", None), ("features", extractor)):
        near = nearest_training_images(images, training.images, by)
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


def covered(ones, others, which):
    """Precision (0) or recall (1) of features (N, D) against (M, D) -> Estimate."""
    value, *ends = with_interval(
        lambda some: precision_and_recall(others, some)[which], ones
    )
    return Estimate(value, *(min(1.0, max(0.0, end)) for end in ends))

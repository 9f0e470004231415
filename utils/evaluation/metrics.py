"""Distances between two sets of images, precision and recall, and copies.

Distances compare features (N, D) of two sets, of any extractor: pixels or a network's.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import NamedTuple

import torch

from utils.device import device_of

SHIFT = 1  # pixels by which a copy may be moved
COPY_RATIO = 1 / 3  # of the distances to the nearest and the second nearest photo
MIN_IMAGES = 10  # of which a resample is meaningful
FEWEST_PER_DIM = 1.2  # images per feature, for an extrapolation
SUBSETS, REPEATS = 5, 2  # numbers of images between which it is made, draws of each
BLOCKS = 20  # groups of images, of which a jackknife leaves out one at a time
Z = 1.96  # standard deviations of a 95 % interval


@torch.no_grad()
def extract(extractor, images, batch_size=256):
    """Return the features (N, D) of images (N, 3, H, W) in [0, 1], in float64.

    They are on the CPU, where all metrics are computed: not every GPU has float64.
    extractor: a module in evaluation mode, or a function, (B, 3, H, W) -> (B, D).

    Raises:
        ValueError: if it returns another shape, or is a module in training mode.
    """
    if getattr(extractor, "training", False) and len(list(extractor.parameters())):
        raise ValueError("the extractor is in training mode; call its eval() first")
    device = device_of(extractor)
    parts = [extractor(batch.to(device)).cpu() for batch in images.split(batch_size)]
    features = torch.cat([part.double() for part in parts])
    if features.ndim != 2 or len(features) != len(images):
        raise ValueError(f"features must be (N, D), got {tuple(features.shape)}")
    return features


# Distances between two sets of features ----------------------------------------------


def frechet_distance(x, y):
    """Return the squared Frechet distance of Gaussians fitted to (N, D) and (M, D).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson & Landau 1982; of features of a
    network the FID of Heusel et al. 2017, arXiv:1706.08500). Biased upwards where N and
    M are not large against D.
    """
    return gaussian_distance(fit_gaussian(x), fit_gaussian(y))


def extrapolated_frechet_distance(x, y, seed=0):
    """Return an estimate of `frechet_distance` for infinitely many images.

    The distance of random subsets of (N, D) and (M, D) is nearly linear in 1 / N and in
    1 / M (Chong & Forsyth 2020, arXiv:1911.07023, for one of both); the fitted plane is
    read at 0. About 0 for draws from one distribution, and then often below.

    Raises:
        ValueError: if there are fewer than FEWEST_PER_DIM * D images on a side.
    """
    fewest = math.ceil(FEWEST_PER_DIM * x.shape[1])
    require_images(fewest, x, y)
    generator = torch.Generator().manual_seed(seed)

    def subsets(features):
        """Return [(number of images, their Gaussian)] of random subsets."""
        counts = torch.linspace(fewest / FEWEST_PER_DIM * 1.1, len(features), SUBSETS)
        chosen = [
            torch.randperm(len(features), generator=generator)[: int(count)]
            for count in counts.tolist() * REPEATS
        ]
        return [(len(rows), fit_gaussian(features[rows])) for rows in chosen]

    # The plane a + b / N + c / M through the distances of all pairs of subsets.
    pairs = list(itertools.product(subsets(x), subsets(y)))
    points = torch.tensor([[1, 1 / n, 1 / m] for (n, _), (m, _) in pairs])
    values = torch.tensor([gaussian_distance(p, q) for (_, p), (_, q) in pairs])
    plane = torch.linalg.lstsq(points.double(), values.double()[:, None]).solution
    return plane[0].item()


@dataclass
class Gaussian:
    """A normal distribution that was fitted to features."""

    mean: torch.Tensor  # (D,)
    covariance: torch.Tensor  # (D, D)

    @cached_property
    def root(self):
        """The symmetric root of the covariance: (D, D)."""
        return matrix_sqrt(self.covariance)


def fit_gaussian(features):
    """Return the Gaussian of features (N, D)."""
    require_images(2, features)
    features = features.double()
    return Gaussian(features.mean(dim=0), covariance(features))


def gaussian_distance(p, q):
    """Return the squared Frechet distance of two Gaussians."""
    means = (p.mean - q.mean).square().sum()
    # C1 C2 has the eigenvalues of the symmetric R C2 R, where R R = C1.
    product = p.root @ q.covariance @ p.root
    cross = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()
    return (means + p.root.square().sum() + q.covariance.trace() - 2 * cross).item()


def covariance(features):
    """Return the covariance (D, D) of features (N, D), also for D = 1."""
    return torch.atleast_2d(features.T.cov())


def matrix_sqrt(matrix):
    """Return the symmetric root of a symmetric positive semidefinite (D, D)."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


class Estimate(NamedTuple):
    """A value, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def with_interval(measure, features, blocks=BLOCKS):
    """Return the Estimate of measure(features (N, D)), by the jackknife.

    Each of `blocks` groups of rows is left out once (Efron 1982). The interval covers
    chance, not a bias of the measure.
    """
    require_images(blocks, features)
    value = measure(features)
    group = torch.arange(len(features)) % blocks  # (N,), every `blocks`-th row
    left_out = torch.tensor([measure(features[group != b]) for b in range(blocks)])
    variance = (left_out - left_out.mean()).square().sum() * (blocks - 1) / blocks
    half = Z * variance.sqrt().item()
    return Estimate(value, value - half, value + half)


def proportion(chosen):
    """Return the proportion of true values in (N,), with Wilson's interval (1927)."""
    require_images(1, chosen)
    count, value = len(chosen), chosen.double().mean().item()
    # The interval is not centred on the value.
    middle = (value + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = math.sqrt(value * (1 - value) / count + (Z / (2 * count)) ** 2)
    half *= Z / (1 + Z**2 / count)
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half))


def kernel_distance(x, y, resamples=1000, seed=0):
    """Return the unbiased squared maximum mean discrepancy of (N, D) and (M, D).

    With the kernel (x . y / D + 1)^3 it is the KID of Binkowski et al. 2018,
    arXiv:1801.01401: 0 on average for two draws from one distribution, and then often
    below. The interval is a percentile bootstrap, in which an image that is drawn twice
    is not paired with itself; for equal distributions it is too wide.
    """
    require_images(MIN_IMAGES, x, y)
    both = torch.cat([x, y]).double()
    # The kernel of all pairs, without those of an image and itself.
    kernel = (both @ both.T).div_(both.shape[1]).add_(1).pow_(3)  # (N + M, N + M)
    kernel.fill_diagonal_(0)
    cut, generator = len(x), torch.Generator().manual_seed(seed)
    once = torch.ones(1, len(both), dtype=torch.float64)
    # Bootstrap both sets: how often each image is drawn.
    counts = torch.cat(
        [bootstrap_counts(len(part), resamples, generator) for part in (x, y)], dim=1
    )
    value = discrepancy(kernel, once, cut).item()
    quantiles = torch.tensor([0.025, 0.975]).double()
    ends = discrepancy(kernel, counts, cut).quantile(quantiles)
    return Estimate(value, *ends.tolist())


def bootstrap_counts(count, resamples, generator):
    """Return how often each is drawn in `count` draws: (resamples, count)."""
    chosen = torch.randint(count, (resamples, count), generator=generator)
    counts = torch.zeros(resamples, count, dtype=torch.float64)
    return counts.scatter_add_(1, chosen, torch.ones_like(counts))


def discrepancy(kernel, weights, cut):
    """Return the squared discrepancy of the first `cut` images and the rest: (R,)."""
    # kernel: (N, N) with a zero diagonal; weights: (R, N), one row per estimate.
    x, y = weights[:, :cut], weights[:, cut:]  # (R, cut), (R, N - cut)

    def mean_within(part, block):
        pairs = part.sum(dim=1) ** 2 - part.square().sum(dim=1)
        return (part @ block * part).sum(dim=1) / pairs

    between = (x @ kernel[:cut, cut:] * y).sum(dim=1)
    between = between / (x.sum(dim=1) * y.sum(dim=1))
    within = mean_within(x, kernel[:cut, :cut])
    within = within + mean_within(y, kernel[cut:, cut:])
    return within - 2 * between


def in_manifold(points, reference, neighbours=3):
    """Return which of (N, D) are in a ball around one of `reference` (M, D): (N,).

    The radius of a ball is the distance to its k-th nearest neighbour. The proportion
    of samples in the photos' manifold is precision, that of photos in the samples'
    manifold is recall (Kynkaanniemi et al. 2019, arXiv:1904.06991).
    """
    require_images(neighbours + 1, reference)
    points, reference = points.double(), reference.double()
    distances = torch.cdist(reference, reference)  # of each to itself 0
    radii = distances.kthvalue(neighbours + 1, dim=1).values  # (M,)
    return (torch.cdist(points, reference) <= radii).any(dim=1)


def require_images(least, *sets):
    """Raise a ValueError for a set of features with fewer rows than needed."""
    for features in sets:
        if len(features) < least:
            raise ValueError(f"at least {least} images are needed, got {len(features)}")


# Copies ------------------------------------------------------------------------------


class Nearest(NamedTuple):
    """The nearest photo of each of N images."""

    indices: torch.Tensor  # (N,), of the nearest photo
    first: torch.Tensor  # (N,), the distance to it
    second: torch.Tensor  # (N,), the distance to the second nearest photo
    flipped: torch.Tensor  # (N,) of bool, its mirror image is nearer than itself

    def copies(self):
        """Return which images are copies: (N,) of bool."""
        # The nearest photo is nearer than COPY_RATIO times the second (Yoon et al.
        # 2023, "Diffusion probabilistic models generalize when they fail to memorize").
        return self.first <= COPY_RATIO * self.second


def nearest_training_images(images, training, extractor=None):
    """Return the Nearest training photos of images, flipped photos included.

    images: (N, 3, H, W), training: (M, 3, H, W), in [0, 1]; by the Euclidean distance
    of features, or without an extractor by `nearest_aligned`.
    """
    if extractor is None:
        return nearest_aligned(images, training)
    parts = images, training, training.flip(3)
    return nearest(*(extract(extractor, part) for part in parts))


def nearest_aligned(images, photos):
    """Return the Nearest photos by pixels, whatever their brightness and contrast.

    Windows of an image and a photo are normalized to mean 0 and length 1, so that their
    distance is between 0 and 2. The distance is the smallest between the centre of the
    image and the windows of the photo that are up to SHIFT pixels from its centre, of
    its mirror image also. images: (N, 3, H, W), photos: (M, 3, H, W).
    """
    require_images(2, photos)
    middle = normalized_window(images, 0, 0)
    shifts = list(itertools.product(range(-SHIFT, SHIFT + 1), repeat=2))
    # The largest correlation over the shifts, of the photo and of its mirror image.
    distances = []
    for side in (photos, photos.flip(3)):
        correlations = (middle @ normalized_window(side, *s).T for s in shifts)
        largest = reduce(torch.maximum, correlations)  # (N, M)
        distances.append((2 - 2 * largest).clamp(min=0).sqrt())
    return closest(*distances)


def normalized_window(images, down, right):
    """Return the window (N, D) of images (N, 3, H, W), of mean 0 and length 1."""
    height, width = (size - 2 * SHIFT for size in images.shape[2:])
    rows = slice(SHIFT + down, SHIFT + down + height)
    columns = slice(SHIFT + right, SHIFT + right + width)
    flat = images[..., rows, columns].flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-6)


def nearest(features, photos, flipped):
    """Return the Nearest photos of features (N, D).

    photos, flipped: features (M, D) of each photo, and of its mirror image.
    """
    require_images(2, photos)
    return closest(*(torch.cdist(features, side) for side in (photos, flipped)))


def closest(plain, mirrored):
    """Return the Nearest, from distances (N, M) to photos and their mirror images."""
    found = torch.minimum(plain, mirrored).topk(2, largest=False)  # of (N, M)
    indices = found.indices[:, :1]  # (N, 1)
    is_flipped = mirrored.gather(1, indices) < plain.gather(1, indices)
    return Nearest(indices[:, 0], *found.values.unbind(dim=1), is_flipped[:, 0])

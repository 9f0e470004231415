"""How near two sets of images are, and whether one of them was copied.

Distances compare features (N, D) of two sets; any extractor will do, from pixels to a
network's. Linear yardsticks say what an autoencoder has to beat.
"""

import math
from typing import NamedTuple

import torch

COPY = 1 / 3  # a nearest photo this much nearer than the second nearest is a copy
FEWEST = 10  # images of which a resample says anything


@torch.no_grad()
def extract(extractor, images, batch_size=256):
    """Images (N, 3, H, W) in [0, 1] -> features (N, D) in float64.

    extractor: a module in evaluation mode, or a function, from (B, 3, H, W) to (B, D).

    Raises:
        ValueError: if it returns another shape, or is a module in training mode.
    """
    if getattr(extractor, "training", False) and len(list(extractor.parameters())):
        raise ValueError("the extractor is in training mode; call its eval() first")
    parts = [extractor(batch).cpu().double() for batch in images.split(batch_size)]
    features = torch.cat(parts)
    if features.ndim != 2 or len(features) != len(images):
        raise ValueError(f"features must be (N, D), got {tuple(features.shape)}")
    return features


# Distances between two sets of features -----------------------------------------


def frechet_distance(ones, others):
    """Squared Frechet distance of two Gaussians fitted to (N, D) and (M, D) -> float.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson & Landau 1982; on features of a
    network, the FID of Heusel et al. 2017, arXiv:1706.08500). Biased upward where N is
    not large against D.
    """
    refuse_fewer_than(2, ones, others)
    ones, others = ones.double(), others.double()
    means = (ones.mean(dim=0) - others.mean(dim=0)).square().sum()
    root = square_root(covariance(ones))  # (D, D)
    other = covariance(others)
    # (C1 C2) has the eigenvalues of the symmetric R C2 R, where R R = C1
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    return (means + root.square().sum() + other.trace() - 2 * cross).item()


def covariance(features):
    """(N, D) -> (D, D), also for D = 1."""
    return torch.atleast_2d(features.T.cov())


def square_root(matrix):
    """Symmetric positive (D, D) -> the symmetric root of it."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


class Estimate(NamedTuple):
    """A value, and an interval that holds the true one with about 95 % confidence."""

    value: float
    low: float
    high: float


def with_interval(measure, features, blocks=20):
    """measure(features (N, D)) -> Estimate, by leaving out a block of rows at a time.

    The delete-a-group jackknife (Efron 1982); a block is every `blocks`-th row. It
    covers chance alone, no bias of the measure.
    """
    refuse_fewer_than(blocks, features)
    value = measure(features)
    numbers = torch.arange(len(features)) % blocks
    others = torch.tensor([measure(features[numbers != b]) for b in range(blocks)])
    spread = (others - others.mean()).square().sum() * (blocks - 1) / blocks
    half = 1.96 * spread.sqrt().item()
    return Estimate(value, value - half, value + half)


def share(chosen):
    """Share of true values in (N,) of bool -> Estimate, by Wilson's interval (1927)."""
    refuse_fewer_than(1, chosen)
    count, value, z = len(chosen), chosen.double().mean().item(), 1.96
    middle = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    half = math.sqrt(value * (1 - value) / count + (z / (2 * count)) ** 2)
    half *= z / (1 + z**2 / count)
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half))


def kernel_distance(ones, others, resamples=1000, seed=0):
    """Unbiased squared maximum mean discrepancy of (N, D) and (M, D) -> Estimate.

    Kernel (x . y / D + 1)^3: the KID of Binkowski et al. 2018, arXiv:1801.01401, which
    is 0 on average for two draws from one distribution, and can be below. The interval
    is a percentile bootstrap; an image drawn twice is not paired with itself. Where the
    distributions are the same it is wider than need be.
    """
    refuse_fewer_than(FEWEST, ones, others)
    both = torch.cat([ones, others]).double()
    kernel = (both @ both.T).div_(both.shape[1]).add_(1).pow_(3)  # (N + M, N + M)
    kernel.fill_diagonal_(0)
    cut, generator = len(ones), torch.Generator().manual_seed(seed)
    plain = torch.ones(1, len(both), dtype=torch.float64)
    drawn = torch.cat(
        [bootstrap(len(part), resamples, generator) for part in (ones, others)], dim=1
    )
    value = discrepancy(kernel, plain, cut).item()
    spread = discrepancy(kernel, drawn, cut).quantile(
        torch.tensor([0.025, 0.975]).double()
    )
    return Estimate(value, *spread.tolist())


def bootstrap(count, resamples, generator):
    """Count how often each of `count` is drawn in `count`: (resamples, count)."""
    chosen = torch.randint(count, (resamples, count), generator=generator)
    weights = torch.zeros(resamples, count, dtype=torch.float64)
    return weights.scatter_add_(1, chosen, torch.ones_like(weights))


def discrepancy(kernel, weights, cut):
    """Squared mean discrepancy of the first `cut` images and the rest -> (R,).

    kernel: (N, N) with a zero diagonal; weights: (R, N), one row per estimate.
    """
    ones, others = weights[:, :cut], weights[:, cut:]  # (R, cut), (R, N - cut)

    def mean_within(part, block):
        pairs = part.sum(dim=1) ** 2 - part.square().sum(dim=1)
        return (part @ block * part).sum(dim=1) / pairs

    between = (ones @ kernel[:cut, cut:] * others).sum(dim=1)
    between = between / (ones.sum(dim=1) * others.sum(dim=1))
    inside = mean_within(ones, kernel[:cut, :cut])
    inside = inside + mean_within(others, kernel[cut:, cut:])
    return inside - 2 * between


def among(points, others, neighbours=3):
    """Tell which of (N, D) lie in a ball around one of `others` (M, D): bool (N,).

    A ball reaches to the k-th nearest neighbour among the others. The share of samples
    among photos is precision, that of photos among samples recall (Kynkaanniemi et al.
    2019, arXiv:1904.06991).
    """
    refuse_fewer_than(neighbours + 1, others)
    points, others = points.double(), others.double()
    radii = torch.cdist(others, others).kthvalue(neighbours + 1, dim=1).values  # (M,)
    return (torch.cdist(points, others) <= radii).any(dim=1)


def refuse_fewer_than(least, *sets):
    """Raise a ValueError for a set of features with fewer rows than a measure needs."""
    for features in sets:
        if len(features) < least:
            raise ValueError(f"at least {least} images are needed, got {len(features)}")


# Copies -------------------------------------------------------------------------


class Nearest(NamedTuple):
    """What lies nearest to each of N images."""

    indices: torch.Tensor  # (N,), of the nearest photo
    first: torch.Tensor  # (N,), the distance to it
    second: torch.Tensor  # (N,), the distance to the next nearest photo

    def copies(self):
        """Tell which images are copies: (N,) of bool.

        The nearest photo is so much nearer than the next that chance does not explain
        it (Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail
        to memorize").
        """
        return self.first <= COPY * self.second


def nearest_training_images(images, training, extractor=None):
    """Find the nearest two training photos, mirrored ones included -> Nearest.

    images: (N, 3, H, W), training: (M, 3, H, W), in [0, 1]; Euclidean distance of the
    features, or of the pixels without an extractor.
    """
    extractor = torch.nn.Flatten() if extractor is None else extractor
    parts = images, training, training.flip(3)
    return nearest(*(extract(extractor, part) for part in parts))


def nearest(features, photos, mirrored):
    """Find the nearest two photos by features (N, D) -> Nearest.

    photos, mirrored: features (M, D) of each photo, and of its mirror image.
    """
    refuse_fewer_than(2, photos)
    distances = [torch.cdist(features, side) for side in (photos, mirrored)]  # (N, M)
    found = torch.minimum(*distances).topk(2, largest=False)
    return Nearest(found.indices[:, 0], *found.values.unbind(dim=1))


# Linear yardsticks --------------------------------------------------------------

"""Near-duplicates among images: one photo twice, or two taken moments apart."""

import torch
import torch.nn.functional as F

THUMBNAIL = 8  # pixels per side at which images are compared
MAX_DIFFERENCE = 0.12  # of two thumbnails, relative to the variation within one
ROUNDING = 2e-4  # of a squared distance in single precision
BLOCK = 1024  # rows of the table of pairs that are in memory at a time


def near_duplicates(images):
    """Return groups (sets of indices) of near-duplicates among images (N, 3, H, W).

    images: uint8. Two images are near-duplicates if the Euclidean distance of their
    thumbnails, mirror images included, is at most MAX_DIFFERENCE times the deviation of
    either thumbnail from its mean colour. A group is connected by such pairs.
    """
    pairs = near_duplicate_pairs(images)
    pairs = torch.cat([pairs, pairs.flip(1)])  # (P, 2), in both orders
    # Each group takes the lowest index that its pairs lead to.
    group, before = torch.arange(len(images)), None
    while before is None or not group.equal(before):
        before = group
        group = group.scatter_reduce(0, pairs[:, 0], group[pairs[:, 1]], "amin")
    members = {}
    for index in pairs[:, 0].unique().tolist():
        members.setdefault(group[index].item(), set()).add(index)
    return list(members.values())


def near_duplicate_pairs(images):
    """Return the indices (P, 2) of all pairs of near-duplicates, the lower first."""
    small = torch.cat([thumbnails(part) for part in images.split(BLOCK)])
    colour = small.mean(dim=(2, 3), keepdim=True)
    variation = (small - colour).square().sum(dim=(1, 2, 3))  # (N,)
    # The parts that mirroring keeps and that it negates: the squared distance of a and
    # b is |a|^2 + |b|^2 - 2 (even_a . even_b + odd_a . odd_b), with another sign before
    # the odd parts for the mirror image of b.
    even = ((small + small.flip(3)) / 2).flatten(1)  # (N, D)
    odd = ((small - small.flip(3)) / 2).flatten(1)  # (N, D)
    size = small.square().sum(dim=(1, 2, 3))  # (N,)
    found = []
    for start in range(0, len(small), BLOCK):
        rows, columns = slice(start, start + BLOCK), slice(start, None)
        product = even[rows] @ even[columns].T
        product += (odd[rows] @ odd[columns].T).abs_()  # (BLOCK, N - start)
        squared = size[rows, None] + size[columns] - 2 * product
        limit = torch.minimum(variation[rows, None], variation[columns])
        near = squared <= MAX_DIFFERENCE**2 * limit + ROUNDING
        found.append(near.triu(1).nonzero() + start)
    return torch.cat(found)


def thumbnails(images):
    """Return images (N, 3, H, W) of uint8 as (N, 3, THUMBNAIL, THUMBNAIL) in [0, 1]."""
    size = (THUMBNAIL, THUMBNAIL)
    return F.interpolate(images / 255, size, mode="bilinear", antialias=True)


def keep_together(groups, train, valid, fixed_valid=()):
    """Return (train, valid) lists of indices with every group on one side.

    A group goes to training, or to validation if it has a member in `fixed_valid`,
    indices that are in validation elsewhere. For each index that is moved one without
    near-duplicates goes to the other side, so that both sizes stay. Without such an
    index it stays where it is.
    """
    train, valid, grouped = list(train), list(valid), set().union(*groups)
    for group in groups:
        target, source = train, valid
        if group.intersection(fixed_valid):
            target, source = valid, train
        for index in sorted(group.intersection(source)):
            others = (i for i in reversed(target) if i not in grouped)
            partner = next(others, None)
            if partner is not None:
                target[target.index(partner)] = index
                source[source.index(index)] = partner
    return train, valid

"""Near-duplicates among images: one photo twice, or two taken moments apart."""

# Only those images are compared whose thumbnails can be near each other: thumbnails are
# projected onto few axes, which makes no distance longer, and put into a tree of boxes
# (Bentley 1975). Each image takes 192 numbers of 4 bytes while they are compared.

from heapq import heapify, heappop, heappush

import torch
import torch.nn.functional as F

THUMBNAIL = 8  # pixels per side at which images are compared
MAX_DIFFERENCE = 0.12  # of two thumbnails, relative to the variation within one
ROUNDING = 2e-4  # of a squared distance in single precision
BLOCK = 1024  # images whose thumbnails are made at a time
AXES, SAMPLE = 6, 4096  # axes of the boxes, and thumbnails that they are chosen from
LEAF, COLUMNS = 64, 8192  # images in a box, and images that it is compared to at once


def near_duplicates(images):
    """Return groups (sets of indices) of near-duplicates among images (N, 3, H, W).

    images: uint8, a tensor or a PhotoMap. Two images are near-duplicates if the
    Euclidean distance of their thumbnails, mirror images included, is at most
    MAX_DIFFERENCE times the deviation of either thumbnail from its mean colour. A group
    is connected by such pairs.
    """
    # Each group is named by its lowest index.
    group = torch.arange(len(images))
    for pairs in near_pairs(images):
        connect(group, pairs)
    members = {}
    for index in (group != torch.arange(len(images))).nonzero()[:, 0].tolist():
        lowest = group[index].item()
        members.setdefault(lowest, {lowest}).add(index)
    return [members[lowest] for lowest in sorted(members)]


def connect(group, pairs):
    """Give the ends of all pairs (P, 2), and what is connected to them, one group."""
    # group: (N,), the lowest index that is known of each group, in place.
    while True:
        one, other = group[pairs].T
        if one.equal(other):
            return
        # The higher of two groups joins the lower one, with all its members.
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        group.scatter_reduce_(0, high, low, "amin")
        while not group.equal(group[group]):
            group.copy_(group[group])


def near_pairs(images):
    """Yield the indices (P, 2) of pairs of near-duplicates, each pair once."""
    halves, variation = compared_halves(images)  # (N, 2 * D), (N,)
    size = halves.square().sum(dim=1)
    rows, low, high = boxes(halves[:, : halves.shape[1] // 2])
    limit = torch.stack([MAX_DIFFERENCE**2 * variation[r].max() for r in rows])
    for number, own in enumerate(rows):
        # The boxes that are near enough, from this one on.
        gap = torch.maximum(low[number:] - high[number], low[number] - high[number:])
        near = gap.clamp(min=0).square().sum(dim=1)  # squared distance of boxes
        bound = torch.minimum(limit[number], limit[number:]) + ROUNDING
        near = (near <= bound).nonzero()[:, 0] + number
        others = torch.cat([rows[i] for i in near.tolist()])
        for part in others.split(COLUMNS):
            # |a|^2 + |b|^2 - 2 (even_a . even_b + odd_a . odd_b), with another sign
            # before the odd parts for the mirror image of b.
            products = [x[own] @ x[part].T for x in halves.chunk(2, dim=1)]
            product = products[0] + products[1].abs_()  # (LEAF, COLUMNS)
            squared = size[own, None] + size[part] - 2 * product
            least = torch.minimum(variation[own, None], variation[part])
            found = (squared <= MAX_DIFFERENCE**2 * least + ROUNDING).nonzero()
            pairs = torch.stack([own[found[:, 0]], part[found[:, 1]]], dim=1)
            pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            if len(pairs):
                yield pairs


def compared_halves(images):
    """Return what mirroring keeps and what it negates of thumbnails, and variation.

    (N, 2 * D): the halves side by side; their products add up to those of thumbnails.
    """
    width = THUMBNAIL // 2
    halves = torch.empty(len(images), 2, 3 * THUMBNAIL * width)
    variation = torch.empty(len(images))
    for start in range(0, len(images), BLOCK):
        part = slice(start, start + BLOCK)
        small = thumbnails(images[part])
        colour = small.mean(dim=(2, 3), keepdim=True)
        variation[part] = (small - colour).square().sum(dim=(1, 2, 3))
        # Both are symmetric but for the sign: one side of them counts twice.
        left, right = small[..., :width], small.flip(3)[..., :width]
        halves[part, 0] = ((left + right) / 2**0.5).flatten(1)
        halves[part, 1] = ((left - right) / 2**0.5).flatten(1)
    return halves.flatten(1), variation


def boxes(points):
    """Return boxes of at most LEAF near points (N, D): rows of each, low, high corners.

    Corners are (boxes, AXES), along the axes on which points differ most.
    """
    sample = points[:: len(points) // SAMPLE + 1].double()
    sample = sample - sample.mean(dim=0)
    axes = torch.linalg.eigh(sample.T @ sample).eigenvectors[:, -AXES:].float()
    points, rows, waiting = points @ axes, [], [torch.arange(len(points))]
    while waiting:
        own = waiting.pop()
        if len(own) <= LEAF:
            rows.append(own)
            continue
        # Halve along the axis on which these points differ most.
        inside = points[own]
        order = inside[:, inside.std(dim=0).argmax()].argsort(stable=True)
        waiting += own[order].tensor_split(2)
    low = torch.stack([points[r].amin(dim=0) for r in rows])
    high = torch.stack([points[r].amax(dim=0) for r in rows])
    return rows, low, high


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
    fixed_valid, grouped = set(fixed_valid), set().union(*groups)
    train, valid = Side(train, grouped), Side(valid, grouped)
    for group in groups:
        target, source = train, valid
        if group.intersection(fixed_valid):
            target, source = valid, train
        for index in sorted(i for i in group if i in source.place):
            if target.free:
                place, partner = target.pop_free()
                source.put(source.place[index], partner, free=True)
                target.put(place, index)
    return train.indices, valid.indices


class Side:
    """One side of a split: a list of indices, and the places of the free ones.

    place: index -> its place in the list; free: a heap of the negated places of indices
    without near-duplicates, so that the last one is found first.
    """

    def __init__(self, indices, grouped):
        self.indices = list(indices)
        self.place = {index: place for place, index in enumerate(self.indices)}
        self.free = [-p for p, index in enumerate(self.indices) if index not in grouped]
        heapify(self.free)

    def pop_free(self):
        """Take the last free index out of the heap -> (place, index)."""
        place = -heappop(self.free)
        return place, self.indices[place]

    def put(self, place, index, free=False):
        """Put an index in the place of another."""
        del self.place[self.indices[place]]
        self.indices[place], self.place[index] = index, place
        if free:
            heappush(self.free, -place)

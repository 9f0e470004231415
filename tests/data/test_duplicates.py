"""Near-duplicates among photos are found, and never on both sides of the split."""

import random

import pytest
import torch
from PIL import Image

from tests.helpers.project import write_photos
from utils.data import duplicates
from utils.data.duplicates import keep_together, near_duplicates
from utils.data.synthetic import draw_flowers
from utils.data_processor import create_flower_dataloaders


@pytest.fixture(scope="module")
def flowers():
    """Return drawn flowers: uint8 (60, 3, 24, 24)."""
    return draw_flowers(20, 24, 24)[0]


def altered(image, name):
    """Return a near-duplicate of an image (3, H, W) of uint8."""
    noise = torch.randint(-4, 5, image.shape, generator=torch.manual_seed(0))
    changed = {
        "the same": image,
        "mirrored": image.flip(2),
        "noisy": (image.int() + noise).clamp(0, 255).byte(),
        "brighter by little": (image.int() + 4).clamp(0, 255).byte(),
    }
    return changed[name]


@pytest.mark.parametrize(
    "name", ["the same", "mirrored", "noisy", "brighter by little"]
)
def test_near_duplicates_are_found_and_others_are_not(flowers, name):
    """In one group, however many there are; drawn flowers are all different."""
    assert near_duplicates(flowers) == []
    pair = torch.cat([flowers, altered(flowers[7], name)[None]])
    assert near_duplicates(pair) == [{7, 60}]
    three = torch.cat([pair, flowers[7:8]])
    assert near_duplicates(three) == [{7, 60, 61}]


def test_groups_are_connected_by_pairs():
    """The ends of a chain are not near-duplicates of each other; blocks of rows."""
    ramp = torch.linspace(0, 255, 8).expand(3, 8, 8)
    chain = torch.stack([(ramp + 8 * i).clamp(0, 255) for i in (2, 0, 3, 1)]).byte()
    assert near_duplicates(chain) == [{0, 1, 2, 3}]
    assert near_duplicates(chain[[1, 2]]) == []


def test_images_of_one_colour_are_compared_by_their_colour():
    colours = torch.tensor([10, 90, 10]).view(3, 1, 1, 1).expand(3, 3, 8, 8).byte()
    assert near_duplicates(colours) == [{0, 2}]


def brute_force_pairs(images):
    """Return the pairs of near-duplicates by their definition, in double precision."""
    small = duplicates.thumbnails(images).double()
    colour = small.mean(dim=(2, 3), keepdim=True)
    variation = (small - colour).square().sum(dim=(1, 2, 3))
    sides = small.flatten(1), small.flip(3).flatten(1)
    squared = torch.minimum(*(torch.cdist(sides[0], side) for side in sides)).square()
    limit = 0.12**2 * torch.minimum(variation[:, None], variation)
    return {tuple(p) for p in (squared <= limit + 2e-4).triu(1).nonzero().tolist()}


def pairs_found(images):
    """Return the pairs that the tree of boxes leads to, each as (lower, higher)."""
    found = [p.sort(dim=1).values for p in duplicates.near_pairs(images)]
    pairs = [tuple(pair) for pair in torch.cat(found).tolist()]
    return {*pairs}


def test_the_boxes_lose_no_pair(flowers, monkeypatch):
    """Against all pairs; boxes and blocks of many sizes, with copies in all of them."""
    flowers = draw_flowers(200, 16, 16)[0]
    copies = [altered(image, "noisy") for image in flowers[::9]]
    copies += [altered(image, "mirrored") for image in flowers[::7]]
    images = torch.cat([flowers, torch.stack(copies)])
    images = images[torch.randperm(len(images), generator=torch.manual_seed(0))]
    expected = brute_force_pairs(images)
    assert len(expected) > 150
    for leaf, columns in ((64, 8192), (8, 30), (1, 64), (1000, 1000)):
        monkeypatch.setattr(duplicates, "LEAF", leaf)
        monkeypatch.setattr(duplicates, "COLUMNS", columns)
        assert pairs_found(images) == expected


def test_few_pairs_of_boxes_are_compared(monkeypatch):
    """And most of the work is saved; a copy is near, so that its box is compared."""
    images, compared = draw_flowers(1000, 16, 16)[0], []
    halves, _ = duplicates.compared_halves(images)
    rows, low, high = duplicates.boxes(halves[:, : halves.shape[1] // 2])
    assert torch.cat(rows).sort().values.equal(torch.arange(len(images)))
    nonzero = torch.Tensor.nonzero

    def counted(mask):
        compared.append(mask.numel() if mask.ndim == 2 else 0)
        return nonzero(mask)

    monkeypatch.setattr(torch.Tensor, "nonzero", counted)
    assert list(duplicates.near_pairs(images)) == []
    assert sum(compared) < 0.3 * len(images) ** 2 / 2


def naive_keep_together(groups, train, valid, fixed_valid):
    """What `keep_together` promises, step by step through whole lists."""
    train, valid, grouped = list(train), list(valid), set().union(*groups)
    for group in groups:
        target, source = train, valid
        if group.intersection(fixed_valid):
            target, source = valid, train
        for index in sorted(group.intersection(source)):
            free = [i for i in target if i not in grouped]
            if free:
                target[target.index(free[-1])] = index
                source[source.index(index)] = free[-1]
    return train, valid


@pytest.mark.parametrize("seed", range(20))
def test_sides_are_those_of_a_search_through_lists(seed):
    """Groups of 2 to 4 among 40 indices, half of them with a member elsewhere."""
    draw = random.Random(seed)
    indices = draw.sample(range(100), 40)
    names, groups = draw.sample(indices, draw.randint(4, 40)), []
    while len(names) > 1:
        groups.append({names.pop() for _ in range(min(len(names), draw.randint(2, 4)))})
    fixed = draw.sample(range(100, 120), 10)
    groups = [g | {draw.choice(fixed)} if draw.random() < 0.5 else g for g in groups]
    cut = draw.randint(0, 40)
    sides = groups, indices[:cut], indices[cut:], fixed
    assert keep_together(*sides) == naive_keep_together(*sides)


def test_a_group_goes_to_training_and_another_image_replaces_it():
    """Both sizes stay; what is on one side already is not moved."""
    train, valid = keep_together([{1, 8}, {2, 3}], [0, 1, 2, 3, 4], [7, 8, 9])
    assert train == [0, 1, 2, 3, 8] and valid == [7, 4, 9]


def test_a_group_goes_to_validation_if_it_has_a_member_there_already():
    train, valid = keep_together([{1, 20}], [0, 1], [7, 8], fixed_valid=[20])
    assert train == [0, 8] and valid == [7, 1]


def test_without_another_image_a_group_stays():
    assert keep_together([{0, 1, 7}], [0, 1], [7]) == ([0, 1], [7])


def test_no_near_duplicates_of_photos_straddle_the_split(tmp_path):
    """Copies under other names, smaller and mirrored; the sizes of the sides stay."""
    write_photos(tmp_path, 20)
    folder, plain = tmp_path / "astilbe", [20 * 3 * 4 // 5, 20 * 3 // 5]
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            copy = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((40, 40))
        copy.save(folder / f"copy_{path.stem}.png")
    sides = [d.dataset for d in create_flower_dataloaders(8, tmp_path, 24, 24)]
    both = torch.cat([side.images for side in sides])
    groups, cut = near_duplicates(both), len(sides[0])
    assert len(groups) == 20 and [len(s) for s in sides] == [p * 4 // 3 for p in plain]
    assert all(max(group) < cut or min(group) >= cut for group in groups)


@pytest.mark.parametrize("size", [24, pytest.param(48, marks=pytest.mark.slow)])
def test_the_three_species_are_split_alike_alone_and_among_sixteen(real_photos, size):
    """Three pairs of the real photos would straddle the split of file names."""
    loaders = create_flower_dataloaders(8, real_photos, size, size)
    images = torch.cat([loader.dataset.images for loader in loaders])
    groups = near_duplicates(images)
    assert len(groups) == 6 and [len(d.dataset) for d in loaders] == [1856, 465]
    assert all(max(group) < 1856 or min(group) >= 1856 for group in groups)
    assert loaders[0].dataset.metadata["split"] == "bffdfb861dd02a37"

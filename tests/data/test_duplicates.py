"""Near-duplicates among photos are found, and never on both sides of the split."""

import pytest
import torch
from PIL import Image

from tests.helpers.project import write_photos
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

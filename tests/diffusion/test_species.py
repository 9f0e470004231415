"""Species by name: which photos train, and which are drawn."""

import pytest
import torch

from tests.helpers.commands import error_line, files_below, train
from tests.helpers.diffusion import SPECIES
from tests.helpers.project import write_photos
from utils.cli import UsageError
from utils.data_processor import create_flower_dataloaders
from utils.diffusion.sampling import draw_labels, labels_for
from utils.registry import load_model

METADATA = {"data": {"classes": SPECIES}, "class_proportions": [0.5, 0.25, 0.25]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twenty drawn photos of each of the three kinds."""
    return write_photos(tmp_path_factory.mktemp("species") / "photos", 20)


def sides_of(photos, species=None, **options):
    """Return the training and the validation data set, 8 x 8."""
    loaders = create_flower_dataloaders(16, photos, 8, 8, species=species, **options)
    return [loader.dataset for loader in loaders]


def contents(side):
    """A data set as a set of (species, pixels)."""
    names = [side.classes[label] for label in side.labels.tolist()]
    pixels = [image.numpy().tobytes() for image in side.images]
    return set(zip(names, pixels, strict=True))


# Of the photos -----------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen", [["calendula", "astilbe"], ["bellflower"], [*SPECIES], None]
)
@pytest.mark.parametrize("split_seed", [0, 7])
def test_a_photo_stays_on_its_side(photos, chosen, split_seed):
    """No choice of species trains on another's validation photos."""
    for part, whole in zip(
        sides_of(photos, chosen, split_seed=split_seed),
        sides_of(photos, split_seed=split_seed),
        strict=True,
    ):
        named = set(chosen or SPECIES)
        assert contents(part) == {one for one in contents(whole) if one[0] in named}
        assert part.metadata["split"] == whole.metadata["split"]


def test_labels_are_counted_anew_in_the_old_order(photos):
    """Whatever the order of the names; the description follows."""
    for chosen in (["calendula", "astilbe"], ["astilbe", "calendula"]):
        training, validation = sides_of(photos, chosen)
        assert training.classes == ["astilbe", "calendula"]
        assert training.labels.unique().tolist() == [0, 1]
        assert training.metadata["count"] == len(training) + len(validation) == 40
        assert training.metadata["classes"] == validation.classes
    assert sum(training.class_proportions()) == pytest.approx(1)


def photos_but_for(tmp_path, missing):
    """Eight photos of each kind but the last, of which so many are missing."""
    photos = write_photos(tmp_path / "photos", 8)
    for path in sorted((photos / "calendula").iterdir())[:missing]:
        path.unlink()
    return photos


def test_shares_are_those_of_the_side(tmp_path):
    training, _ = sides_of(photos_but_for(tmp_path, 6))
    counts = training.labels.bincount()
    shares = (counts / counts.sum()).tolist()
    assert training.class_proportions() == pytest.approx(shares)
    assert counts.min() < counts.max() / 2


def test_augmentation_is_that_of_the_command(photos):
    training, validation = sides_of(photos, ["astilbe"], hflip=True, translate=1)
    assert (training.hflip, training.translate) == (True, 1)
    assert (validation.hflip, validation.translate) == (False, 0)


def test_too_few_photos_of_a_species_are_refused(tmp_path):
    """All of them on one side: nothing to validate with."""
    with pytest.raises(UsageError, match="--species: too few images"):
        sides_of(photos_but_for(tmp_path, 7), ["calendula"])


def test_drawn_flowers_have_species_too(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data.dataset.SYNTHETIC_PER_SPECIES", 10)
    sides = sides_of(tmp_path, ["calendula"], synthetic_if_empty=True)
    assert sum(map(len, sides)) == 10 and sides[0].classes == ["calendula"]


# Training by the command -------------------------------------------------------


def test_a_training_takes_and_remembers_its_species(tmp_path, photos):
    """R16: the model's classes are the data's, by name."""
    result = train("diffusion", tmp_path, photos, "--species", "calendula", "astilbe")
    assert result.code == 0, result.err
    model, metadata = load_model("diffusion", tmp_path / "models/Best_diffusion.pkl")
    assert metadata["data"]["classes"] == ["astilbe", "calendula"]
    assert model.network.null_label == model.args["num_classes"] == 2
    training, _ = sides_of(photos, ["astilbe", "calendula"])
    assert metadata["class_proportions"] == pytest.approx(training.class_proportions())
    assert metadata["data"]["count"] == 40


@pytest.mark.parametrize(
    "names, words", [(["rose"], ["'rose'", ", ".join(SPECIES)]), ([], ["at least one"])]
)
def test_a_training_of_unknown_species_is_refused(tmp_path, photos, names, words):
    """P25: exit 2, the name and the choices, nothing on disk; also without a name."""
    result = train("diffusion", tmp_path / "out", photos, "--species", *names)
    line = error_line(result.err, "diffusion.py")
    assert (result.code, result.out) == (2, "")
    assert all(word in line for word in ["--species", *words])
    assert not files_below(tmp_path)


# Drawing by name ---------------------------------------------------------------


def test_names_share_the_images_in_their_order():
    found = labels_for(["calendula", "astilbe"], METADATA, 6)
    assert found.dtype == torch.int64 and found.tolist() == [2, 2, 2, 0, 0, 0]
    assert labels_for(["bellflower"], METADATA, 3).tolist() == [1, 1, 1]
    for count in range(1, 20):  # as even as it goes
        counts = labels_for(SPECIES, METADATA, count).bincount(minlength=3)
        assert counts.sum() == count and counts.max() - counts.min() <= 1


def test_without_names_species_are_drawn_as_the_photos_show_them():
    torch.manual_seed(0)
    counts = labels_for(None, METADATA, 20_000).bincount(minlength=3)
    assert (counts / 20_000).tolist() == pytest.approx([0.5, 0.25, 0.25], abs=0.015)
    assert set(draw_labels([0.0, 1.0], 50).tolist()) == {1}


def test_weights_that_know_no_species_are_asked_for_none():
    """Those of the starter kit, without a description."""
    assert labels_for(None, {}, 5) is None


@pytest.mark.parametrize("metadata", [METADATA, {}])
def test_species_that_the_weights_do_not_know_are_refused(metadata):
    with pytest.raises(UsageError, match="--species: these weights know no 'rose'; "):
        labels_for(["astilbe", "rose"] if metadata else ["rose"], metadata, 5)

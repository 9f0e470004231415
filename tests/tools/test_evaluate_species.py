"""The command that measures, on a diffusion model's images of named species."""

import json

import pytest
import torch

from tests.helpers.diffusion import save_small, small
from tests.helpers.evaluation import measured, read
from tests.helpers.project import write_photos
from tools import evaluate
from utils.cli import UsageError
from utils.data_processor import create_flower_dataloaders


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Drawn photos of the three species."""
    folder = tmp_path_factory.mktemp("species")
    write_photos(folder / "photos", 40)
    return folder


def test_a_diffusion_model_draws_what_is_asked(tmp_path, monkeypatch):
    """In batches; equal shares of the names, in their order, and as often named."""
    monkeypatch.setattr("utils.diffusion.sampling.BATCH_SIZE", 2)
    path = save_small(tmp_path / "x.pkl")
    images, names = read(path, "--steps", "1", "--species", "calendula", "astilbe")
    assert len(images) == 5 and names == 3 * ["calendula"] + 2 * ["astilbe"]
    torch.testing.assert_close(images * 255, (images * 255).round())  # as if saved
    torch.manual_seed(0)
    _, names = read(path, "--steps", "1", "--count", "400")
    assert 160 < names.count("astilbe") < 240  # of a half


def test_a_diffusion_model_without_a_description_is_asked_nothing(tmp_path):
    """`Diffuser.save` knows no size and no species: 24 x 24, of any."""
    small().save(tmp_path / "x.pkl")
    images, names = read(tmp_path / "x.pkl", "--steps", "1", "--count", "2")
    assert images.shape == (2, 3, 24, 24) and names is None


def test_flags_that_do_not_fit_a_diffusion_model_are_refused(tmp_path):
    path = save_small(tmp_path / "x.pkl")
    with pytest.raises(UsageError, match="--prior: .*x.pkl has no codes"):
        read(path, "--prior", "gmm")
    with pytest.raises(UsageError, match="--species: .* no 'rose'; choose from ast"):
        read(path, "--species", "rose")


class Namer(torch.nn.Flatten):
    """Sees a pixel, and calls whatever it is shown a calendula."""

    classes = ["rose", "astilbe", "calendula", "bellflower"]

    def forward(self, images):
        return super().forward(images)[:, :5]

    def classify(self, images):
        return torch.tensor([0.0, 1.0, 2.0, 1.0]).expand(len(images), -1)


def test_species_named_right_go_by_the_extractors_names(
    place,
    tmp_path,
    capsys,
    monkeypatch,
):
    """The share of images whose species it names as asked; of photos, as they are."""
    monkeypatch.setattr(evaluate, "find_extractor", lambda name: Namer())
    path = save_small(tmp_path / "x.pkl")
    flags = ["--sampler", "heun", "--steps", "2", "--guidance", "1"]
    flags += ["--count", "300", "--species"]
    for names, proportion in ((["calendula"], 1), (["astilbe"], 0)):
        found = measured(place, capsys, path, *flags, *names)
        assert found[str(path)]["classified as requested"][0] == proportion
    found = measured(place, capsys, path, *flags, "astilbe", "calendula")
    assert found[str(path)]["classified as requested"][0] == 0.5
    drawn = {name: found[str(path)][name] for name in ("sampler", "steps", "guidance")}
    assert drawn == {"sampler": "heun", "steps": 2, "guidance": 1.0}
    assert found[str(path)]["nfe"] == 3  # counted: one in the last step
    _, validation = create_flower_dataloaders(16, place / "photos", 8, 8)
    labels = validation.dataset.labels.tolist()
    told = found["validation photos"]["classified as requested"][0]
    assert told == pytest.approx(labels.count(2) / len(labels))


def test_a_classifier_that_lacks_a_name_names_nothing():
    """And neither do images of which none was asked."""
    images = torch.rand(3, 3, 4, 4)
    for names in (None, ["astilbe", "astilbe", "zinnia"]):
        found = evaluate.classified_as_requested(images, names, Namer())
        assert found.startswith("no species was requested")
    found = evaluate.classified_as_requested(
        images, 2 * ["calendula"] + ["rose"], Namer()
    )
    assert found[0] == pytest.approx(2 / 3)


def test_how_images_were_drawn_is_told(tmp_path):
    """Guidance evaluates the network twice where it acts; an array was not drawn."""
    path = save_small(tmp_path / "x.pkl")
    flags = ["--sampler", "euler", "--steps", "3", "--guidance", "2"]
    for low, nfe in (("0", 6), ("1", 5)):
        interval = "--guidance-interval", low, "1e5"
        args = evaluate.parse([str(path), *flags, *interval])
        told = evaluate.sampling_facts(path, args)
        assert (told["guidance"], told["nfe"]) == (2, nfe)
        assert json.dumps(told, allow_nan=False)
    assert evaluate.sampling_facts(tmp_path / "x.npy", args) == {}

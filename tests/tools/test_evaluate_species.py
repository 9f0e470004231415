"""tools.evaluate on a diffusion model's images of requested species."""

import json

import pytest
import torch

from tests.helpers.diffusion import save_small, small
from tests.helpers.evaluation import measured, read
from tools import evaluate
from utils.cli import UsageError
from utils.data_processor import create_flower_dataloaders


def test_a_diffusion_model_samples_the_requested_species(tmp_path, monkeypatch):
    """In batches; in equal proportions, or by default in those of its photos."""
    monkeypatch.setattr("utils.diffusion.sampling.BATCH_SIZE", 2)
    path = save_small(tmp_path / "x.pkl")
    images, names, _ = read(path, "--steps", "1", "--species", "calendula", "astilbe")
    assert len(images) == 5 and names == 3 * ["calendula"] + 2 * ["astilbe"]
    torch.testing.assert_close(images * 255, (images * 255).round())  # as if saved
    torch.manual_seed(0)
    names = read(path, "--steps", "1", "--count", "400").species
    assert 160 < names.count("astilbe") < 240  # expected: half of them


def test_weights_without_species_are_sampled_without_labels(tmp_path):
    """`Diffuser.save` stores no image size and no species: 24 x 24, of any class."""
    small().save(tmp_path / "x.pkl")
    images, names, _ = read(tmp_path / "x.pkl", "--steps", "1", "--count", "2")
    assert images.shape == (2, 3, 24, 24) and names is None


def test_flags_that_do_not_fit_a_diffusion_model_are_refused(tmp_path):
    path = save_small(tmp_path / "x.pkl")
    with pytest.raises(UsageError, match="--prior: .*x.pkl has no codes"):
        read(path, "--prior", "gmm")
    with pytest.raises(UsageError, match="--species: .* no 'rose'; choose from ast"):
        read(path, "--species", "rose")


class AlwaysCalendula(torch.nn.Flatten):
    """An extractor of five pixels, which classifies every image as a calendula."""

    classes = ["rose", "astilbe", "calendula", "bellflower"]

    def forward(self, images):
        return super().forward(images)[:, :5]

    def classify(self, images):
        return torch.tensor([0.0, 1.0, 2.0, 1.0]).expand(len(images), -1)


def test_images_classified_as_requested(place, tmp_path, capsys, monkeypatch):
    """By the extractor's order of classes; photos are compared to their labels."""
    monkeypatch.setattr(evaluate, "find_extractor", lambda *_: AlwaysCalendula())
    path = save_small(tmp_path / "x.pkl")
    flags = ["--sampler", "heun", "--steps", "2", "--guidance", "1"]
    flags += ["--count", "300", "--species"]
    for names, proportion in ((["calendula"], 1), (["astilbe"], 0)):
        found = measured(place, capsys, path, *flags, *names)
        assert found[str(path)]["classified as requested"][0] == proportion
    found = measured(place, capsys, path, *flags, "astilbe", "calendula")
    assert found[str(path)]["classified as requested"][0] == 0.5
    # How the images were sampled is beside the metrics.
    facts = {"sampler": "heun", "steps": 2, "guidance": 1.0}
    facts["nfe"] = 3  # counted: one in the last step
    assert facts.items() <= found[str(path)].items()
    _, validation = create_flower_dataloaders(16, place / "photos", 8, 8)
    labels = validation.dataset.labels.tolist()
    proportion = found["validation photos"]["classified as requested"][0]
    assert proportion == pytest.approx(labels.count(2) / len(labels))


def test_a_classifier_that_lacks_a_species_gives_no_value():
    """Neither do images of which no species was requested."""
    images = torch.rand(3, 3, 4, 4)
    for names in (None, ["astilbe", "astilbe", "zinnia"]):
        found = evaluate.classified_as_requested(images, names, AlwaysCalendula())
        assert found.startswith("no species was requested")
    names = ["calendula", "calendula", "rose"]
    found = evaluate.classified_as_requested(images, names, AlwaysCalendula())
    assert found[0] == pytest.approx(2 / 3)


def test_sampling_facts(tmp_path):
    """Guidance evaluates the network twice within its interval."""
    path = save_small(tmp_path / "x.pkl")
    flags = ["--sampler", "euler", "--steps", "3", "--guidance", "2"]
    for low, nfe in (("0", 6), ("1", 5)):
        interval = "--guidance-interval", low, "1e5"
        facts = read(path, *flags, *interval).facts
        assert (facts["guidance"], facts["nfe"]) == (2, nfe)
        assert json.dumps(facts, allow_nan=False)


def test_sampling_facts_do_not_change_later_images(tmp_path, monkeypatch):
    """The network evaluations are counted with random numbers of their own."""
    path, after = save_small(tmp_path / "x.pkl"), []
    for facts in (evaluate.sampling_facts, lambda *_: {}):
        monkeypatch.setattr(evaluate, "sampling_facts", facts)
        torch.manual_seed(0)
        read(path, "--sampler", "ddpm", "--steps", "2")
        after.append(torch.rand(3))
    assert torch.equal(*after)

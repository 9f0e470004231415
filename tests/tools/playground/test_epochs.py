"""Samples of the diffusion model while it is trained."""

import json

import pytest
import torch

import diffusion
from tests.helpers.project import PROJECT
from tests.helpers.training import rows_of
from tools.playground import content, epochs
from utils.cli import UserError

SMALL = ["--channels", "16,32", "--epochs", "5", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(few_photos, tmp_path_factory):
    """A folder that diffusion.py made, and (epoch, loss, samples) of `stages`."""
    words = [*SMALL, "--data", str(few_photos), "--out"]
    whole, part = (tmp_path_factory.mktemp(name) for name in ("whole", "part"))
    diffusion.main([*words, str(whole)])
    seeds = ["--seed", "0", "--split-seed", "0"]
    args, settings = diffusion.parse([*words, str(part), *seeds])
    return whole, list(epochs.stages(args, settings, (1, 3)))


@pytest.mark.slow
def test_the_training_is_that_of_the_command(trained):
    """Equal losses, up to the last epoch that is asked for."""
    whole, found = trained
    losses = [float(row["train_loss"]) for row in rows_of(whole / "log/diffusion.csv")]
    assert [epoch for epoch, *_ in found] == [1, 2, 3]
    assert [loss for _, loss, _ in found] == losses[:3]


@pytest.mark.slow
def test_samples_are_drawn_after_the_chosen_epochs(trained):
    """From equal noise, with weights that differ; in [0, 1]."""
    samples = {epoch: images for epoch, _, images in trained[1]}
    assert samples[2] is None
    assert samples[1].shape == (len(content.history_labels()), 3, 24, 24)
    assert not torch.equal(samples[1], samples[3])
    assert all(s.min() >= 0 and s.max() <= 1 for s in (samples[1], samples[3]))


@pytest.mark.slow
def test_the_page_shows_them_before_the_last(trained, monkeypatch):
    """The early stages as recorded, then the best weights without and with a guide."""
    whole, found = trained
    stages = [
        {"epoch": epoch, "images": content.pixels(images)}
        for epoch, _, images in found
        if images is not None
    ]
    record = whole / "log" / content.EPOCHS_RECORD
    with pytest.raises(content.Missing, match=record.name):
        content.history(whole, content.drawn(12, 1)[0])
    record.write_text(json.dumps({"stages": stages}))
    facts = content.history(whole, content.drawn(12, 1)[0])
    kinds = [(stage["epoch"], stage["guided"]) for stage in facts["stages"]]
    assert kinds[:2] == [(1, False), (3, False)]
    assert [guided for _, guided in kinds[2:]] == [False, True]
    assert facts["stages"][0]["images"] == stages[0]["images"]
    assert facts["stages"][2]["images"] != facts["stages"][3]["images"]


def test_a_record_without_stages_is_named(tmp_path):
    path = tmp_path / "record.json"
    path.write_text('{"losses": []}')
    with pytest.raises(UserError, match="record.json is incomplete; make it again"):
        content.early_stages(path)


def test_the_committed_record_is_of_the_committed_training():
    """Its losses are those of the training's log, and its epochs those asked for."""
    record = json.loads((PROJECT / "log" / content.EPOCHS_RECORD).read_text("utf-8"))
    rows = rows_of(PROJECT / "log" / "diffusion.csv")
    losses = [float(row["train_loss"]) for row in rows[: max(epochs.EPOCHS)]]
    assert record["losses"] == pytest.approx(losses, rel=1e-3)
    assert [stage["epoch"] for stage in record["stages"]] == list(epochs.EPOCHS)

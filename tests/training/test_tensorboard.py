"""`--tensorboard DIR`: what is written, when, and what changes without the package."""

import sys
from types import ModuleType

import numpy as np
import pytest

from tests.helpers.commands import command, refused, script_of, train
from tests.helpers.outputs import same_weights
from tests.helpers.training import rows_of
from utils.checkpoint import weights_name

TRAININGS = ("VAE", "diffusion")


class Writer:
    """A SummaryWriter that keeps its calls, and which is open."""

    made = []

    def __init__(self, log_dir, purge_step=None):
        self.folder, self.purge_step, self.closed = log_dir, purge_step, False
        self.scalars, self.images = [], []
        self.made.append(self)

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, step, value))

    def add_image(self, tag, picture, step, dataformats):
        assert dataformats == "HWC" and not self.closed
        self.images.append((tag, step, picture))

    def flush(self):
        assert not self.closed

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    """The writers that commands make, in a TensorBoard that need not be installed."""
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setattr("diffusion.PICTURE_EVERY", 2)
    return Writer.made


@pytest.mark.parametrize("name", TRAININGS)
def test_losses_rates_and_pictures_are_those_of_the_csv(
    writers, tmp_path, photo_folder, name
):
    """Of epochs counted from 1, and the weights are those of a run without it."""
    flags = ("--epochs", 3, "--tensorboard", tmp_path / "board")
    assert train(name, tmp_path / "with", photo_folder, *flags).code == 0
    (writer,) = writers
    assert writer.folder == str(tmp_path / "board" / name)
    assert (writer.purge_step, writer.closed) == (1, True)
    tags = {"lr": "lr", "loss_per_photo/train": "train_per_photo"}
    tags["loss_per_photo/valid"] = "valid_per_photo"
    expected = [
        (tag, int(row["epoch"]), float(row[column]))
        for row in rows_of(tmp_path / "with" / "log" / f"{name}.csv")
        for tag, column in tags.items()
        if row[column]
    ]
    assert sorted(writer.scalars) == sorted(expected)
    assert {step for _, step, _ in expected} == {1, 2, 3}

    # Reconstructions at each check, samples every PICTURE_EVERY epochs.
    checks = {step for tag, step, _ in expected if tag == "loss_per_photo/valid"}
    autoencoder = name == "VAE"
    what, steps = ("reconstructions", checks) if autoencoder else ("samples", {2})
    assert {(tag, step) for tag, step, _ in writer.images} == {(what, s) for s in steps}
    for _, _, picture in writer.images:
        assert picture.ndim == 3 and picture.shape[2] == 3 and np.ptp(picture) > 0.1
    # The same training without it.
    assert train(name, tmp_path / "bare", photo_folder, "--epochs", 3).code == 0
    best = f"models/{weights_name(name)}"
    assert same_weights(tmp_path / "with" / best, tmp_path / "bare" / best)
    assert len(writers) == 1


def test_a_resumed_run_goes_on(writers, tmp_path, photo_folder):
    """It writes the new epochs only, and hides what came after its state."""
    board = ("--tensorboard", tmp_path / "board")
    constant = ("--scheduler", "constant")
    first = ("--epochs", 2, *constant, *board)
    assert train("AE", tmp_path, photo_folder, *first).code == 0
    more = ("--epochs", 5, "--resume", *constant, *board)
    assert train("AE", tmp_path, photo_folder, *more).code == 0
    one, two = writers
    assert one.folder == two.folder and (one.purge_step, two.purge_step) == (1, 3)
    assert {step for _, step, _ in one.scalars} == {1, 2}
    assert {step for _, step, _ in two.scalars} == {3, 4, 5}


def test_the_file_is_closed_where_a_training_fails(writers, tmp_path, photo_folder):
    flags = ("--lr", "1e30", "--epochs", "6", "--tensorboard", tmp_path / "board")
    assert train("MLPAE", tmp_path, photo_folder, *flags).code == 1
    assert all(writer.closed for writer in writers)


@pytest.mark.parametrize("name", TRAININGS)
def test_without_the_package_one_line_says_how_to_get_it(
    tmp_path, photo_folder, monkeypatch, name
):
    """Before any training; without the flag nothing is missed."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = ("--tensorboard", tmp_path / "board")
    result = train(name, tmp_path / "out", photo_folder, *board)
    refused(result, script_of(name), "--tensorboard", "pip install -e '.[tb]'")
    assert not (tmp_path / "board").exists()
    assert not list((tmp_path / "out").rglob("Best_*.p*[hl]"))
    assert train(name, tmp_path / "out", photo_folder).code == 0


def test_a_folder_that_is_a_file_is_named(writers, tmp_path, photo_folder):
    (tmp_path / "board").write_text("mine")
    place = ("--tensorboard", tmp_path / "board")
    result = train("AE", tmp_path, photo_folder, *place)
    refused(result, "train_script.py", str(tmp_path / "board"))
    assert writers == []


def test_other_commands_do_not_take_the_flag(tmp_path):
    result = command("visualization.py", "--tensorboard", tmp_path)
    refused(result, "visualization.py", "--tensorboard", code=2)


def csv_losses(folder):
    """Return [(epoch, training loss)] of the AE's CSV file, losses rounded."""
    rows = rows_of(folder / "log" / "AE.csv")
    return [(int(row["epoch"]), f"{float(row['train_per_photo']):.5g}") for row in rows]


def shown_losses(folder):
    """Return the same of what TensorBoard shows, which has pictures too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "board" / "AE")).Reload()
    assert events.Images("reconstructions")
    found = events.Scalars("loss_per_photo/train")
    return [(event.step, f"{event.value:.5g}") for event in found]


@pytest.mark.filterwarnings("ignore")  # of TensorBoard's own libraries
def test_the_real_package_reads_what_was_written(tmp_path, photo_folder):
    """A run that is resumed, and a new one, which hides all of the first."""
    pytest.importorskip("tensorboard")
    flags = ("--scheduler", "constant", "--tensorboard", tmp_path / "board")
    assert train("AE", tmp_path, photo_folder, "--epochs", 2, *flags).code == 0
    more = ("--epochs", 4, "--resume", *flags)
    assert train("AE", tmp_path, photo_folder, *more).code == 0
    assert shown_losses(tmp_path) == csv_losses(tmp_path) and csv_losses(tmp_path)[3:]
    new = ("--epochs", 2, "--seed", 1, *flags)
    assert train("AE", tmp_path, photo_folder, *new).code == 0
    assert shown_losses(tmp_path) == csv_losses(tmp_path) != csv_losses(tmp_path)[2:]

"""--resume, the lock, and what a new training replaces."""

import os
import re
import signal
from functools import partial

import pytest
from filelock import FileLock

import diffusion
from tests.helpers.commands import (
    command,
    error_line,
    files_below,
    refused,
    script_of,
    train,
)
from tests.helpers.forks import kill_at_rename, kill_at_step
from tests.helpers.outputs import same_weights, without_seconds
from tests.helpers.resuming import begin, differences, resume
from utils import train as train_module
from utils.checkpoint import last_name, load_checkpoint, weights_name, write
from utils.checkpoint.resume import locked, read_state
from utils.cli import UserError
from utils.cli.process import leave
from utils.files import temporary

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def resumed(name, out, data, *args):
    """Resume a training in this process -> Result."""
    common = ("--model", name, "--resume", "--data", data, "--out", out)
    return command(script_of(name), *common, *args)


# Resuming ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["MLPAE", pytest.param("AE", marks=pytest.mark.slow), "VAE", "diffusion"]
)
def test_a_killed_training_ends_with_the_same_bits(few_photos, tmp_path, name):
    """P5, C04: weights, state, log, pictures and priors; the log is printed whole."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert begin(name, whole, few_photos) == 0
    point = kill_at_rename(5, after=False) if name == "VAE" else kill_at_step(14)
    assert begin(name, killed, few_photos, before=point) == -signal.SIGKILL
    (killed / "out.txt").unlink()
    assert resume(name, killed, few_photos) == 0
    assert differences(name, whole, killed) == []
    printed = [(out / "out.txt").read_text() for out in (whole, killed)]
    assert printed[0] == printed[1]
    assert "resumed after " in (killed / "err.txt").read_text()


def test_a_finished_training_is_not_touched(photo_folder, tmp_path):
    """C15: exit 0, nothing to do, every file byte for byte the same."""
    assert train("VAE", tmp_path, photo_folder).code == 0
    before = {n: (tmp_path / n).read_bytes() for n in files_below(tmp_path)}
    result = resumed("VAE", tmp_path, photo_folder)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Epoch: 0, Train Loss: ")
    after = {n: (tmp_path / n).read_bytes() for n in files_below(tmp_path)}
    assert after == before


def test_nothing_to_resume(photo_folder, tmp_path):
    """C13: the path is named."""
    result = resumed("AE", tmp_path, photo_folder)
    path = tmp_path / "models" / last_name("AE")
    refused(result, "train_script.py", f"{path} is not there")


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--batch-size 3", "--batch-size: .* has 16, got 3"),
        ("--lr 0.5", "--lr: .* has 0.004, got 0.5"),
        ("--image-size 12", "--image-size: .* has 8, got 12"),
        ("--seed 4", "--seed: .* has 0, got 4"),
        ("--split-seed 4", "--split-seed: .* has 0, got 4"),
        ("--epochs 9", "--epochs: the onecycle schedule .* after 1 epochs, got 9"),
    ],
)
def test_another_setting_is_refused(photo_folder, tmp_path, flags, words):
    """C14: the option and both values."""
    assert train("AE", tmp_path, photo_folder).code == 0
    result = resumed("AE", tmp_path, photo_folder, *flags.split())
    line = refused(result, "train_script.py")
    assert re.search(words, line), line


def test_other_photos_are_refused(photo_folder, few_photos, tmp_path):
    assert train("AE", tmp_path, photo_folder).code == 0
    result = resumed("AE", tmp_path, few_photos)
    refused(result, "train_script.py", "--data", "30 photos", "64 photos")


def test_settings_that_are_not_given_are_the_runs(photo_folder, tmp_path):
    """And a finished run of a constant rate goes on."""
    flags = ("--scheduler", "constant", "--lr", "0.01", "--seed", "3", "--epochs", "2")
    for out, epochs in (("whole", "4"), ("parts", "2")):
        more = (*flags, "--epochs", epochs)
        assert train("MLPAE", tmp_path / out, photo_folder, *more).code == 0
    result = resumed("MLPAE", tmp_path / "parts", photo_folder, "--epochs", "4")
    assert result.code == 0, result.err
    best, log = f"models/{weights_name('MLPAE')}", "log/MLPAE.csv"
    assert same_weights(tmp_path / "whole" / best, tmp_path / "parts" / best)
    whole, parts = (without_seconds(tmp_path / n / log) for n in ("whole", "parts"))
    assert [row["train_loss"] for row in whole] == [row["train_loss"] for row in parts]
    fewer = resumed("MLPAE", tmp_path / "parts", photo_folder, "--epochs", "3")
    refused(fewer, "train_script.py", "4 epochs are done, got 3")


def test_a_budget_is_measured_once(photo_folder, tmp_path, monkeypatch):
    """A resumed run keeps the number of epochs that its probe had determined."""
    flags = ("--budget", "10m", "--patience", "1000000")
    monkeypatch.setattr("utils.experiment.seconds_per_step", lambda *_: 70.0)
    small = ("--image-size", "8", "--channels", "16,32", "--data", photo_folder)
    result = command("diffusion.py", *small, *flags, "--out", tmp_path)
    assert result.code == 0, result.err
    epochs = result.out.count("Epoch: ")

    def probe(*_):
        raise AssertionError("the probe ran again")

    monkeypatch.setattr(diffusion, "with_budget", probe)
    result = resumed("diffusion", tmp_path, photo_folder, *flags)
    assert result.code == 0 and result.out.count("Epoch: ") == epochs > 1


def test_a_state_of_another_model_is_refused(photo_folder, tmp_path):
    assert train("AE", tmp_path, photo_folder).code == 0
    assert train("MLPAE", tmp_path, photo_folder).code == 0
    models = tmp_path / "models"
    (models / last_name("MLPAE")).write_bytes((models / last_name("AE")).read_bytes())
    result = resumed("MLPAE", tmp_path, photo_folder)
    line = error_line(result.err, "train_script.py")
    assert result.code == 1 and "does not fit this training" in line


@pytest.mark.parametrize("content", [{}, {"metadata": {}}, [1], {"metadata": 3}])
def test_a_state_of_the_wrong_types_is_refused(photo_folder, tmp_path, content):
    path = tmp_path / "models" / last_name("AE")
    path.parent.mkdir()
    write(path, content)
    result = resumed("AE", tmp_path, photo_folder)
    refused(result, "train_script.py", str(path))
    assert "Error" not in result.err


@pytest.mark.parametrize(
    "name", ["VAE", pytest.param("diffusion", marks=pytest.mark.slow)]
)
def test_a_signal_in_a_validation(few_photos, tmp_path, name):
    """X03, P22: exit 130; the command that resumes is the last line, and works."""

    def interrupt_the_second_validation():
        validate, calls = train_module.validate, []

        def interrupted(*args):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return validate(*args)

        train_module.validate = interrupted

    code = begin(name, tmp_path, few_photos, before=interrupt_the_second_validation)
    said = (tmp_path / "err.txt").read_text()
    assert code == 130 and "Traceback" not in said
    assert said.splitlines()[-1].endswith(" --resume")
    assert resume(name, tmp_path, few_photos) == 0


# The lock ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AE", "diffusion"])
def test_a_second_training_is_refused(photo_folder, tmp_path, name):
    """P4, C11: in words; nothing is written."""
    out = tmp_path / "out"
    path = out / "models" / weights_name(name)
    path.parent.mkdir(parents=True)
    with FileLock(f"{path}.lock"):
        result = train(name, out, photo_folder)
    line = error_line(result.err, script_of(name))
    assert result.code == 1 and f"another training is writing {path}" in line
    assert files_below(out) == []
    assert train(name, out, photo_folder).code == 0


def test_a_refused_training_leaves_the_others_temporary_file(tmp_path):
    """C11: the first may be inside a save; a rest is removed under the lock."""
    path = tmp_path / "Best_AE.pth"
    with locked(path):
        temporary(path).write_bytes(b"half")
        with pytest.raises(UserError, match="another training is"), locked(path):
            pass
        assert temporary(path).read_bytes() == b"half"
    with locked(path):
        assert not temporary(path).exists()


def test_a_training_that_saved_no_state_names_no_command(
    photo_folder, tmp_path, monkeypatch
):
    """The state of an earlier run would resume that run."""
    assert train("AE", tmp_path, photo_folder).code == 0
    end = partial(leave, signal.SIGTERM)
    monkeypatch.setattr("train_script.start_training", lambda *_: end(None))
    result = command("train_script.py", "--data", photo_folder, "--out", tmp_path)
    assert (result.code, result.err) == (128 + signal.SIGTERM, "")


# Replacing ---------------------------------------------------------------------


def test_a_training_says_what_it_replaces_and_keeps_a_copy(
    photo_folder, tmp_path, caplog
):
    """Weights of a run that ended; those of an interrupted one replace no copy."""
    caplog.set_level("INFO", "utils")
    best, copy = (tmp_path / "models" / f"{k}_AE.pth" for k in ("Best", "Previous"))
    assert train("AE", tmp_path, photo_folder).code == 0 and not copy.exists()
    first, loss = best.read_bytes(), load_checkpoint(best)[1]["valid_per_photo"]
    assert train("AE", tmp_path, photo_folder, "--seed", "1").code == 0
    words = f"{best} (epoch 1, validation loss per photo {loss:.4g}) will be replaced"
    assert words in caplog.text and str(copy) in caplog.text
    assert copy.read_bytes() == first != best.read_bytes()

    # A run that is killed after its first epoch.
    killed = ("--epochs", 6, "--seed", 2)
    code = begin("AE", tmp_path, photo_folder, *killed, before=kill_at_step(4))
    assert code == -signal.SIGKILL
    second = copy.read_bytes()
    assert second != first
    caplog.clear()
    assert train("AE", tmp_path, photo_folder).code == 0
    assert "is of an interrupted run, and will be replaced" in caplog.text
    assert copy.read_bytes() == second


def test_a_link_to_weights_stays_a_link(photo_folder, tmp_path):
    """The file that it leads to is replaced."""
    best, elsewhere = tmp_path / "models" / "Best_AE.pth", tmp_path / "elsewhere.pth"
    best.parent.mkdir()
    elsewhere.write_bytes(b"")
    best.symlink_to(elsewhere)
    assert train("AE", tmp_path, photo_folder).code == 0
    assert best.is_symlink() and load_checkpoint(elsewhere)[1]["model"] == "AE"
    assert os.listdir(elsewhere.parent).count("elsewhere.pth.tmp") == 0


def test_the_state_is_saved_now_and_then(photo_folder, tmp_path, monkeypatch):
    """At the start, after the last epoch, and where 5 s have passed."""
    saved, write_state = [], "utils.train.write_state"
    monkeypatch.setattr(write_state, lambda *args: saved.append(len(args[3])))
    assert train("AE", tmp_path, photo_folder, "--epochs", "6").code == 0
    assert saved == [0, 6]
    monkeypatch.setattr("utils.train.SAVE_EVERY", 0.0)
    assert train("AE", tmp_path, photo_folder, "--epochs", "3").code == 0
    assert saved == [0, 6, 0, 1, 2, 3]


def test_a_state_holds_plain_types(photo_folder, tmp_path):
    assert train("diffusion", tmp_path, photo_folder).code == 0
    state = read_state(tmp_path / "models" / last_name("diffusion"))
    assert state.content["ended"] and len(state.content["rows"]) == 1
    assert state.metadata["settings"]["channels"] == (16, 32)

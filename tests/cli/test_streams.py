"""Closed streams, full disks, and what a command says of its files."""

import errno
import os
import subprocess
import sys

import pytest

from tests.helpers.commands import command, error_line, train, use
from tests.helpers.project import PROJECT
from utils import files
from utils.files import prepare_folder


def shell(text, **environment):
    """Run a line of bash in the project -> CompletedProcess."""
    env = os.environ | {"PY": sys.executable, **environment}
    call = ["bash", "-c", text]
    return subprocess.run(call, cwd=PROJECT, env=env, capture_output=True, check=False)


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="needs bash")
@pytest.mark.parametrize(
    "closed", [">&- 2>&- <&-", pytest.param("2>&-", marks=pytest.mark.slow)]
)
def test_a_closed_stream_is_no_error(tmp_path, closed):
    """And no error line goes to stdout; no file gets the stream's number."""
    call = "random_generation.py --model diffusion --count 2 --steps 2 --out"
    done = shell(f'"$PY" {call} "{tmp_path}" {closed}')
    assert (done.returncode, done.stdout) == (0, b""), done
    assert (tmp_path / "vis" / "random_images_diffusion.png").stat().st_size > 5000
    bad = shell(f'"$PY" visualization.py --weights "{tmp_path}/x.pth" {closed}')
    assert (bad.returncode, bad.stdout.replace(b"using device cpu\n", b"")) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("script", ["train_script.py", "random_generation.py"])
def test_help_that_cannot_be_written_is_an_error(script):
    """X07."""
    done = shell(f'"$PY" {script} --help > /dev/full')
    line = error_line(done.stderr.decode(), script)
    assert done.returncode == 1 and "No space left" in line


@pytest.mark.parametrize("place", ["log/AE.csv", "vis/loss_AE.png", "models/Best_AE"])
def test_a_full_disk_names_the_path(tmp_path, photo_folder, monkeypatch, place):
    """At the log, at a picture, at the weights."""

    def full(path, *args, **options):
        if place in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open(path, *args, **options)

    monkeypatch.setattr(files, "open", full, raising=False)
    result = train("AE", tmp_path, photo_folder)
    line = error_line(result.err, "train_script.py")
    assert result.code == 1 and str(tmp_path / place) in line
    assert "No space left" in line


def test_a_kill_leaves_no_probe(tmp_path, monkeypatch):
    """The file that proves that a folder can be written has no name."""
    seen, temporary = [], files.tempfile.TemporaryFile

    def watched(dir):
        file = temporary(dir=dir)
        seen.append(os.listdir(dir))
        return file

    monkeypatch.setattr(files.tempfile, "TemporaryFile", watched)
    prepare_folder(tmp_path / "new")
    assert seen == [[]]


@pytest.mark.parametrize("name", ["AE", "diffusion"])
def test_too_little_memory_names_the_setting(tmp_path, photo_folder, monkeypatch, name):
    """P21: with its value."""

    def fail(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("utils.train.validate", fail)
    result = train(name, tmp_path, photo_folder, "--batch-size", "7")
    assert result.code == 1
    assert "not enough memory for --batch-size 7" in result.err
    monkeypatch.setattr("random_generation.generate_batches", fail)
    monkeypatch.setattr("random_generation.visualize_sampling", fail)
    path = {"AE": "Best_AE.pth", "diffusion": "Best_diffusion.pkl"}[name]
    args = ("--model", name, "--weights", PROJECT / "models" / path, "--out", tmp_path)
    result = command("random_generation.py", *args, "--count", "9")
    assert result.code == 1 and "not enough memory for --count 9" in result.err


def test_commands_name_what_they_read_and_what_they_wrote(
    tmp_path, photo_folder, caplog
):
    """With --out, the weights there come first."""
    caplog.set_level("INFO", "utils")
    assert train("AE", tmp_path, photo_folder).code == 0
    weights = tmp_path / "models" / "Best_AE.pth"
    shown = ("--model", "AE", "--out", tmp_path)
    for script, more, pictures in (
        ("visualization.py", ["--data", photo_folder], ["train_AE", "valid_AE"]),
        ("random_generation.py", [], ["random_images_AE"]),
    ):
        caplog.clear()
        assert command(script, *shown, *more).code == 0
        wrote = [f"wrote {tmp_path / 'vis' / name}.png" for name in pictures]
        assert caplog.messages == [f"weights: {weights}", *wrote]
    # Without weights of its own it is the project's.
    caplog.clear()
    assert command("random_generation.py", "--out", tmp_path / "new").code == 0
    assert caplog.messages[0] == f"weights: {PROJECT / 'models' / 'Best_VAE.pth'}"
    saved = tmp_path / "x.npy"
    assert use("random_generation.py", "AE", tmp_path, "--save", saved).code == 0
    assert caplog.messages[-1] == f"wrote {saved}"

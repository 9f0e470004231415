"""Truths about the commands as processes: streams, signals, places, environment.

All run in a copy of the product, in a folder with a space and Chinese letters, that
holds no photo.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch
from PIL import Image

from tests.helpers.commands import command, error_line, files_below, warnings_of
from tests.helpers.outputs import (
    HOW_TO_GET_THEM,
    same_weights,
    small_picture,
    without_seconds,
)
from tests.helpers.project import GUARD, PROJECT, python, write_photos
from tests.helpers.sources import sources
from tests.helpers.trap import trap_in
from utils.checkpoint import load_checkpoint
from utils.checkpoint.resume import read_state

BARE = {  # all of the environment: no PATH, HOME, LANG or DISPLAY
    "MPLBACKEND": "TkAgg",
    "OMP_NUM_THREADS": str(torch.get_num_threads()),  # as in this process
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait leave the cores to others
    "PYTHONDONTWRITEBYTECODE": "1",
}
NO_WINDOW = {"MPLBACKEND": "module://no_window"}  # where TkAgg turns into Agg unasked
LOSS = r"\d+\.\d+(e-\d+)?"
SCRIPTS = ("train_script", "visualization", "random_generation", "diffusion")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A copy of the product with an empty flowers/; photos and `here` beside it.

    It draws 120 flowers in place of 2,400.
    """
    site = tmp_path_factory.mktemp("花 园") / "nn lab"
    (site / "flowers").mkdir(parents=True)
    (site.parent / "here").mkdir()
    for file in PROJECT.glob("*.py"):
        shutil.copy(file, site)
    unneeded = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "utils", site / "utils", ignore=unneeded)
    drawn = site / "utils" / "data" / "dataset.py"
    text = drawn.read_text("utf-8")
    assert text.count("SYNTHETIC_PER_SPECIES = 800") == 1
    drawn.write_text(text.replace("SPECIES = 800", "SPECIES = 40"))
    write_photos(site.parent / "photos", 10)
    (site.parent / "photos" / "astilbe").rename(site.parent / "photos" / "落新妇")
    return site


def start(site, script, *args, env=(), **streams):
    """Start a command of the copy from another folder, by its relative path."""
    return subprocess.Popen(
        [sys.executable, os.path.join("..", "nn lab", script), *map(str, args)],
        cwd=site.parent / "here",
        env={**BARE, **dict(env)},
        # As from a terminal, also where the tests run under nohup.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def finish(process):
    """Wait for its end -> (exit code, what is left of stdout, stderr)."""
    with process:
        try:
            out, err = process.communicate(timeout=GUARD)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, out, err.decode(errors="replace")  # may be gbk


# One epoch of everything -------------------------------------------------------


@pytest.fixture(scope="module")
def runs(site):
    """Run the four commands as the assignment says -> name -> (code, log, stderr).

    They are killed if they load torch.compile, which takes as long as torch itself;
    torchvision would load it too.
    """
    out, killed = site.parent / "out", site.parent / "trap"
    (out / "log").mkdir(parents=True)
    killed.mkdir()
    trap = trap_in(killed)("torch._dynamo")
    shown = ("--model", "AE", "--weights", out / "models" / "Best_AE.pth", "--out", out)
    lines = {
        "train_script": ("--model", "AE", "--epochs", 1, "--out", out),
        "visualization": shown,
        "random_generation": shown,
        # Without --out it writes next to the command.
        "diffusion": ("--epochs", 1, "--image-size", 8, "--channels", "16,32"),
    }

    def begin(name):
        env = {"PYTHONIOENCODING": "gbk"}
        if name != "train_script":
            env = {"PYTHONIOENCODING": "ascii", **NO_WINDOW}
        with open(out / "log" / f"{name}.out", "wb") as log:
            env |= trap
            return start(site, f"{name}.py", *lines[name], env=env, stdout=log)

    ended = {name: finish(begin(name)) for name in SCRIPTS}
    return {
        name: (code, (out / "log" / f"{name}.out").read_bytes(), err)
        for name, (code, _, err) in ended.items()
    }


@pytest.mark.parametrize(
    "name, log",
    [
        ("train_script", rf"Epoch: 0, Train Loss: {LOSS}, Valid Loss: {LOSS}\n"),
        ("visualization", r"using device cpu\n"),
        ("random_generation", ""),
        ("diffusion", r"using device cpu\nEpoch: 1/1, Train Loss: \d\.\d{4}\n"),
    ],
)
def test_the_log_is_clean(runs, name, log):
    """M9, M18, M26-M28, M40, P23, P24, X06, X08, X09, X11, I01, R1, R17, T5.

    The whole log is matched, so it has no bars, no return, no escape; ASCII only.
    """
    code, out, err = runs[name]
    assert code == 0, err
    assert re.fullmatch(log, out.decode("ascii"))
    warnings = warnings_of(err)
    assert all(line.startswith(f"{name}.py: ") for line in err.splitlines())
    assert len(warnings) == (name != "random_generation")
    for warning in warnings:
        assert warning.startswith(f"{name}.py: warning: no photos in ")
        assert HOW_TO_GET_THEM in warning


def test_the_files_are_where_they_belong_and_nowhere_else(site, runs):
    """M10, M13, M25, M28, M40, M41, P12: below --out, or next to the command."""
    pictures = ("loss_AE", "random_images_AE", "train_AE", "valid_AE")
    assert files_below(site.parent / "out") == sorted(
        ["log/AE.csv", "models/Best_AE.pth"]
        + ["models/Last_AE.pth", "models/Prior_AE.pth"]
        + [f"log/{name}.out" for name in SCRIPTS]
        + [f"vis/{name}.png" for name in pictures]
    )
    product = {path.relative_to(PROJECT).as_posix() for path in sources()}
    assert set(files_below(site)) - product == {
        "log/diffusion.csv",
        "models/Best_diffusion.pkl",
        "models/Guide_diffusion.pkl",
        "models/Last_diffusion.pth",
        "vis/loss_diffusion.png",
        "vis/random_images_diffusion.png",
    }
    assert list((site.parent / "here").iterdir()) == []


def test_the_pictures_are_small_and_in_whole_pixels(site, runs):
    """M13, M28, M41, T10: 24 pixels become 96, in blocks of 4; each below 1 MB."""
    vis = site.parent / "out" / "vis"
    for path in [*vis.iterdir(), *(site / "vis").iterdir()]:
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG" and min(image.size) > 50
        assert path.stat().st_size < 1e6
    for side in ("train", "valid"):
        assert small_picture(vis / f"{side}_AE.png", 4, left=25).shape == (51, 401, 3)
    assert small_picture(vis / "random_images_AE.png", 4).shape == (26, 251, 3)


def test_another_process_gives_the_same_bits(site, runs, tmp_path, monkeypatch):
    """P20, T12: the same command here, where hashes and addresses differ."""
    drawn = {"utils.data.dataset.SYNTHETIC_PER_SPECIES": 40}  # as the copy
    monkeypatch.setattr("tests.helpers.commands.QUICK", drawn)
    args = ("--model", "AE", "--epochs", 1, "--out", tmp_path)
    result = command("train_script.py", *args, project=site)
    assert result.code == 0, result.err
    assert result.out.encode() == runs["train_script"][1]
    best, log = "models/Best_AE.pth", "log/AE.csv"
    other = site.parent / "out"
    assert same_weights(tmp_path / best, other / best)
    assert without_seconds(tmp_path / log) == without_seconds(other / log)


def test_an_open_window_would_be_noticed():
    """P24: pyplot, the mutant, asks for the backend that is not there."""
    window = "from matplotlib import pyplot; pyplot.figure()"
    end = python("-c", window, env={**BARE, **NO_WINDOW})
    assert end.returncode == 1 and "no_window" in end.stderr


# Signals and streams -----------------------------------------------------------

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def endless(site, script, out):
    """Start a training that ends only by force."""
    small = ("--image-size", 8, "--batch-size", 4, "--patience", 10**9)
    photos = ("--data", site.parent / "photos", "--out", out)
    return start(site, script, "--epochs", 10**5, *small, *photos)


def wait_for_an_epoch(process):
    limit = threading.Timer(GUARD, process.kill)
    limit.start()
    line = next((x for x in process.stdout if x.startswith(b"Epoch: ")), None)
    limit.cancel()
    assert line, finish(process)


@pytest.mark.parametrize(
    "script, name",
    [
        ("train_script.py", "SIGINT"),
        ("diffusion.py", "SIGTERM"),
        pytest.param("train_script.py", "SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_a_signal_in_an_epoch(site, tmp_path, script, name):
    """P22, X01, X02, R13: though epochs are left; no trace; the best is whole."""
    process = endless(site, script, tmp_path)
    for _ in range(2):  # before the second one the first one's state is saved
        wait_for_an_epoch(process)
    process.send_signal(getattr(signal, name))
    code, _, err = finish(process)
    assert code == EXIT_CODES[name]
    resume, folder = err.splitlines()[-1], tmp_path / "models"
    assert resume.startswith(f"resume with: python '../nn lab/{script}' --epochs")
    assert resume.endswith(" --resume") and "Traceback" not in err
    best, last = (folder / name for name in files_below(folder))  # and no .tmp
    assert load_checkpoint(best)[1]["data"]["source"] == "photos"
    assert read_state(last).metadata["data"]["source"] == "photos"


@pytest.mark.parametrize("name", EXIT_CODES)
def test_a_signal_that_is_ignored_stays_so(name):
    """As of nohup, and of a shell's `&`: the terminal may be closed."""
    code = (
        "import signal, sys; number = getattr(signal, sys.argv[1]);"
        "signal.signal(number, signal.SIG_IGN);"
        "from utils.cli.process import begin; begin();"
        "print(signal.getsignal(number) is signal.SIG_IGN)"
    )
    assert python("-c", code, name).stdout == "True\n"


def test_the_reader_of_stdout_goes_away(site, tmp_path):
    """X05, P23: as `| head -1` does."""
    process = endless(site, "train_script.py", tmp_path)
    wait_for_an_epoch(process)
    process.stdout.close()
    process.stdout = None  # nothing left for communicate
    assert finish(process) == (141, None, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_stdout_is_full(site, tmp_path):
    """X07, P23: exit 1, one line, at the very first print."""
    with open("/dev/full", "wb") as full:
        process = start(site, "visualization.py", "--out", tmp_path, stdout=full)
        code, _, err = finish(process)
    line = error_line(err, "visualization.py")
    assert (code, err) == (1, line + "\n") and "No space left" in line

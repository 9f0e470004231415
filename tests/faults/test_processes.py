"""P22 to P25: signals, streams and wrong command lines."""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import pytest

import diffusion  # noqa: F401  (children find the scripts among the loaded modules)
import train_script  # noqa: F401
from tests.helpers import forks
from tests.helpers.commands import ERROR, TRAININGS, files_below, script_of
from tests.helpers.project import PROJECT, run_command
from utils.checkpoint import load_checkpoint, weights_name
from utils.cli import process

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def arguments(name, out, photos, *more):
    """Return the arguments of a small training that does not end by itself."""
    args = ["--model", name, "--image-size", 8, "--epochs", 10**6, "--batch-size", 16]
    args += ["--patience", 10**6, "--data", photos, "--out", out, *more]
    return args + (["--channels", "16,32"] if name == "diffusion" else [])


def complaints(name, out, pid, signum, seconds):
    """Signal a training after some seconds -> what is wrong with its end."""
    time.sleep(seconds)
    os.kill(pid, signum)
    try:
        code = forks.wait(pid, 5)
    except TimeoutError:
        return ["still there after 5 s"]
    said = (out / "err.txt").read_text()
    found = [] if code == SIGNALS[signum] else [f"exit code {code}"]
    found += ["a trace"] if "Traceback" in said or "not handled" in said else []
    found += ["orphans"] if forks.orphans(pid) else []
    found += [name for name in files_below(out) if name.endswith(".tmp")]
    best = out / "models" / weights_name(name)
    if best.exists():
        load_checkpoint(best)
    last = said.splitlines()[-1:]
    if any((out / "models").glob("Last_*")) and "--resume" not in "".join(last):
        found.append(f"no command that resumes: {last}")
    return found


def trials(count, photos, root, seed):
    """Signal trainings at random times -> {trial: what is wrong}."""
    rng, wrong = random.Random(seed), {}
    for trial in range(count):
        name, signum = TRAININGS[trial % 4], list(SIGNALS)[trial // 4 % 3]
        out = root / f"{trial}"
        out.mkdir()
        args = arguments(name, out, photos)
        # Pictures are drawn every second epoch, so that signals arrive there too.
        patches = {**forks.EVERY_EPOCH, "diffusion.PICTURE_EVERY": 2}
        pid = forks.start(script_of(name), *args, folder=out, patches=patches)
        # After the handlers are set, which a fork does later than a process.
        found = complaints(name, out, pid, signum, 0.1 + rng.uniform(0, 2))
        if found:
            wrong[trial, name, signum.name] = found
        shutil.rmtree(out)
    return wrong


def test_signals(few_photos, tmp_path, report):
    """P22, X01 to X03: 160 at random times, validation and pictures included."""
    wrong = trials(160, few_photos, tmp_path, seed=0)
    what = "SIGINT, SIGTERM, SIGHUP: right code within 5 s, nothing left"
    report.add("P22", what, 160, len(wrong))
    assert wrong == {}


def test_two_signals(few_photos, tmp_path, report):
    """X04: 0.2 s apart; the second has its default action."""
    wrong = []
    for trial in range(8):
        name = TRAININGS[trial % 4]
        out = tmp_path / str(trial)
        out.mkdir()
        args = arguments(name, out, few_photos)
        pid = forks.start(script_of(name), *args, folder=out)
        time.sleep(1)
        os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        code = forks.wait(pid, 5)
        wrong += [(trial, code)] if code not in (130, -signal.SIGINT) else []
    report.add("P22", "two SIGINTs, 0.2 s apart", 8, len(wrong))
    assert wrong == []


def test_mutant_a_signal_is_swallowed(few_photos, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "leave", lambda *_: None)
    monkeypatch.setitem(SIGNALS, signal.SIGINT, 130)
    args = arguments("AE", tmp_path, few_photos)
    pid = forks.start("train_script.py", *args, folder=tmp_path)
    assert complaints("AE", tmp_path, pid, signal.SIGINT, 1) == [
        "still there after 5 s"
    ]


BAD = {
    "--epochs": ["-3", "0", "1.5", "", "abc", "1e3"],
    "--lr": ["nan", "inf", "0", "-1", "1e999", "x"],
    "--batch-size": ["0", "-1", "2.5", "many"],
    "--model": ["RNN", "ae", "", "VAE2"],
    "--patience": ["-1", "0", "x"],
    "--seed": ["-1", "4294967296", "x", "1.0"],
    "--image-size": ["0", "7", "1000000000", "24x24"],
    "--weight-decay": ["-1", "nan"],
    "--ema": ["1", "-0.1"],
    "--device": ["tpu", ""],
    "--optimizer": ["lion", ""],
    "--scheduler": ["cosine"],
}
MORE = [
    ("train_script.py", "--ep", "3"),
    ("train_script.py", "--unknown"),
    ("train_script.py", "AE"),
    ("train_script.py", "--model", "AE", "--beta", "2"),
    ("train_script.py", "--model", "AE", "--image-size", "10"),
    ("diffusion.py", "--budget", "10"),
    ("diffusion.py", "--budget", "10m", "--epochs", "3"),
    ("diffusion.py", "--channels", "0"),
    ("diffusion.py", "--objective", "mean"),
    ("diffusion.py", "--p-mean", "1", "--density", "kit"),
    ("random_generation.py", "--count", "0"),
    ("random_generation.py", "--count", "5000"),
    ("random_generation.py", "--model", "diffusion", "--prior", "gmm"),
    ("random_generation.py", "--model", "VAE", "--steps", "5"),
    ("random_generation.py", "--guidance", "-1"),
    ("random_generation.py", "--sampler", "magic"),
    ("visualization.py", "--model", "diffusion"),
    ("visualization.py", "--seed", "x"),
    ("visualization.py", "--weights"),
    ("diffusion.py", "--species"),
]


def test_wrong_command_lines(tmp_path, report):
    """P25, X12 to X20: exit 2 in under a second, one line, nothing written."""
    calls = [("train_script.py", flag, v) for flag, vs in BAD.items() for v in vs]
    wrong, slowest = [], 0.0
    for script, *args in [*calls, *MORE]:
        out, seconds = tmp_path / "new", []
        for _ in range(3):  # the best of three, as a start may be slow
            start = time.monotonic()
            done = run_command(script, *args, "--out", out)
            seconds.append(time.monotonic() - start)
            if seconds[-1] < 1:
                break
        right = done.returncode == 2 and done.stdout == "" and not out.exists()
        right = right and ERROR.fullmatch(done.stderr.removesuffix("\n"))
        slowest = max(slowest, min(seconds))
        wrong += [] if right and min(seconds) < 1 else [(script, args, done, seconds)]
    number, remarks = len(calls) + len(MORE), f"the slowest {slowest:.2f} s"
    report.add("P25", "wrong command lines", number, len(wrong), remarks)
    assert wrong == [] and number >= 60


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_no_network(few_photos, tmp_path, report):
    """Each command works without one: `unshare -n`."""
    out, wrong = tmp_path / "out", []
    small = ["--image-size", "8", "--epochs", "1", "--data", few_photos, "--out", out]
    shown = ["--out", out, "--model", "AE"]
    commands = [
        ["train_script.py", "--model", "AE", *small],
        ["diffusion.py", "--channels", "16,32", *small],
        ["visualization.py", "--data", few_photos, *shown],
        ["random_generation.py", *shown],
    ]
    for script, *args in commands:
        call = ["unshare", "-n", "python", PROJECT / script, *args]
        done = subprocess.run(list(map(str, call)), capture_output=True, check=False)
        wrong += [done.stderr] if done.returncode else []
    report.add("P12", "commands without a network, by unshare -n", 4, len(wrong))
    assert wrong == []

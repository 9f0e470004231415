"""Trainings that are killed and resumed."""

import torch

import diffusion  # noqa: F401  (children find the scripts among the loaded modules)
import train_script  # noqa: F401
from tests.helpers.commands import script_of
from tests.helpers.forks import start, wait
from tests.helpers.outputs import pixels, without_seconds
from utils.checkpoint import last_name, weights_name
from utils.checkpoint.resume import read_state

SMALL = ("--image-size", 8, "--batch-size", 16, "--epochs", 6)


def begin(name, out, photos, *more, before=None):
    """Run a training of six epochs in a child -> its exit code."""
    out.mkdir(parents=True, exist_ok=True)
    args = ["--model", name, *SMALL, "--data", photos, "--out", out, *more]
    args += ["--channels", "16,32"] if name == "diffusion" else []
    return wait(start(script_of(name), *args, folder=out, before=before))


def resume(name, out, photos, *more, before=None):
    """Resume in a child -> its exit code; without a state, train from the start."""
    if not (out / "models" / last_name(name)).exists():
        return begin(name, out, photos, before=before)
    args = ["--model", name, "--resume", "--data", photos, "--out", out, *more]
    return wait(start(script_of(name), *args, folder=out, before=before))


def equal(one, other):
    """Return whether two contents of a state file are equal, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        keys = one.keys() - {"seconds"}
        return keys == other.keys() - {"seconds"} and all(
            equal(one[key], other[key]) for key in keys
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def differences(name, one, other):
    """Return the kinds of files in which two finished trainings differ."""
    second = "guide" if name == "diffusion" else "prior"
    files = {"best": weights_name(name), second: weights_name(f"{second}_{name}")}
    found = [
        kind
        for kind, file in files.items()
        if (one / "models" / file).read_bytes()
        != (other / "models" / file).read_bytes()
    ]
    last = f"models/{last_name(name)}"
    if not equal(read_state(one / last).content, read_state(other / last).content):
        found.append("last")
    log = f"log/{name}.csv"
    if without_seconds(one / log) != without_seconds(other / log):
        found.append("csv")
    for kind in ("loss", "random_images"):
        picture = f"vis/{kind}_{name}.png"
        if (one / picture).exists() and not (
            pixels(one / picture) == pixels(other / picture)
        ).all():
            found.append(kind)
    return found

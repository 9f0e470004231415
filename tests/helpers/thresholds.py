"""Trainings of whole commands on the real photos."""

import pytest

from tests.helpers.project import run_command

pytestmark = pytest.mark.thresholds
trained = {}  # command line -> its log and --out, so that no training runs twice


def train(folder, photos, *arguments):
    """Run train_script.py once per command line -> [(train, valid), ...], its --out."""
    if arguments not in trained:
        out = folder / "-".join(arguments).strip("-")
        done = run_command(
            "train_script.py", *arguments, "--data", photos, "--out", out, timeout=1800
        )
        assert done.returncode == 0, done.stderr
        (out / "log" / "train.out").write_text(done.stdout)
        trained[arguments] = [parse(line) for line in done.stdout.splitlines()], out
    return trained[arguments]


def parse(line):
    """`Epoch: 7, Train Loss: 0.1, Valid Loss: 0.2` -> (0.1, 0.2)."""
    _, train_loss, valid_loss = (part.split(": ")[1] for part in line.split(", "))
    return float(train_loss), float(valid_loss)

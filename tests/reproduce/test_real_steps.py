"""The real steps of part 1 on drawn photos, for a few epochs."""

import os
import signal
import time

import pytest

from tests.helpers.forks import wait
from tests.helpers.outputs import without_seconds
from tests.helpers.project import PROJECT, write_photos
from tests.helpers.reproduce import fork
from tools.reproduce import PARTS
from tools.reproduce.steps import chosen_steps, read_steps

GUARD = 1200  # seconds, against a test that hangs
MADE = ("models/Best_MLPAE.pkl", "models/Prior_MLPAE.pth", "log/train_MLPAE.out")
MADE += ("vis/train_MLPAE.png", "vis/valid_MLPAE.png", "vis/loss_MLPAE.png")


def write_table(path, epochs):
    """Write the real steps of part 1 as a table, with fewer epochs."""
    rows = []
    for step in chosen_steps(read_steps(), PARTS[:1]):
        argv = [*step.argv, *(["--epochs", str(epochs)] if step.trains else [])]
        made = [name for name in step.makes if name != step.stdout]
        rows.append(
            f'[[steps]]\nname = "{step.name}"\nparts = [1]\nargv = {argv}\n'
            f"makes = {made}\nneeds = {[*step.needs]}\ntakes = {[*step.takes]}\n"
            f'photos = "{step.photos}"\n'
            f'stdout = "{step.stdout}"\ntrains = "{step.trains}"\n'
        )
    path.write_text("\n".join(rows))
    return path


@pytest.mark.slow
def test_part_one_is_made_and_goes_on_after_a_kill(tmp_path):
    """Two calls, one of which is killed, make the same files."""
    photos = write_photos(tmp_path / "photos", 40)
    table = write_table(tmp_path / "steps.toml", 3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for out in (whole, killed):
        out.mkdir()

    def begin(out):
        args = ["--data", str(photos), "--out", str(out), "--parts", "1"]
        return fork(out, args, project=PROJECT, table=table)

    assert wait(begin(whole), GUARD) == 0
    # Killed after its first epoch.
    call, log = begin(killed), killed / "log" / "train_MLPAE.out"
    while not log.is_file() or "Epoch: 0," not in log.read_text():
        assert os.waitpid(call, os.WNOHANG) == (0, 0)
        time.sleep(0.01)
    os.kill(call, signal.SIGKILL)
    wait(call, GUARD)
    assert wait(begin(killed), GUARD) == 0, (killed / "err.txt").read_text()
    assert "train_MLPAE continues" in (killed / "out.txt").read_text()

    # The same files, and nothing is left to do.
    for name in MADE:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    logs = [out / "log" / "MLPAE.csv" for out in (whole, killed)]
    assert without_seconds(logs[0]) == without_seconds(logs[1])
    assert wait(begin(killed), GUARD) == 0
    assert "nothing to do: all 2 steps" in (killed / "out.txt").read_text()

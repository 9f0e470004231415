"""P26, D01, D02, D07: workers of torchrun that are killed, and signals to it."""

import os
import random
import re
import signal
import time

import pytest

from tests.helpers.torchrun import HERE, Torchrun, alive, old_or_new, training

TRIALS = 10  # of each rank
MODELS = ("MLPAE", "diffusion")


def kill(rank, trial, photos, folder):
    """Kill a worker of two -> what is wrong with the end of all, and the seconds."""
    name, out, found = MODELS[trial % 2], folder / "out", []
    command = training(name, out, photos)
    with Torchrun(folder / "said", (*HERE, 2), *command) as run:
        run.until(r"Epoch: [2-9]")
        time.sleep(random.Random(10 * trial + rank).uniform(0, 1))
        workers, killed = run.workers(), time.monotonic()
        assert sorted(workers) == [0, 1]
        os.kill(workers[rank], signal.SIGKILL)
        code, seconds = run.wait(), time.monotonic() - killed
        found += [] if code else ["exit code 0"]
        found += [] if seconds < 60 else [f"still there after {seconds:.0f} s"]
        found += ["orphans"] if any(map(alive, workers.values())) else []
        said = "".join(run.said("stderr").values())
        found += ["a trace"] if "Traceback" in said else []
    old_or_new(out, name)
    # What is left can be resumed.
    command = training(name, out, photos, "--resume")
    with Torchrun(folder / "again", (*HERE, 2), *command) as run:
        run.until(r"Epoch: [3-9]")
    return found, seconds


def test_a_killed_worker_ends_all(few_photos, tmp_path, report):
    """D01, D02: not 0 within 60 s, no orphan, old or new; 20 of 20."""
    wrong, times = {}, []
    for rank in (0, 1):
        for trial in range(TRIALS):
            folder = tmp_path / f"{rank}_{trial}"
            found, seconds = kill(rank, trial, few_photos, folder)
            times.append(seconds)
            if found:
                wrong[rank, trial] = found
    what, slowest = "a killed worker ends both, rank 0 and 1", max(times)
    report.add(
        "P26", what, len(times), len(wrong), f"the slowest after {slowest:.0f} s"
    )
    assert wrong == {}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun(few_photos, tmp_path, report, name, signum):
    """D07: ends within 40 s, no orphan, no trace; the command that resumes."""
    out = tmp_path / "out"
    command = training(name, out, few_photos)
    with Torchrun(tmp_path / "said", (*HERE, 2), *command) as run:
        run.until(r"Epoch: [2-9]")
        workers = run.workers()
        os.kill(run.process.pid, signum)
        assert run.wait(40) != 0
        assert not any(map(alive, workers.values()))
        first, second = (run.said("stderr")[rank] for rank in (0, 1))
    assert second == "" and "Traceback" not in first
    assert re.search(r"resume with: torchrun --nproc_per_node 2 .* --resume$", first)
    old_or_new(out, name)
    report.add("P26", f"{signum.name} to torchrun, {name}", 1, 0)

"""P26: torchrun itself, what its workers write, and two hosts."""

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from tests.helpers.project import run_command
from tests.helpers.torchrun import HERE, Torchrun, alive, old_or_new, training
from tests.helpers.training import rows_of

pytestmark = pytest.mark.slow
NAME = "MLPAE"
# Anything that changes a file, by strace's names of system calls.
CHANGES = re.compile(r"^\d+ +(rename|unlink|mkdir|openat\(.*O_(WRONLY|RDWR|CREAT))")


def test_only_rank_0_writes(few_photos, tmp_path):
    """P26: strace of three workers; rank 0 alone changes a file in the folders."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    out, folder = tmp_path / "out", tmp_path / "said"
    traced = f"exec strace -f -qq -o {tmp_path}/trace.$RANK -e trace=%file python $0 $@"
    command = training("diffusion", out, few_photos, epochs=3)
    with Torchrun(folder, (*HERE, 3), *command, command=("bash", "-c", traced)) as run:
        assert run.wait() == 0, run.launcher()
        assert [bool(text) for _, text in sorted(run.said("stdout").items())] == [
            True,
            False,
            False,
        ]
    changes = {
        rank: [
            line
            for line in (tmp_path / f"trace.{rank}").read_text().splitlines()
            if CHANGES.search(line) and str(out) in line
        ]
        for rank in range(3)
    }
    assert any("models" in line for line in changes[0])
    assert changes[1] == changes[2] == []


# Two hosts -----------------------------------------------------------------------


@contextmanager
def two_hosts():
    """Yield the names of two network namespaces that are joined by a cable."""
    names = [f"lab{os.getpid()}{letter}" for letter in "ab"]

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "va", "netns", names[0], "type", "veth", "peer", "vb",
           "netns", names[1])  # fmt: skip
        for number, (name, device) in enumerate(zip(names, ("va", "vb"), strict=True)):
            address = f"10.99.0.{number + 1}/24"
            ip("-n", name, "addr", "add", address, "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs network namespaces: {error}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def on_both(hosts, folder, *command):
    """Return the two launchers of a training on two hosts of one process each."""
    options = "--nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --rdzv_id lab"
    options += " --rdzv_endpoint 10.99.0.1:29499"
    runs = []
    for number, (host, device) in enumerate(zip(hosts, ("va", "vb"), strict=True)):
        before = ["ip", "netns", "exec", host, "env", f"GLOO_SOCKET_IFNAME={device}"]
        local = ["--local_addr", f"10.99.0.{number + 1}"]
        # No name leads to these addresses, by which torchrun would know its host.
        local += ["--rdzv_conf", f"is_host={number == 0}"]
        options_here = (*options.split(), *local)
        place = folder / host
        runs.append(Torchrun(place, options_here, *command, before=before))
    return runs


def test_two_hosts(few_photos, tmp_path):
    """P26: the loss curve of one process."""
    with two_hosts() as hosts:
        out = tmp_path / "out"
        runs = on_both(hosts, tmp_path, *training(NAME, out, few_photos, epochs=6))
        with runs[0], runs[1]:
            for run in runs:
                assert run.wait() == 0, run.launcher()
            said = "".join(t for run in runs for t in run.said("stdout").values())
        assert said.count("Epoch: ") == 6

    # One process has the same curve.
    args = training(NAME, tmp_path / "one", few_photos, epochs=6)
    assert run_command(*args).returncode == 0
    curves = [
        [float(row["train_loss"]) for row in rows_of(p / "log" / f"{NAME}.csv")]
        for p in (out, tmp_path / "one")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_a_killed_process_ends_that_of_the_other_host(few_photos, tmp_path):
    """P26, D01: within 60 s."""
    with two_hosts() as hosts:
        command = training(NAME, tmp_path / "out", few_photos)
        runs = on_both(hosts, tmp_path, *command)
        with runs[0], runs[1]:
            while not any(
                "Epoch: 2" in t for r in runs for t in r.said("stdout").values()
            ):
                assert runs[0].process.poll() is None, runs[0].launcher()
                time.sleep(0.05)
            workers = [*runs[0].workers().values(), *runs[1].workers().values()]
            os.kill(workers[1], signal.SIGKILL)
            assert all(run.wait(60) != 0 for run in runs)
            assert not [number for number in workers if alive(number)]
    old_or_new(tmp_path / "out", NAME)

"""Truths about the first second of a command, before and while torch loads."""

import os
import platform
import signal

import pytest

from tests.helpers.commands import Result, refused
from tests.helpers.project import python, run_command
from tests.helpers.trap import trap_in
from utils.cli import process

TRAININGS = ("train_script.py", "diffusion.py")
SCRIPTS = ("train_script", "visualization", "random_generation", "diffusion")


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    """The environment in which a process signals itself as it imports a module."""
    return trap_in(tmp_path_factory.mktemp("trap"))


def run(script, *args, env):
    """Run one of the commands in that environment -> Result."""
    end = run_command(script, *args, env={"PYTHONDONTWRITEBYTECODE": "1", **env})
    return Result(end.returncode, end.stdout, end.stderr)


@pytest.mark.parametrize(
    "script, args, words",
    [
        ("train_script.py", "--lr nan", "'nan'"),
        ("train_script.py", "--model MLPAE --optimizer adam", "'adam'"),
        ("diffusion.py", "--epochs 0", "'0'"),
        ("train_script.py", "--model AE --image-size 10", "multiple of 4"),
        ("train_script.py", "--model AE --beta 2", "AE has no KL"),
        ("diffusion.py", "--budget 10", "'10'"),
        ("diffusion.py", "--budget 10m --epochs 3", "omit --epochs"),
        ("diffusion.py", "--density kit --p-mean 1", "no effect with --density kit"),
        ("random_generation.py", "--model VAE --steps 5", "VAE is no diffusion model"),
        ("random_generation.py", "--model diffusion --prior gmm", "has no codes"),
    ],
)
def test_a_wrong_command_ends_before_torch_loads(trap, tmp_path, script, args, words):
    """X12-X20, P25, STYLE rule 10: exit 2, nothing created; `-m faults` takes times."""
    new = tmp_path / "new"
    result = run(script, *args.split(), "--out", new, env=trap())
    line = refused(result, script, words, code=2)
    assert result.err == line + "\n" and not new.exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_torch(trap, script):
    """X21."""
    code, out, err = run(f"{script}.py", "--help", env=trap())
    assert (code, err) == (0, "") and "--seed" in out


@pytest.mark.parametrize("script", TRAININGS)
def test_the_trap_catches_a_command_that_loads_torch(trap, tmp_path, script):
    assert run(script, "--out", tmp_path, env=trap())[0] == -signal.SIGKILL


@pytest.mark.parametrize("module", ["torch", "torch.nn", "numpy.linalg"])
@pytest.mark.parametrize("name, expected", [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("script", TRAININGS)
def test_a_signal_while_torch_loads(trap, tmp_path, script, name, expected, module):
    """P22, X01, X02: ended without a word, before any file.

    Torch imports numpy from C, and would pass over an exit in there.
    """
    out = tmp_path / "out"
    few = ("--epochs", 1, "--image-size", 8, "--data", tmp_path)  # where it goes on
    env = trap(module, getattr(signal, name))
    assert run(script, *few, "--out", out, env=env) == (expected, "", "")
    assert not out.exists()


LATE = """
import atexit, os, signal, sys
from utils.cli import run
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
run(lambda: print("done"))
"""


def test_a_signal_while_the_interpreter_ends():
    """P22: the end of a command that has done its work has no trace."""
    end = python("-c", LATE)
    assert (end.returncode, end.stdout, end.stderr) == (-signal.SIGTERM, "done\n", "")


TOUCH = """
import resource, sys
import torch
from utils.device import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(10):  # until the heap is large enough
    torch.ones(4, 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(4, 2**20)  # 16 MB, 4,096 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again():
    """Left alone, glibc's pages are mapped and zeroed anew for each large tensor."""
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    ends = [python("-c", TOUCH, config, env=env) for config in ("keep", "leave")]
    assert int(ends[0].stdout) < 1000 < 20_000 < int(ends[1].stdout)


@pytest.mark.parametrize(
    "idle, expected", [(200, 0.0), (100, 1.0), (0, 2.0), (None, 0.0)]
)
def test_busy_cores_are_those_of_the_processors_times(
    tmp_path, monkeypatch, idle, expected
):
    """Of 200 ticks on two cores; unknown where the system does not count them."""
    stat = tmp_path / "stat"
    if idle is not None:
        stat.write_text("cpu 10 0 10 500 5 0 0 0 0 0\n")
    monkeypatch.setattr(process, "PROC_STAT", stat)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def pass_time(_seconds):
        if idle is not None:
            stat.write_text(f"cpu {210 - idle} 0 10 {500 + idle} 5 0 0 0 0 0\n")

    monkeypatch.setattr(process.time, "sleep", pass_time)
    assert process.busy_cores() == expected


@pytest.mark.parametrize(
    "busy, given, expected",
    [(1.0, None, "passive"), (0.1, None, None), (1.0, "active", "active")],
)
def test_threads_wait_asleep_beside_a_busy_program(monkeypatch, busy, given, expected):
    """Spinning threads take its core, or it theirs; the user's own setting wins."""
    monkeypatch.setattr(process, "busy_cores", lambda: busy)
    monkeypatch.setattr(process, "begin", lambda: None)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    process.guard(lambda: None)
    assert os.environ.get("OMP_WAIT_POLICY") == expected

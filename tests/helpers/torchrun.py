"""torchrun itself: its workers, what they say, and how they end."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.helpers.commands import script_of
from tests.helpers.project import GUARD, PROJECT
from utils.checkpoint import last_name, load_checkpoint, weights_name
from utils.checkpoint.resume import read_state

FOREVER = 10**6  # epochs
HERE = ("--standalone", "--nproc_per_node")  # options, before a number


class Torchrun:
    """A training by torchrun, each of whose workers writes files of its own.

    before: words before the launcher's, such as those of another namespace; options:
    of the launcher; command: of the worker, by default Python.
    """

    def __init__(self, folder, options, script, *args, before=(), command=()):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        words = [*before, sys.executable, "-m", "torch.distributed.run", *options]
        words += ["--log_dir", folder, "--redirects", 3]
        words += [*(["--no_python", *command] if command else [])]
        words += [PROJECT / script, *args]
        with open(folder / "launcher.txt", "wb") as file:
            self.process = subprocess.Popen(
                list(map(str, words)),
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def said(self, name):
        """Return {rank on its host: what it said on a stream: stdout or stderr}."""
        paths = self.folder.glob(f"*/attempt_0/*/{name}.log")
        return {int(path.parent.name): path.read_text() for path in paths}

    def until(self, pattern, stream="stdout"):
        """Wait until a worker has said something, or the launcher has ended."""
        end = time.monotonic() + GUARD
        while not re.search(pattern, "".join(self.said(stream).values())):
            assert self.process.poll() is None, self.launcher()
            assert time.monotonic() < end
            time.sleep(0.02)

    def launcher(self):
        """Return what the launcher said."""
        return (self.folder / "launcher.txt").read_text()

    def workers(self):
        """Return the workers' process numbers: {rank: number}."""
        found = {}
        for number in descendants(self.process.pid):
            with suppress(OSError):
                entries = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
                ranks = [e[5:] for e in entries if e.startswith(b"RANK=")]
                if ranks:
                    found.setdefault(int(ranks[0]), number)
        return found

    def wait(self, seconds=GUARD):
        """Wait for the end of the launcher -> its exit code."""
        return self.process.wait(seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        left = [self.process.pid, *descendants(self.process.pid)]
        for number in left if self.process.poll() is None else []:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait(GUARD)


def parent_of(number):
    """Return the number of a process's parent."""
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def descendants(root):
    """Return the numbers of all processes below one, parents first."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                children.setdefault(parent_of(entry.name), []).append(int(entry.name))
    found = [root]
    for number in found:
        found += children.get(number, [])
    return found[1:]


def alive(number):
    """Return whether a process is there and no zombie."""
    with suppress(OSError):
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def training(name, out, photos, *more, epochs=FOREVER):
    """Return the arguments of a training of small photos on the CPU."""
    args = ["--model", name, "--image-size", 8, "--batch-size", 16, "--data", photos]
    args += ["--epochs", epochs, "--patience", FOREVER, "--device", "cpu"]
    args += ["--channels", "16,32"] if name == "diffusion" else []
    return [script_of(name), *args, "--out", out, *more]


def old_or_new(out, name):
    """Assert that weights and state can be read, and that nothing else is left."""
    load_checkpoint(out / "models" / weights_name(name))
    read_state(out / "models" / last_name(name))
    assert not list((out / "models").glob("*.tmp"))

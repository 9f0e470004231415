"""Run a step as a process: its output, its signals, and how it ends."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys

from filelock import FileLock, Timeout

from utils.cli import UserError
from utils.files import prepare_folder

LOG = "log/reproduce.log"  # what the steps write on stderr
WAIT = 60  # seconds for the lock of a training whose caller was killed
PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent():
    """Let the process that calls this get SIGTERM when its parent is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def options():
    """Return the arguments of Popen that decide which signals reach a step."""
    # In a group of its own it does not get a terminal's Ctrl-C, which is passed on.
    if os.name != "posix":
        return {}
    return {"process_group": 0, "preexec_fn": LIBC and end_with_parent}


def run_step(step, words, place, on_line):
    """Run python + words in the folder --out; on_line(line): called for its stderr.

    Raises:
        UserError: if the step fails.
        SystemExit: at a signal, after the step has ended.
    """
    # Its stdout goes where a user would redirect it, or into the log with its stderr.
    prepare_folder(place.out / "log")
    with open(place.out / LOG, "a", encoding="utf-8") as log:
        print(f"$ {shlex.join(['python', *words])}", file=log, flush=True)
        if not step.stdout:
            return wait_for(step, words, place, log, log, on_line)
        prepare_folder((place.out / step.stdout).parent)
        with open(place.out / step.stdout, "wb") as stdout:
            return wait_for(step, words, place, stdout, log, on_line)


def wait_for(step, words, place, stdout, log, on_line):
    """Start a step and wait for its end; stdout, log: open files."""
    last = ""  # line on stderr that is not empty
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=place.out,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        **options(),
    ) as process:
        # A signal raises SystemExit here.
        try:
            for line in process.stderr:
                print(line, end="", file=log, flush=True)
                last = line.strip() or last
                on_line(line)
            code = process.wait()
        except BaseException as error:
            stop(process, error)
            raise
    # A negative code is the signal that ended it.
    if code:
        end = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise UserError(
            f"step {step.name} failed: `{step.line}` ended with {end}; see "
            f"{place.out / LOG}: {last}"
        )


def stop(process, error):
    """Pass a signal on to a process, and wait for its end; error: of the signal."""
    # The exit code of a signal is 128 + its number.
    code = error.code if isinstance(error, SystemExit) else None
    number = code - 128 if isinstance(code, int) and code > 128 else signal.SIGTERM
    if os.name == "posix":
        process.send_signal(number)
    else:
        process.terminate()
    process.communicate()  # also empties its stderr


def wait_for_lock(path):
    """Wait until no training writes a file of weights, or a minute has passed."""
    # One whose caller was killed ends soon. The training itself refuses a held lock.
    try:
        with FileLock(f"{os.path.realpath(path)}.lock", timeout=WAIT):
            pass
    except Timeout:
        return

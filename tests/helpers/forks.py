"""Commands in forked children, which can be killed and signalled."""

import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.helpers.commands import QUICK
from tests.helpers.project import GUARD
from utils.cli import process
from utils.files import os as files_os

EVERY_EPOCH = {"utils.train.SAVE_EVERY": 0.0}


def start(script, *args, folder, patches=EVERY_EPOCH, before=None):
    """Fork a child that runs a script's main in its wrapper -> its process number.

    Its streams are the files out.txt and err.txt in `folder`; before(): called in the
    child. It is the leader of a process group, so that orphans are found.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setpgid(0, 0)
        torch.set_num_threads(1)  # the parent's other threads are not in the child
        for number, name in ((1, "out.txt"), (2, "err.txt")):
            os.dup2(os.open(Path(folder, name), os.O_CREAT | os.O_WRONLY), number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w") for n in (1, 2))
        logging.getLogger().handlers.clear()  # pytest's
        sys.argv = [script, *map(str, args)]
        process.program = lambda: script
        for name, value in {**QUICK, **patches}.items():
            module, attribute = name.rsplit(".", 1)
            setattr(sys.modules[module], attribute, value)
        if before:
            before()
        process.run(sys.modules[script.removesuffix(".py")].main)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        print("not handled:", repr(error), file=sys.stderr)
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(pid, seconds=GUARD):
    """Wait for the end of a child -> its exit code; negative for a signal."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"process {pid} did not end within {seconds} s")


def orphans(pid):
    """Return whether a process of the child's group is left."""
    with suppress(ProcessLookupError):
        os.killpg(pid, 0)
        return True
    return False


def kill_at_step(number):
    """Return a function that lets its process kill itself after that training step."""

    def prepare():
        left = [number]

        def step(*_):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        register_optimizer_step_post_hook(step)

    return prepare


def kill_at_rename(number, after):
    """Return a function that lets its process kill itself at that rename."""

    def prepare():
        left, replace = [number], files_os.replace

        def replaced(*args):
            left[0] -= 1
            if left[0] == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*args)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        files_os.replace = replaced

    return prepare

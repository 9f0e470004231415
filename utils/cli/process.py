"""Process-wide behaviour of every command: signals, exit codes, one-line errors."""

# Standard library only, so that a wrong command line is refused before torch loads.

import logging
import os
import re
import signal
import sys
import time
import traceback
import warnings
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path

from utils.cli.ranks import complaint, first_on_host, leads, rank, world_size

PROJECT = Path(__file__).resolve().parents[2]
MAX_MESSAGE = 390  # characters, so that an error stays one readable line
NO_MEMORY = re.compile(r"(not enough|can't allocate|out of) memory", re.IGNORECASE)
PROC_STAT = Path("/proc/stat")  # Linux's counts of idle and busy time
BUSY = 0.5  # cores that other programs use, from which waiting threads should sleep


class UserError(Exception):
    """A failed run: what went wrong and what to do, in one line; exit code 1."""


class UsageError(UserError):
    """A wrong command; exit code 2."""


# Running -----------------------------------------------------------------------


def program():
    """Return the command as the user typed it: `train_script.py`, `tools.evaluate`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return Path(sys.argv[0]).name
    return spec.name.removesuffix(".__main__")


# SIGHUP, which Windows lacks: the terminal was closed.
SIGNALS = [
    getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if n in dir(signal)
]


def leave(signum, _frame):
    """Exit with 128 + signal number; a second signal has its default action."""
    # torchrun passes a Ctrl-C on that the process had, and ends what does not end.
    again = signal.SIG_IGN if world_size() > 1 else signal.SIG_DFL
    signal.signal(signum, again)
    sys.exit(128 + signum)


def begin():
    """Prepare the process: signals, a line-buffered stdout, one-line messages."""
    for number in SIGNALS:
        # nohup and a shell's `&` let a process ignore signals.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)
    # A closed stream would give its number to the next file that is opened.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    sys.excepthook = lambda _type, error, _trace: report(error)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.stderr.reconfigure(errors="backslashreplace")
    logging.addLevelName(logging.WARNING, "warning")
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("utils").setLevel(logging.INFO)
    if not leads():
        close_stdout()
        logging.disable(logging.WARNING)
    if not sys.warnoptions:  # warnings of other libraries address developers
        warnings.simplefilter("ignore")


def guard(parse):
    """Refuse a wrong command line, and prepare the process for the slow imports.

    Called under `if __name__ == "__main__":` above the import of torch.

    parse: parses and checks sys.argv; raises UsageError or exits with 2.
    """
    begin()
    # All processes of a host were given the same command.
    quiet = nullcontext() if first_on_host() else redirect_stderr(None)
    with quiet, exit_codes():
        if wrong := complaint():
            raise UsageError(wrong)
        parse()
    # OpenMP's waiting threads spin, which is fastest where no other program runs, and
    # otherwise takes the core from the thread that they wait for. It is decided before
    # torch loads; the bits of a result do not depend on it.
    if "OMP_WAIT_POLICY" not in os.environ and busy_cores() > BUSY:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    # torch would print its own trace where another process has ended.
    if world_size() > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import numpy  # noqa: F401  (imported from within torch it would ignore a Ctrl-C)


def busy_cores(seconds=0.05):
    """Return how many cores are busy while this process sleeps; 0 if unknown."""
    before = processor_times()
    time.sleep(seconds)
    idle, total = (y - x for x, y in zip(before, processor_times(), strict=True))
    return os.cpu_count() * (1 - idle / total) if total else 0.0


def processor_times():
    """Return (idle, total) time of all cores since the start of the system."""
    try:
        ticks = [int(text) for text in PROC_STAT.read_text().split()[1:9]]
    except OSError:  # not Linux
        return 0, 0
    return ticks[3] + ticks[4], sum(ticks)  # idle, and waiting for a disk


def run(main):
    """Run main() as a command; every end is an exit code and at most one line."""
    begin()
    try:
        with exit_codes():
            main()
            sys.stdout.flush()
    finally:
        # The interpreter, which ends now, would print the trace of a handler.
        for number in SIGNALS:
            if signal.getsignal(number) is leave:
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def exit_codes():
    """Turn an exception into one line on stderr and the exit code of its kind."""
    try:
        yield
    except BrokenPipeError:  # the reader of stdout has gone
        close_stdout()
        sys.exit(141)
    except Exception as error:
        report(error)
        close_stdout()
        sys.exit(2 if isinstance(error, UsageError) else 1)


@contextmanager
def memory_for(setting):
    """Name a setting, with its value, where there is not enough memory inside."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"not enough memory for {setting}; try a smaller value"
        ) from None


def close_stdout():
    """Let the interpreter's last flush succeed where stdout is full or gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Messages ----------------------------------------------------------------------


class OneLine(logging.Formatter):
    """Formats a record as one readable line: `program: warning: text`."""

    def format(self, record):
        kind = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        return one_line(f"{program()}: {kind}{record.getMessage()}")


def report(error):
    """Print the error as one line on stderr; with --debug after its traceback."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    # Only what happened to one process is said by another than rank 0.
    where = "" if leads() else f"rank {rank()}: "
    text = one_line(where + describe(error))
    print(f"{program()}: error: {text}", file=sys.stderr)


def describe(error):
    """Return what happened and what to do, for our errors and those of libraries."""
    if isinstance(error, (UserError, ValueError)) and str(error):
        return str(error)
    if is_out_of_memory(error):
        return "not enough memory; close other programs"
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; install it: pip install -r requirements.txt"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; free the space or choose another place"
    return f"{type(error).__name__}: {error} (run again with --debug for the trace)"


def is_out_of_memory(error):
    """Return whether memory was not enough; torch has no single type for that."""
    return isinstance(error, MemoryError) or bool(NO_MEMORY.search(str(error)))


def one_line(text):
    """Fold white space, escape what cannot be printed, and cut to a readable line."""
    text = " ".join(str(text).split())
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."

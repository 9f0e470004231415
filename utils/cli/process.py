"""The one wrapper that turns whatever goes wrong in a command into one line.

Standard library only, as `flags`: a wrong command is refused before torch loads.
"""

import logging
import os
import re
import signal
import sys
import traceback
import warnings
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LONGEST_MESSAGE = 390  # characters, so that one line stays one line
NO_MEMORY = re.compile(r"(not enough|can't allocate|out of) memory", re.IGNORECASE)


class UserError(Exception):
    """What went wrong and what to do about it, in one line; exit code 1."""


class UsageError(UserError):
    """The command itself is wrong; exit code 2."""


# Running -----------------------------------------------------------------------


def program():
    """The command as the user knows it: `train_script.py`, `tools.get_flowers`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).name


def leave(signum, _frame):
    """Exit with 128 + signal number; a second signal has its default action."""
    signal.signal(signum, signal.SIG_DFL)
    sys.exit(128 + signum)


def begin():
    """Prepare the process: signals, a clean line-wise stdout, one-line messages."""
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    sys.excepthook = lambda _type, error, _trace: report(error)
    if sys.stdout:
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    if sys.stderr:
        sys.stderr.reconfigure(errors="backslashreplace")
    logging.addLevelName(logging.WARNING, "warning")
    logging.basicConfig(format=f"{program()}: %(levelname)s: %(message)s")
    if not sys.warnoptions:  # other libraries' advice is for developers
        warnings.simplefilter("ignore")


def run(main):
    """Run main() as a command; every end is an exit code and at most one line."""
    begin()
    try:
        main()
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader went away; nobody is left to tell
        close_stdout()
        sys.exit(141)
    except Exception as error:
        report(error)
        close_stdout()
        sys.exit(2 if isinstance(error, UsageError) else 1)


def close_stdout():
    """Let the interpreter's last flush succeed where stdout is full or gone."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error):
    """Print the error as one line on stderr; as a traceback with --debug."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    print(f"{program()}: error: {one_line(describe(error))}", file=sys.stderr)


def describe(error):
    """What happened and what to do, for errors of ours and of libraries."""
    if isinstance(error, (UserError, ValueError)) and str(error):
        return str(error)
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return "not enough memory; try a smaller --batch-size or --image-size"
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; install it: pip install -r requirements.txt"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; free the space or choose another place"
    return f"{type(error).__name__}: {error} (run again with --debug for the trace)"


def one_line(text):
    """Fold white space and cut to the length of one readable line."""
    text = " ".join(str(text).split())
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 3] + "..."

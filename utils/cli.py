"""Flags, and the one wrapper that turns whatever goes wrong into one line.

Standard library only, so that a wrong command is refused before torch loads.
"""

import argparse
import logging
import math
import os
import re
import signal
import sys
import traceback
import warnings
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LONGEST_MESSAGE = 390  # characters, so that one line stays one line
NO_MEMORY = re.compile(r"(not enough|can't allocate|out of) memory", re.IGNORECASE)


class UserError(Exception):
    """What went wrong and what to do about it, in one line; exit code 1."""


class UsageError(UserError):
    """The command itself is wrong; exit code 2."""


# Values ------------------------------------------------------------------------


def whole_number(low, high):
    """Return an argparse type: an integer from low to high."""

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, got {text!r}"
            )
        return value

    return parse


def positive_number(text):
    """A finite number above 0 (plain `float` accepts nan, -1 and 1e999)."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a finite number > 0, got {text!r}")
    return value


def number_from_zero(below):
    """Return an argparse type: a finite number from 0 to below a bound."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < below:
            raise argparse.ArgumentTypeError(
                f"must be a number from 0 to below {below:g}, got {text!r}"
            )
        return value

    return parse


def positive_or_optimal(text):
    """A finite number above 0, or the word `optimal`."""
    return text if text == "optimal" else positive_number(text)


MODELS = ("MLPAE", "AE", "VAE")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "muon")
SCHEDULERS = ("exponential", "onecycle", "constant")
DEVICES = ("auto", "cpu", "cuda", "mps")
MANY = 10**9

FLAGS = {
    "--model": dict(choices=MODELS, help="which model (default: %(default)s)"),
    "--epochs": dict(
        type=whole_number(1, MANY), help="epochs at most (default: the model's)"
    ),
    "--batch-size": dict(
        type=whole_number(1, MANY), help="photos per step (default: the model's)"
    ),
    "--lr": dict(
        type=positive_number, help="highest learning rate (default: the model's)"
    ),
    "--optimizer": dict(
        choices=OPTIMIZERS, help="type of optimizer (default: the model's)"
    ),
    "--weight-decay": dict(
        type=number_from_zero(1000),
        help="share of a weight that a step takes away, in learning rates; of sgd, "
        "momentum and adam: added to the gradient (default: the model's)",
    ),
    "--scheduler": dict(
        choices=SCHEDULERS, help="learning rate over time (default: the model's)"
    ),
    "--patience": dict(
        type=whole_number(1, MANY),
        help="checks without a new best before the end (default: the model's)",
    ),
    "--seed": dict(
        type=whole_number(0, 2**32 - 1), default=0, help="random seed (default: 0)"
    ),
    "--split-seed": dict(
        type=whole_number(0, 2**32 - 1),
        default=0,
        help="which photos validate (default: 0, the same for every model)",
    ),
    "--warm-up": dict(
        type=number_from_zero(1),
        help="share of the steps in which a onecycle rate rises (default: the model's)",
    ),
    "--flips": dict(
        action=argparse.BooleanOptionalAction,
        help="mirror half of the training photos (default: the model's)",
    ),
    "--shift": dict(
        type=whole_number(0, 7),
        help="pixels by which training photos are moved at most (default: the model's)",
    ),
    "--ema": dict(
        type=number_from_zero(1),
        help="decay per step of the weights' running average (default: the model's)",
    ),
    "--start": dict(
        choices=("own", "torch"),
        help="first weights: the model's own way, or PyTorch's (default: own)",
    ),
    "--beta": dict(
        type=positive_or_optimal,
        help="weight of the VAE's KL, or optimal: sigma-VAE (default: 1)",
    ),
    "--pairs": dict(
        type=whole_number(0, 1000),
        help="pairs of mirrored latent vectors drawn per photo in the VAE's training; "
        "0 draws one vector (default: the model's)",
    ),
    "--prior": dict(
        choices=("normal", "gaussian", "gmm"),
        default="normal",
        help="draw from N(0, I), or from what was fitted to the training photos' "
        "codes: a Gaussian, or a mixture (default: normal)",
    ),
    "--data": dict(type=Path, help="folder of class folders (default: ./flowers)"),
    "--strict-data": dict(
        action="store_true", help="stop at a photo that cannot be read"
    ),
    "--image-size": dict(
        type=whole_number(8, 1024),
        help="pixels per side, 8 to 1024 (default: the model's)",
    ),
    "--encoding-dim": dict(
        type=whole_number(1, 65536),
        help="numbers in the latent vector (default: the model's)",
    ),
    "--weights": dict(
        type=Path, help="file of trained weights (default: the one in models/)"
    ),
    "--count": dict(
        type=whole_number(1, MANY), default=10, help="images (default: %(default)s)"
    ),
    "--save": dict(
        type=Path,
        metavar="FILE.npy",
        help="write uint8 (count, H, W, 3) to this file, and no picture",
    ),
    "--device": dict(
        choices=DEVICES, default="auto", help="where to compute (default: auto)"
    ),
    "--out": dict(
        type=Path,
        default=PROJECT,
        help="folder of models/, log/ and vis/ (default: the project's own)",
    ),
}


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")


def program():
    """The command as the user knows it: `train_script.py`, `tools.get_flowers`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).name


def command_line(doc, *flags, **defaults):
    """Return a parser that knows the named rows of FLAGS and `--debug`."""
    parser = Parser(
        prog=program(),
        description=doc,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag in flags:
        parser.add_argument(flag, **FLAGS[flag])
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(**defaults)
    return parser


def diffusion_line(doc=None):
    """The command line of diffusion.py, which is checked before torch loads."""
    flags = (
        "--epochs --batch-size --lr --patience --flips --shift --ema --seed "
        "--split-seed --data --strict-data --image-size --device --out"
    )
    return command_line(doc, *flags.split())


# Running -----------------------------------------------------------------------


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

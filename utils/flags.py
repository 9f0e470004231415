"""The flags of all commands, each defined once.

Standard library only, so that a wrong command is refused before torch loads.
"""

import argparse
import math
from pathlib import Path

from utils.cli import PROJECT, one_line, program

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
        help="antithetic pairs of latent vectors per photo in the VAE's training; "
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

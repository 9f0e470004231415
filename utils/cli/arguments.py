"""The flags of all commands, each defined once.

Standard library only, so that a wrong command is refused before torch loads.
"""

import argparse
import math
import re
from pathlib import Path

from utils.cli import PROJECT, UsageError
from utils.cli.process import one_line, program

SECONDS = {"s": 1, "m": 60, "h": 3600}


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


def number(words, holds):
    """Return an argparse type: a finite number for which `holds`, told in `words`.

    Plain `float` accepts nan and 1e999.
    """

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and holds(value)):
            raise argparse.ArgumentTypeError(f"must be {words}, got {text!r}")
        return value

    return parse


finite_number = number("a finite number", lambda value: True)
positive_number = number("a finite number > 0", lambda value: value > 0)
share = number("a number from 0 to 1", lambda value: 0 <= value <= 1)


def number_from_zero(below):
    """Return an argparse type: a number from 0 to below a bound."""
    words = f"a number from 0 to below {below:g}"
    return number(words, lambda value: 0 <= value < below)


def positive_or_optimal(text):
    """A finite number above 0, or the word `optimal`."""
    return text if text == "optimal" else positive_number(text)


def duration(text):
    """A time such as 90s, 10m or 1h -> seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= 10**6:
        raise argparse.ArgumentTypeError(
            f"must be a time such as 90s, 10m or 1h, got {text!r}"
        )
    return seconds


def channel_counts(text):
    """Channels from the finest level down, as 64,128,128 -> tuple of ints."""
    parts = text.split(",")
    if not all(re.fullmatch(r"[1-9]\d{0,3}", part) for part in parts) or len(parts) > 5:
        raise argparse.ArgumentTypeError(
            f"must be one to five channel counts such as 64,128,128, got {text!r}"
        )
    return tuple(map(int, parts))


MODELS = ("MLPAE", "AE", "VAE")
DIFFUSIONS = ("diffusion", "diffusion_16", "diffusion_48")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "muon")
SCHEDULERS = ("exponential", "onecycle", "constant")
DEVICES = ("auto", "cpu", "cuda", "mps")
OBJECTIVES = ("flow", "v", "eps", "x0")
DENSITIES = ("lognormal", "cosine", "kit")
SAMPLING = (  # flags of random_generation.py that a diffusion model alone knows
    "--sampler",
    "--steps",
    "--eta",
    "--species",
    "--guidance",
    "--guidance-interval",
)
PRECISIONS = ("auto", "fp32", "bf16")
SAMPLERS = ("dpm++3m", "dpm++2m", "ipndm", "heun", "euler", "flow", "ddim", "ddpm")
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
        help="draw from N(0, I), or from what was fitted to the training photos' "
        "codes: a Gaussian, or a mixture (default: normal)",
    ),
    "--budget": dict(
        type=duration,
        metavar="TIME",
        help="train as many epochs as fit into a time such as 10m, after a short "
        "probe; the same command may then give other bits",
    ),
    "--objective": dict(
        choices=OBJECTIVES, help="what the network predicts (default: the model's)"
    ),
    "--density": dict(
        choices=DENSITIES, help="of noise levels in training (default: the model's)"
    ),
    "--level-mean": dict(
        type=finite_number,
        help="mean of the log noise level, lognormal (default: the model's)",
    ),
    "--level-deviation": dict(
        type=positive_number,
        help="deviation of the log noise level, lognormal (default: the model's)",
    ),
    "--widths": dict(
        type=channel_counts,
        help="channels at each level of the U-Net, such as 64,128,128 (default: the "
        "model's)",
    ),
    "--blocks": dict(
        type=whole_number(1, 16),
        help="residual blocks a level, on either side (default: the model's)",
    ),
    "--dropout": dict(
        type=number_from_zero(1), help="share of features (default: the model's)"
    ),
    "--label-dropout": dict(
        type=number_from_zero(1),
        help="share of photos whose species is not told (default: the model's)",
    ),
    "--precision": dict(
        choices=PRECISIONS,
        help="of the network's products; auto is bf16 where the processor has units "
        "for it (default: the model's)",
    ),
    "--species": dict(
        nargs="+", metavar="NAME", help="of these species alone (default: all)"
    ),
    "--sampler": dict(
        choices=SAMPLERS,
        help="way from noise to image (default: the diffusion model's)",
    ),
    "--steps": dict(
        type=whole_number(1, 10_000), help="of the sampler (default: its own)"
    ),
    "--eta": dict(
        type=number_from_zero(1.001),
        help="share of the ancestral chain's noise that ddim adds (default: 0)",
    ),
    "--guidance": dict(
        type=number_from_zero(1000),
        metavar="SCALE",
        help="classifier-free guidance: unconditional + SCALE * (conditional - "
        "unconditional); 1 is plain conditional, 0 unconditional; any but 1 evaluates "
        "the network twice (default: the diffusion model's)",
    ),
    "--guidance-interval": dict(
        nargs=2,
        type=number_from_zero(1e6),
        metavar=("LOW", "HIGH"),
        help="noise levels, of images in [-1, 1], between which guidance acts "
        "(default: the diffusion model's)",
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
    "--extractor": dict(
        default=PROJECT / "models" / "features.pt",
        help="file of features, pixels, or inception (default: models/features.pt)",
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


def command_line(doc, *flags, choices=None, **defaults):
    """Return a parser that knows the named rows of FLAGS and `--debug`.

    choices: flag -> its choices, where they differ from the row's.
    """
    parser = Parser(
        prog=program(),
        description=doc,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag in flags:
        own = {"choices": choices[flag]} if flag in (choices or {}) else {}
        parser.add_argument(flag, **FLAGS[flag] | own)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(**defaults)
    return parser


def refuse_given(args, flags, reason):
    """Raise a UsageError for the first of these flags that was given."""
    for flag in flags:
        if getattr(args, flag.strip("-").replace("-", "_")) is not None:
            raise UsageError(f"argument {flag}: {reason}; leave it away")


def diffusion_line(doc=None):
    """The command line of diffusion.py, which is checked before torch loads."""
    flags = (
        "--model --epochs --budget --batch-size --lr --optimizer --weight-decay "
        "--scheduler --warm-up --patience --flips --shift --ema --objective --density "
        "--level-mean --level-deviation --widths --blocks --dropout --label-dropout "
        "--precision --guidance --species --seed --split-seed --data --strict-data "
        "--image-size --device --out"
    )
    line = command_line(doc, *flags.split(), choices={"--model": DIFFUSIONS})
    line.set_defaults(model="diffusion")
    return line

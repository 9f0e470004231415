"""Values of flags, the flags that several commands share, and the parser."""

# Standard library only, so that a wrong command line is refused before torch loads.
# Flags that are settings are declared in `utils.config`, as fields of the settings'
# classes.

import argparse
import math
import re
from difflib import get_close_matches
from pathlib import Path

from utils.cli.process import PROJECT, UsageError, one_line, program

SECONDS = {"s": 1, "m": 60, "h": 3600}
MANY = 10**9
DEVICES = ("auto", "cpu", "cuda", "mps")
OTHER_COMMANDS = {"diffusion_fast": "-m tools.reflow"}  # of python, to train a model
LADDER = ("quick", "short", "default", "long")  # training times of diffusion models

# Types -------------------------------------------------------------------------


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


def number(description, is_valid):
    """Return an argparse type: a finite number for which `is_valid` holds."""
    # Plain `float` accepts nan and 1e999.

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and is_valid(value)):
            raise argparse.ArgumentTypeError(f"must be {description}, got {text!r}")
        return value

    return parse


finite_number = number("a finite number", lambda value: True)
positive_number = number("a finite number > 0", lambda value: value > 0)
proportion = number("a number from 0 to 1", lambda value: 0 <= value <= 1)


def number_from_zero(below):
    """Return an argparse type: a number from 0 to below a bound."""
    description = f"a number from 0 to below {below:g}"
    return number(description, lambda value: 0 <= value < below)


def positive_or_optimal(text):
    """Return a finite number above 0, or the word `optimal`."""
    return text if text == "optimal" else positive_number(text)


def duration(text):
    """Return the seconds of a time such as 90s, 10m or 1h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= 10**6:
        raise argparse.ArgumentTypeError(
            f"must be a time such as 90s, 10m or 1h, got {text!r}"
        )
    return seconds


def channel_counts(text):
    """Return the channels of each resolution, the finest first: 64,128,128."""
    parts = text.split(",")
    if not all(re.fullmatch(r"[1-9]\d{0,3}", part) for part in parts) or len(parts) > 5:
        raise argparse.ArgumentTypeError(
            f"must be one to five channel counts such as 64,128,128, got {text!r}"
        )
    return tuple(map(int, parts))


class PresetModel(argparse.Action):
    """Sets the model to that of a training time: quick -> diffusion_quick."""

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.model = "diffusion" if values == "default" else f"diffusion_{values}"


# Flags -------------------------------------------------------------------------

seed = whole_number(0, 2**32 - 1)

FLAGS = {
    "--model": {"help": "model (default: %(default)s)"},
    "--seed": {"type": seed, "default": 0, "help": "random seed (default: 0)"},
    "--split-seed": {
        "type": seed,
        "default": 0,
        "help": "seed of the split into training and validation photos (default: 0, "
        "the same for every model)",
    },
    "--resume": {
        "action": "store_true",
        "help": "continue an interrupted training, with its settings",
    },
    "--prior": {
        "help": "distribution of latent vectors: N(0, I), or a Gaussian or a Gaussian "
        "mixture fitted to the codes of the training photos (default: normal)",
    },
    "--budget": {
        "type": duration,
        "metavar": "TIME",
        "help": "train as many epochs as fit into a time such as 10m, measured by a "
        "short probe; two runs may then differ in their number of epochs",
    },
    "--preset": {
        "action": PresetModel,
        "choices": LADDER,
        "dest": "model",
        "help": "train for about 1, 4, 10 or 60 minutes on two cores; in place of "
        "--model",
    },
    "--species": {
        "nargs": "+",
        "metavar": "NAME",
        "help": "use these species only (default: all)",
    },
    "--data": {"type": Path, "help": "folder of class folders (default: ./flowers)"},
    "--strict-data": {
        "action": "store_true",
        "help": "stop at a photo that cannot be read",
    },
    "--cache": {
        "type": Path,
        "metavar": "DIR",
        "help": "keep decoded photos in a file of this folder, for the next command "
        "(default: in memory; above 512 MB in ~/.cache/nn-lab)",
    },
    "--weights": {
        "type": Path,
        "help": "file of trained weights (default: the one in models/)",
    },
    "--extractor": {
        "default": PROJECT / "models" / "features.pt",
        "help": "feature extractor: a file, `pixels` or `inception` (default: "
        "models/features.pt)",
    },
    "--count": {
        "type": whole_number(1, MANY),
        "default": 10,
        "help": "number of images (default: %(default)s)",
    },
    "--save": {
        "type": Path,
        "metavar": "FILE.npy",
        "help": "write uint8 (count, H, W, 3) to this file, and no picture",
    },
    "--device": {
        "choices": DEVICES,
        "default": "auto",
        "help": "device to compute on (default: auto)",
    },
    "--tensorboard": {
        "type": Path,
        "metavar": "DIR",
        "help": "also write losses and pictures for TensorBoard to DIR/MODEL; needs "
        "pip install -e '.[tb]'",
    },
    "--out": {
        "type": Path,
        "default": PROJECT,
        "help": "folder of models/, log/ and vis/ (default: the project's own)",
    },
}


def did_you_mean(value, choices):
    """Return `; did you mean NAME?` for the choice most like a value, or nothing."""
    # Case is ignored: mlpae is like MLPAE.
    names = {str(choice).lower(): choice for choice in choices}
    found = get_close_matches(str(value).lower(), names, n=1)
    return f"; did you mean {names[found[0]]}?" if found else ""


def training_command(name):
    """Return the arguments of python that train a model."""
    if name in OTHER_COMMANDS:
        return OTHER_COMMANDS[name]
    script = "diffusion.py" if name.startswith("diffusion") else "train_script.py"
    return script if name == "diffusion" else f"{script} --model {name}"


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are one line.

    elsewhere: models of other commands -> what to do instead.
    """

    def __init__(self, elsewhere=None, **options):
        super().__init__(**options)
        self.elsewhere = elsewhere or {}

    def _check_value(self, action, value):
        # Adds a hint to the refusal of a choice. Without this hook of argparse's the
        # refusal would stay.
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            advice = "--model" in action.option_strings and self.elsewhere.get(value)
            hint = f"; {advice}" if advice else did_you_mean(value, action.choices)
            raise argparse.ArgumentError(action, error.message + hint) from None

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")

    def print_help(self, file=None):
        # argparse would ignore that it cannot be written.
        print(self.format_help(), end="", file=file, flush=True)


def command_line(doc, *flags, settings=(), choices=None, elsewhere=None, **defaults):
    """Return a parser of the named rows of FLAGS, of fields, and of `--debug`."""
    # settings: dataclass fields, whose metadata are the arguments of `add_argument`; a
    # flag that is not given is None. choices: flag -> its choices. elsewhere: as of
    # Parser.
    parser = Parser(
        elsewhere,
        prog=program(),
        description=doc,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # argparse cannot print the help of an empty group.
    exclusive = {"--model", "--preset"} <= {*flags}
    either = parser.add_mutually_exclusive_group() if exclusive else parser
    choices = choices or {}
    for flag in flags:
        chosen = {"choices": choices[flag]} if flag in choices else {}
        where = either if flag in ("--model", "--preset") else parser
        where.add_argument(flag, **FLAGS[flag] | chosen)
    # A setting that is not given is None, so that presets apply.
    for field in settings:
        options = dict(field.metadata)
        options["help"] += " (default: the model's)"
        parser.add_argument(flag_of(field.name), **options)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(**defaults)
    return parser


def flag_of(name):
    """Return the flag of an attribute: `batch_size` -> `--batch-size`."""
    return "--" + name.replace("_", "-")


def refuse_given(args, flags, reason):
    """Raise a UsageError for the first of these flags that was given."""
    for flag in flags:
        if getattr(args, flag.strip("-").replace("-", "_")) is not None:
            raise UsageError(f"argument {flag}: {reason}; omit it")

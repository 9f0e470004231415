"""The tree that is handed in: where its files are, its logs, and how to make them."""

import codecs
import math
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from utils.cli import PROJECT
from utils.files import read_regular

KIT_FILES = (  # the starter kit's code
    *("MLPAutoencoder.py", "Autoencoder.py", "VarAutoencoder.py", "diffusion.py"),
    *("train_script.py", "visualization.py", "random_generation.py"),
    *("utils/train.py", "utils/scheduler.py", "utils/data_processor.py"),
)
MODELS = ("MLPAE", "AE", "VAE", "diffusion")
LOGS = ("MLPAE", "AE_SGD", "AE", "VAE", "diffusion")  # log/train_NAME.out
TRAININGS = {  # log -> the command that writes it
    "MLPAE": "train_script.py --model MLPAE",
    # Elsewhere, since the tuned run's weights have the same name.
    "AE_SGD": "train_script.py --model AE --optimizer sgd --out trial",
    "AE": "train_script.py --model AE",
    "VAE": "train_script.py --model VAE",
    "diffusion": "diffusion.py",
}
PHOTOS = PROJECT / "flowers"
OF_PHOTOS = ("train_script.py", "diffusion.py", "visualization.py")  # take --data
BOMS = {  # marks of the encodings that a shell's redirection writes
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NUMBER = r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"
LINE = re.compile(rf"Epoch: (\d{{1,9}}), Train Loss: {NUMBER}, Valid Loss: {NUMBER}")
DIFFUSION_LINE = re.compile(rf"Epoch: (\d{{1,9}})/(\d{{1,9}}), Train Loss: {NUMBER}")


class Finding(NamedTuple):
    """What a check found: a key of TEXTS, its fields, and how that stands."""

    key: str
    values: dict
    command: str = ""  # that mends it
    status: str = "wrong"  # or "ok", "skipped"


class Log(NamedTuple):
    """The epochs of a training's log: none where the log has a fault."""

    rows: list  # of (train loss, validation loss), or of a diffusion model (loss,)
    total: int = 0  # epochs that a diffusion model was to be trained
    fault: Finding | None = None


@dataclass
class Tree:
    """A folder of models/, log/ and vis/, and the photos that its losses refer to."""

    out: Path
    data: Path
    logs: dict = field(default_factory=dict)  # name -> Log

    def __post_init__(self):
        self.logs = {name: read_log(self, name) for name in LOGS}

    @property
    def code(self):
        """Return the folder of code and documents: this one if it has any."""
        has_code = any((self.out / name).is_file() for name in KIT_FILES)
        return self.out if has_code else PROJECT

    def log_path(self, name):
        """Return the path of a training's log."""
        return self.out / "log" / f"train_{name}.out"

    def show(self, path):
        """Return a path as it is printed: relative to the tree, where it is inside."""
        inside = Path(path).is_relative_to(self.out)
        return (Path(path).relative_to(self.out) if inside else Path(path)).as_posix()

    def command(self, arguments, target=None):
        """Return a command line that writes into this tree; target: of its stdout."""
        words = ["python", arguments]
        if self.data != PHOTOS and arguments.startswith(OF_PHOTOS):
            words += ["--data", shlex.quote(str(self.data))]
        if self.out != PROJECT and "--out" not in arguments:
            words += ["--out", shlex.quote(str(self.out))]
        if not target:
            return " ".join(words)
        # A shell opens the file before Python could make its folder.
        shown = target.relative_to(self.out) if self.out == PROJECT else target
        make = ["mkdir", shlex.quote(shown.parent.as_posix()) + ";"]
        words = words if target.parent.is_dir() else make + words
        return " ".join([*words, ">", shlex.quote(shown.as_posix())])

    def training(self, name):
        """Return the command line that trains a model and writes its log."""
        return self.command(TRAININGS[name], self.log_path(name))


# Logs --------------------------------------------------------------------------------


def read_log(tree, name):
    """Return the Log of a training; without rows where it is missing or has a fault."""
    path = tree.log_path(name)
    if not path.is_file():  # M49 says so
        return Log([])

    def fault(key, **values):
        values["path"] = tree.show(path)
        return Log([], fault=Finding(key, values, tree.training(name)))

    try:
        lines = decoded(read_regular(path)).splitlines()
    except OSError as error:
        return fault("unreadable", why=error.strerror)
    except UnicodeError:
        return fault("no_text")
    return read_lines(lines, name == "diffusion", fault)


def decoded(content):
    """Return the text of bytes in UTF-8, or in UTF-16 with its mark."""
    # Raises UnicodeError.
    marks = (name for mark, name in BOMS.items() if content.startswith(mark))
    return content.decode(next(marks, "utf-8"))


def read_lines(lines, diffusion, fault):
    """Return the Log of text lines; fault: key, values -> Log of a fault."""
    # The starter kit counts the epochs of diffusion models from 1.
    form, first = (DIFFUSION_LINE, 1) if diffusion else (LINE, 0)
    rows, total = [], 0
    for number, line in enumerate(lines, start=1):
        if not line.startswith("Epoch"):  # of a print statement or a warning
            continue
        found = form.fullmatch(line.rstrip())
        if not found:
            return fault("bad_line", number=number, found=line[:60])
        epoch, *rest = found.groups()
        if int(epoch) != first + len(rows):
            wanted = first + len(rows)
            return fault("order", number=number, found=int(epoch), wanted=wanted)
        if diffusion:
            total = int(rest.pop(0))
        rows.append(tuple(map(float, rest)))
    if not rows:
        return fault("no_epochs")
    # A number may be too large for a float.
    if not all(map(math.isfinite, rows[-1])) or rows[-1][0] >= rows[0][0]:
        return fault("rising", first=rows[0][0], last=rows[-1][0])
    return Log(rows, total)

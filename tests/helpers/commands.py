"""Run the four commands in this process, and read what they say."""

import importlib
import io
import logging
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from utils.checkpoint import weights_name
from utils.cli import process as cli

SCRIPT = r"(train_script|visualization|random_generation|diffusion)\.py"
ERROR = re.compile(SCRIPT + r": error: .{10,400}")
TRAININGS = ("MLPAE", "AE", "VAE", "diffusion")
QUICK = {  # what makes a run in this process short
    "diffusion.num_steps": 4,
    "diffusion.PICTURE_IMAGES": 3,
    "utils.data.dataset.SYNTHETIC_PER_SPECIES": 10,
}
HARMLESS = {  # what the wrapper does to a whole process
    "utils.cli.process.begin": lambda: None,
    "utils.cli.process.close_stdout": lambda: None,
    "utils.cli.process.program": lambda: sys.argv[0],
    "utils.cli.arguments.program": lambda: sys.argv[0],
}


class Result(NamedTuple):
    """An exit code and what came out, warnings as the real process prints them."""

    code: int
    out: str
    err: str


def command(script, *args, project=None):
    """Run a script's main in the wrapper; `project` holds ./flowers -> Result."""
    out, err = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter(f"{script}: warning: %(message)s"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUICK, **HARMLESS}.items():
            patch.setattr(name, value)
        patch.setattr("utils.data_processor.PROJECT", project)
        patch.setattr("sys.argv", [script, *map(str, args)])
        logging.getLogger().addHandler(handler)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = cli.run(importlib.import_module(script[:-3]).main) or 0
        except SystemExit as end:
            code = end.code
        finally:
            logging.getLogger().removeHandler(handler)
    return Result(code, out.getvalue(), err.getvalue())


def train(name, out, data, *args, project=None):
    """Train any of the four for an epoch on 8 x 8 pixels; no data: on ./flowers."""
    start = [script_of(name), "--model", name]
    small = ["--image-size", "8", "--epochs", "1", "--device", "cpu", "--out", out]
    small += ["--channels", "16,32"] if name == "diffusion" else []
    data = ["--data", data] if data else []
    return command(*start, *small, *data, *args, project=project)


def error_line(stderr, script):
    """Return the one error line; warnings and facts may stand before it."""
    *before, last = stderr.splitlines() or [""]
    assert all(line.startswith(f"{script}: ") for line in before), stderr
    assert not any(": error: " in line for line in before), stderr
    assert ERROR.fullmatch(last) and last.startswith(f"{script}: "), stderr
    return last


def refused(result, script, *words, code=1):
    """Assert a failed run: nothing on stdout, one error line with these words."""
    line = error_line(result.err, script)
    assert (result.code, result.out) == (code, ""), line
    assert all(word in line for word in words), line
    return line


def use(script, name, run, *args, **options):
    """Run a command on the weights that train(name, run) left; it writes there too."""
    weights = run / "models" / weights_name(name)
    files = ("--weights", weights, "--out", run)
    return command(script, "--model", name, *files, *args, **options)


def script_of(name):
    return "diffusion.py" if name == "diffusion" else "train_script.py"


def files_below(folder):
    """Paths of all files at any depth, relative to the folder; no locks."""
    below = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return sorted(p.relative_to(folder).as_posix() for p in below)


def warnings_of(stderr):
    """Return the lines of a process's stderr that are warnings."""
    return [line for line in stderr.splitlines() if ": warning: " in line]

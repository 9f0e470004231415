"""The table of steps: commands of the project, and the files they read and write."""

import os
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from utils.cli import UserError
from utils.files import read_regular

TABLE = Path(__file__).with_name("steps.toml")
PHOTOS = "flowers"  # the folder that --data replaces
GET = "python -m tools.get_flowers"
GET_PHOTOS = {PHOTOS: GET, "flowers_16": f"{GET} --species all --to flowers_16"}


@dataclass(frozen=True)
class Step:
    """A row of steps.toml; its paths are relative to --out."""

    name: str
    argv: tuple[str, ...]  # the words after `python`
    makes: tuple[str, ...] = ()  # files, that of stdout included
    cost: float = 1.0  # seconds on one machine, or anything in proportion to them
    cost_bf16: float = 0.0  # the same with units for bfloat16, if it differs
    parts: tuple[int, ...] = ()  # for which it is made; none: only with --all
    needs: tuple[str, ...] = ()  # files that must be there
    uses: tuple[str, ...] = ()  # patterns of files that are read where they are
    code: tuple[str, ...] = ()  # Python files that it runs, beside the command's own
    photos: str = ""  # the folder of the project that it reads, if any
    takes: tuple[str, ...] = ("--out",)  # those of --data and --out that it has
    stdout: str = ""  # the file of its output
    trains: str = ""  # weights whose training can be continued by --resume

    @property
    def line(self):
        """The command line as a user types it."""
        end = f" > {self.stdout}" if self.stdout else ""
        return shlex.join(["python", *self.argv]) + end

    @property
    def reads(self):
        """All patterns of files that it reads."""
        return (*self.needs, *self.uses)


def read_steps(path=TABLE):
    """Return the steps of a TOML file, in order."""
    # Lists of TOML become tuples; the file of stdout is made like any other.
    rows = tomllib.loads(read_regular(path).decode("utf-8"))["steps"]
    steps = []
    for row in rows:
        row = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        if stdout := row.get("stdout"):
            row["makes"] = (*row.get("makes", ()), stdout)
        steps.append(Step(**row))
    return steps


def chosen_steps(steps, parts, everything=False):
    """Return the steps of these parts; a step of several needs all of them."""
    return [s for s in steps if everything or (s.parts and {*s.parts} <= {*parts})]


def require_files(planned, steps, place):
    """Raise a UserError if a step needs a file that is missing and will not be made.

    planned: steps that will run, in order; steps: all, also those not chosen.
    """
    made = set()  # by the steps so far
    for step in planned:
        for name in step.needs:
            if name not in made and not (place.out / name).is_file():
                remedy = remedy_for(name, steps)
                raise UserError(f"step {step.name} needs {place.out / name}; {remedy}")
        made |= {*step.makes}


def remedy_for(name, steps):
    """Return what brings back a missing file."""
    for step in steps:
        if name in step.makes:
            parts = " ".join(["--parts", *map(str, step.parts)])
            return f"run python -m tools.reproduce {parts if step.parts else '--all'}"
    return "restore it"


class Place(NamedTuple):
    """Where the code, the artefacts and the photos are: absolute paths."""

    project: Path
    out: Path
    data: Path | None = None  # of --data

    def photos(self, step):
        """Return the folder of photos that a step reads, or None."""
        if step.photos == PHOTOS and self.data:
            return self.data
        return self.project / step.photos if step.photos else None

    def files(self, pattern):
        """Return the sorted files below --out that a pattern names."""
        return sorted(p for p in self.out.glob(pattern) if p.is_file())

    def words(self, step, resume=False):
        """Return the words after `python` that run a step in the folder --out."""
        words = list(step.argv)  # as typed in the project's folder
        # Elsewhere the project's scripts and photos have other relative paths.
        if self.out != self.project:
            if words[0].endswith(".py"):
                words[0] = str(self.project / words[0])
            if "--data" in words:
                at = words.index("--data") + 1
                words[at] = str(self.project / words[at])
            if "--out" in step.takes and "--out" not in words:
                words += ["--out", str(self.out)]
        # Photos of other species are not those of --data.
        if self.data and step.photos == PHOTOS and "--data" in step.takes:
            words += ["--data", str(self.data)]
        return [*words, "--resume"] if resume else words

    def environment(self):
        """Return the variables with which a step finds the project's modules."""
        if self.out == self.project:
            return dict(os.environ)
        # The folder --out itself is not searched for modules.
        paths = [str(self.project), os.environ.get("PYTHONPATH", "")]
        found = os.pathsep.join(filter(None, paths))
        return os.environ | {"PYTHONPATH": found, "PYTHONSAFEPATH": "1"}

"""What all checks share: their table, what they find, and how they say it.

A check is a function of a `Subject`, the modules of a completion. It yields a Finding
for each mistake that it sees, and none if all is right. It raises NotExamined where it
cannot be carried out, such as when no function has the part that it looks for.

The modules of this package run beside those of a completion, which has a package
`utils` of its own. So they import the standard library, torch and each other alone.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Finding(NamedTuple):
    """One mistake; `name` is a row of findings.toml, which explains it."""

    name: str
    seen: str  # what was observed, with numbers: "KL at mu = 1 is -0.5"
    expected: str  # what a right completion shows: "0.5"


class NotExamined(Exception):
    """A check could not be carried out; the message is the reason."""


class Check(NamedTuple):
    """A row of CHECKS."""

    name: str
    part: int  # of the assignment, 1 to 4
    seconds: float  # time limit, on an idle core
    run: Callable[["Subject"], Iterator[Finding]]
    modules: tuple[str, ...] = ()  # of the completion, without which it is not run


PHOTOS = "doctor_photos.pt"  # in the folder of a completion's copy

CHECKS: dict[str, Check] = {}


def check(part, seconds=20.0, modules=()):
    """Return a decorator that adds a function to CHECKS by its name."""

    def add(function):
        name = function.__name__
        CHECKS[name] = Check(name, part, seconds, function, modules)
        return function

    return add


class Subject:
    """A completion: a copy of its folder, which is also the working folder."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def module(self, name):
        """Return a module of the completion, such as "utils.train".

        Raises:
            NotExamined: if there is no such file.
            Whatever its import raises; the runner reports that as a finding.
        """
        path = self.folder.joinpath(*name.split("."))
        if not (path.is_dir() or path.with_suffix(".py").is_file()):
            raise NotExamined(f"there is no {name.replace('.', '/')}.py")
        return importlib.import_module(name)

    @property
    def photos(self):
        """The file of validation photos (N, 3, 24, 24) in [0, 1], float32, or None."""
        # The command puts it there where --data names photos.
        path = self.folder / PHOTOS
        return path if path.is_file() else None

"""Completions for the doctor to examine, made of this project's own student files.

    folder = write_completion(tmp_path)          # our files, all right
    mutate(folder, "diffusion.py", "t > 0", "t >= 0")
    run_check("noise_only_for_t_above_zero", folder)  # here, without a process: Outcome
    in_sandbox(folder, ["noise_only_for_t_above_zero"])  # in the real process
    findings_of(folder)                          # the whole examination: names

`run_check` and `run_function` import the completion's modules in this process, in the
place of ours of the same names, and put ours back.
"""

import contextlib
import importlib
import io
import os
import random
import shutil
import sys

import torch
import torchvision  # noqa: F401  (before a completion's, as in the real process)

from tests.helpers.project import PROJECT
from tools.doctor import checks
from tools.doctor.examination import examine
from tools.doctor.sandbox import child
from tools.doctor.sandbox.copies import scratch_folder
from tools.doctor.sandbox.parent import (
    DEFAULT_LIMITS,
    Outcome,
    run_checks,
)

STUDENT_FILES = (
    *("MLPAutoencoder.py", "Autoencoder.py", "VarAutoencoder.py", "diffusion.py"),
    *("train_script.py", "visualization.py", "random_generation.py"),
)
ARTEFACTS = ("models", "log", "vis")


def write_completion(folder, artefacts=False):
    """Copy our student files and utils/ into a folder, and return it.

    artefacts: also the folders of weights, logs and pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in STUDENT_FILES:
        shutil.copy(PROJECT / name, folder)
    for name in ("utils", *(ARTEFACTS if artefacts else ())):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    return folder


def mutate(folder, file, find, replace):
    """Replace a text that occurs exactly once in a file of a completion."""
    path = folder / file
    text = path.read_text("utf-8")
    assert text.count(find) == 1, f"{text.count(find)} times in {file}: {find}"
    path.write_text(text.replace(find, replace), "utf-8")


def write_files(folder, files):
    """Write {name: text} below a folder, and return it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


# In this process ---------------------------------------------------------------


def names_of(folder):
    """Return the names of the modules and packages that a folder holds."""
    return {path.stem for path in folder.iterdir()} | {"utils"}


@contextlib.contextmanager
def imported_from(folder):
    """Let imports find a completion's modules, in the place of ours; then ours."""
    foreign = names_of(folder)

    def remove():
        taken = {n: m for n, m in sys.modules.items() if n.split(".")[0] in foreign}
        for name in taken:
            del sys.modules[name]
        return taken

    ours, path, place = remove(), sys.path[:], os.getcwd()
    skipped = {"", str(PROJECT)}
    sys.path[:] = [str(folder), *(entry for entry in path if entry not in skipped)]
    os.chdir(folder)
    importlib.invalidate_caches()
    try:
        yield checks.Subject(folder)
    finally:
        os.chdir(place)
        remove()
        sys.modules.update(ours)
        sys.path[:] = path


def run_function(function, folder):
    """Carry out a check that need not be in CHECKS, in this process -> Outcome."""
    return run_row(checks.Check(function.__name__, 0, 0.0, function), folder)


def run_check(name, folder):
    """Carry out a check of CHECKS in this process, without limits -> Outcome."""
    return run_row(child.load_checks()[name], folder)


def run_row(row, folder):
    """Carry out a check in this process, with the completion's modules -> Outcome."""
    state = torch.get_rng_state(), random.getstate()
    torch.manual_seed(0)
    with imported_from(folder) as subject, contextlib.redirect_stdout(io.StringIO()):
        found = child.examine(row, subject)
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    findings = tuple(checks.Finding(*finding) for finding in found["findings"])
    return Outcome(row.name, findings, found["reason"])


# In processes ------------------------------------------------------------------


def in_sandbox(folder, names=None, limits=DEFAULT_LIMITS, held=None):
    """Carry out checks (default: all) in the real process -> [Outcome, ...]."""
    rows = child.load_checks()
    chosen = [rows[name] for name in (rows if names is None else names)]
    with scratch_folder(folder) as root:
        return list(run_checks(root, chosen, limits, held=held))


def findings_of(folder, names=None):
    """Return the names of all that the whole examination finds, text included."""
    return examine(folder, names=names).names()

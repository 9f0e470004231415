"""Carries out checks on a completion, and reports each as a line of JSON.

The parent (parent.py) starts this in a process of its own. To run one check on one
folder without that process, in a test or while a check is written:

    from tests.helpers.doctor import run_check
    run_check("kl_at_known_values", folder)  # -> Outcome

Checks are found by themselves: all functions with `@check` in the files check_*.py of
the package `doctor`, and in what its packages of such names import.
"""

import faulthandler
import functools
import importlib
import json
import os
import random
import re
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from ..checks import CHECKS, Finding, NotExamined, Subject
from . import limits, supervisor, watch

PACKAGE = Path(__file__).resolve().parents[1]
NO_MEMORY = re.compile(r"(not enough|can't allocate|out of) memory", re.IGNORECASE)
LONGEST = 400  # characters of what was seen

# Results -----------------------------------------------------------------------


def examine(check, subject, refused=(), children=frozenset):
    """Carry out one check; return {"findings": [...], "reason": why not examined}.

    refused: the list to which watch.py adds what the completion tried meanwhile.
    children(): the numbers of the processes that this one has started.
    """
    findings, reason, before, running = [], "", len(refused), children()
    try:
        for finding in check.run(subject) or ():
            findings.append(finding)
    except NotExamined as error:
        reason = str(error)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        found = explain(error, subject.folder)
        if isinstance(found, Finding):
            findings.append(found)
        else:
            reason = found

    # What was refused is the mistake, whatever followed from it.
    noted = dict(reversed(refused[before:]))
    if children() - running:
        noted["starts_process"] = "a process that still runs after the check"
    if noted:
        findings = [f for f in findings if f.name != "raises"]
        findings += [
            Finding(name, text, "nothing of the kind") for name, text in noted.items()
        ]
        reason = ""
    return {"findings": [shorten(f) for f in findings], "reason": shorten([reason])[0]}


def shorten(texts):
    """Return texts on one line each, cut to a readable length."""
    texts = [" ".join(str(text).split()) for text in texts]
    return [t if len(t) <= LONGEST else t[: LONGEST - 3] + "..." for t in texts]


def explain(error, folder):
    """Return the Finding that an exception is, or the reason of no finding."""
    where, text = place_of(error, folder), f"{type(error).__name__}: {error}"
    at = f" at {where}" if where else ""
    if isinstance(error, SystemExit):
        return Finding("process_ended", f"exit({error.code!r}){at}", "no exit")
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return Finding("memory_limit", text + at, "less memory")
    if package := missing_package(error, folder):
        return f"needs the package {package!r}, which is not installed here"
    if where or was_in_a_layer(error):
        return Finding("raises", text + at, "no exception")
    # The fault is the check's own, or the completion is called in a way not foreseen.
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"the check failed: {text} ({Path(last.filename).name}:{last.lineno})"


def missing_package(error, folder):
    """Return the name of a package that the completion needs and lacks, or ""."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    name = error.name.partition(".")[0]
    own = [folder / name, folder / f"{name}.py"]
    return "" if name in sys.modules or any(p.exists() for p in own) else name


# Places ------------------------------------------------------------------------


def place_of(error, folder):
    """Return "file:line" of the innermost line of the completion, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        return place_in(error.filename, error.lineno, folder)
    places = [
        place_in(frame.filename, frame.lineno, folder)
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return next((place for place in reversed(places) if place), "")


def place_in(filename, line, folder):
    """Return "utils/train.py:12" of a file in the completion's folder, or ""."""
    path, folder = os.path.realpath(filename), os.path.realpath(folder)
    # Names such as <string> are no files.
    if filename.startswith("<") or not path.startswith(folder + os.sep):
        return ""
    return f"{os.path.relpath(path, folder).replace(os.sep, '/')}:{line}"


def caller_in(folder):
    """Return a function: the completion's place that a frame came from, or ""."""

    def place(frame):
        while frame:
            if where := place_in(frame.f_code.co_filename, frame.f_lineno, folder):
                return where
            frame = frame.f_back
        return ""

    return place


def was_in_a_layer(error):
    """Return whether an exception was raised while a module was called."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(f.name == "_call_impl" for f in frames)


# The process -------------------------------------------------------------------


def sender(nonce):
    """Return a function that writes an event to what was stdout; redirect stdout.

    The nonce is known to the parent alone. stdout joins stderr, which the parent reads
    up to a limit; stdin is empty.
    """
    results = os.dup(1)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def send(event, **facts):
        line = json.dumps({"nonce": nonce, "event": event, "pid": os.getpid(), **facts})
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(results, data) :]

    return send


def load_checks():
    """Import all files of checks, and return CHECKS."""
    package = __package__.rpartition(".")[0]
    for path in sorted(PACKAGE.glob("check_*")):
        importlib.import_module(f"{package}.{path.stem}")
    return CHECKS


def audited(save):
    """Return torch.save, with the event of Python's open(), which C++ code lacks."""

    @functools.wraps(save)
    def audited_save(obj, f, *args, **options):
        if isinstance(f, str | os.PathLike):
            sys.audit("open", os.fspath(f), "wb", os.O_WRONLY | os.O_CREAT)
        return save(obj, f, *args, **options)

    return audited_save


def prepare(order):
    """Set all limits; return (their names -> whether they hold, refused attempts)."""
    root, folder = order["root"], order["folder"]
    os.chdir(folder)
    held = {"writes": limits.write_only_below(root)}

    # What is slow, needs other processes or writes its caches is imported before the
    # completion's code may not.
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    torch.save = audited(torch.save)
    for name in ("matplotlib.pyplot", "torchvision"):
        with suppress(ImportError):
            importlib.import_module(name)
    load_checks()

    held["memory"] = limits.limit_memory(order["memory"])
    held["files"] = limits.limit_files(order["largest_file"])
    held["processes"] = limits.limit_processes()
    held["seconds"] = limits.limit_seconds(3600)
    return held, watch.watch(root, caller_in(folder))


def main():
    """Read an order from stdin, carry it out, and report every check."""
    order = json.loads(sys.stdin.readline())
    send = sender(order.pop("nonce"))
    held = {"network": limits.leave_network(), "adoption": supervisor.supervise(send)}
    more, refused = prepare(order)
    # The end by SIGXCPU says where the code was.
    if more["seconds"]:
        faulthandler.register(signal.SIGXCPU, chain=True, all_threads=False)
    send("ready", held=held | more)

    # The completion's modules come first, and those of this project not at all.
    sys.path.insert(0, order["folder"])
    subject, state = Subject(order["folder"]), (refused, supervisor.children)
    for name in order["checks"]:
        send("start", check=name)
        begin(order["slack"] * CHECKS[name].seconds)
        send("end", check=name, **examine(CHECKS[name], subject, *state))
    # No function that the completion registered for the end is called.
    os._exit(0)


def begin(seconds):
    """Give a check its time, and the state that a new process has."""
    torch = sys.modules["torch"]
    torch.manual_seed(0)
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    limits.limit_seconds(seconds)

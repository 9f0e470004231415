"""Hostile completions, really run: what they do is reported, and not obeyed."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.doctor import in_sandbox, run_function, write_files
from tools.doctor.checks import Finding, NotExamined
from tools.doctor.sandbox.copies import copy_completion
from tools.doctor.sandbox.parent import DEFAULT_LIMITS, last_place
from tools.doctor.sandbox.watch import violation

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")
LIMITS = replace(DEFAULT_LIMITS, memory=10**9, output=10**6, slack=0.1, wall=3.0)
MODULES = ("MLPAutoencoder", "utils.scheduler", "utils.train", "Autoencoder")
MODULES += ("VarAutoencoder", "diffusion")

# What the process survives. OUTSIDE: a file elsewhere that must not be written.
NOTED = {
    "MLPAutoencoder.py": """
try:
    open(OUTSIDE, "w")
except OSError:
    pass
""",
    "utils/scheduler.py": "import socket\nsocket.create_connection(('127.0.0.1', 9))",
    "utils/train.py": "import os\nif os.fork() == 0:\n    os._exit(0)",
    "Autoencoder.py": "import sys\nsys.exit(3)",
    "VarAutoencoder.py": "import torch\ntorch.ones(10**11)",
    # It gets nothing of the parent's, and the system refuses what Python does not see.
    "diffusion.py": """
import ctypes, os, socket, sys
import utils
assert "DOCTOR_SECRET" not in os.environ
assert utils.__file__ is None or "completion" in utils.__file__
assert not any(os.path.isfile(os.path.join(p, "utils", "cli", "process.py"))
               for p in sys.path)
assert os.getcwd().endswith("completion") and sys.stdin.read() == ""
libc = ctypes.CDLL(None)
libc.creat(OUTSIDE.encode(), 0o600)
libc.kill(os.getppid(), 9)
""",
}
# What ends the process, or has to be ended.
ENDED = {
    "MLPAutoencoder.py": "while True: pass",
    "utils/scheduler.py": "import os\nos._exit(0)",
    "utils/train.py": "while True:\n    print('x' * 1000)",
    "Autoencoder.py": """
import json, os
line = {"event": "end", "check": "import_Autoencoder", "nonce": "0", "pid": os.getpid()}
line |= {"findings": [], "reason": ""}
for number in range(3, 64):
    try:
        os.write(number, json.dumps(line).encode() + b"\\n")
    except OSError:
        pass
""",
    "VarAutoencoder.py": """
import ctypes
libc = ctypes.CDLL(None)
if libc.fork() == 0:
    libc.setsid()
    libc.fork()
    while True:
        libc.pause()
""",
    "diffusion.py": "import ctypes\nctypes.string_at(0)",
}


def examined(folder, files, limits=LIMITS):
    """Import the six modules in the real process -> {module: Outcome}, protections."""
    outside = folder / "outside.txt"
    place = folder / "completion files"
    write_files(
        place, {n: f"OUTSIDE = {str(outside)!r}\n{t}" for n, t in files.items()}
    )
    names, held = [f"import_{module}" for module in MODULES], {}
    outcomes = in_sandbox(place, names, limits, held)
    assert [outcome.check for outcome in outcomes] == names
    assert not (held["writes"] and outside.exists())
    return dict(zip(MODULES, outcomes, strict=True)), held


def names_in(outcome):
    return [finding.name for finding in outcome.findings]


# In the real process -----------------------------------------------------------


@LINUX
def test_what_is_tried_is_noted_and_refused(tmp_path, monkeypatch):
    """One process, in which each module tries something else."""
    monkeypatch.setenv("DOCTOR_SECRET", "1")
    found, held = examined(tmp_path, NOTED)
    assert {module: names_in(outcome) for module, outcome in found.items()} == {
        "MLPAutoencoder": ["writes_outside"],
        "utils.scheduler": ["opens_network"],
        "utils.train": ["starts_process"],
        "Autoencoder": ["process_ended"],
        "VarAutoencoder": ["memory_limit"],
        "diffusion": [],
    }
    assert found["diffusion"].passed, found["diffusion"]
    # Each says what and where.
    seen = found["MLPAutoencoder"].findings[0].seen
    assert "outside.txt" in seen and seen.endswith("at MLPAutoencoder.py:4")
    assert "exit(3) at Autoencoder.py:3" in found["Autoencoder"].findings[0].seen
    assert set(held) == {
        *("network", "adoption", "writes", "memory", "files", "processes", "seconds"),
    }


@LINUX
@pytest.mark.slow
def test_the_examination_goes_on_after_a_process_that_is_lost(tmp_path):
    """Each module ends its process in another way; the next begins in a new one."""
    found, _ = examined(tmp_path, ENDED)
    assert {module: names_in(outcome) for module, outcome in found.items()} == {
        "MLPAutoencoder": ["time_limit"],
        "utils.scheduler": ["process_ended"],
        "utils.train": ["too_much_output"],
        "Autoencoder": ["forges_result"],
        "VarAutoencoder": ["starts_process"],
        "diffusion": ["process_ended"],
    }
    assert found["MLPAutoencoder"].findings[0].seen.endswith("MLPAutoencoder.py:2")
    assert "exit code 0" in found["utils.scheduler"].findings[0].seen
    assert "SIGSEGV" in found["diffusion"].findings[0].seen


@LINUX
@pytest.mark.slow
def test_code_that_stays_behind_is_ended(tmp_path):
    """Another program, which has left its session."""
    text = """
import ctypes, os
libc = ctypes.CDLL(None)
if libc.fork() == 0:
    libc.setsid()
    libc.execlp(b"sleep", b"sleep", b"7919", None)
"""
    files = {**dict.fromkeys(NOTED, ""), "MLPAutoencoder.py": text}
    found, _ = examined(tmp_path, files)
    assert names_in(found["MLPAutoencoder"]) == ["starts_process"]
    assert not running("7919")


def running(word):
    """Return the numbers of processes that have a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@LINUX
@pytest.mark.slow
def test_waiting_without_end_is_ended_too_and_then_not_tried_again(tmp_path):
    """It takes no computing time. Other modules are examined nevertheless."""
    files = {
        "MLPAutoencoder.py": "import time\ntime.sleep(10**6)",
        "Autoencoder.py": "",
    }
    names = ["import_MLPAutoencoder", "outputs_MLPAE", "constructor_MLPAE"]
    folder = write_files(tmp_path / "completion", files)
    limits = replace(LIMITS, slack=0.05, wall=2.0)
    found = in_sandbox(folder, [*names, "import_Autoencoder"], limits)
    by_name = {outcome.check: outcome for outcome in found}
    assert [names_in(by_name[name]) for name in names] == [
        *(["time_limit"], ["time_limit"], []),
    ]
    assert (
        by_name[names[2]].reason == "not run, as MLPAutoencoder has ended 2 processes"
    )
    assert by_name[names[0]].findings[0].seen.endswith("at MLPAutoencoder.py:2")
    assert by_name["import_Autoencoder"].passed


# The audit hook ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "args", "name"),
    [
        ("open", ("/etc/x", "w", 0), "writes_outside"),
        ("open", ("/etc/x", "r+", 0), "writes_outside"),
        ("open", ("/etc/x", None, 1), "writes_outside"),
        ("open", (b"/etc/x", "ab", 0), "writes_outside"),
        ("os.mkdir", ("/etc/x", 0o777, -1), "writes_outside"),
        ("os.rename", ("inside", "/etc/x", -1, -1), "writes_outside"),
        ("os.remove", ("../x", -1), "writes_outside"),
        ("subprocess.Popen", ("ls", [], None, None), "starts_process"),
        ("os.system", (b"ls",), "starts_process"),
        ("os.kill", (1, 9), "starts_process"),
        ("socket.__new__", (None, 2, 1, 0), "opens_network"),
        ("socket.getaddrinfo", ("host", 80, 0, 0, 0), "opens_network"),
    ],
)
def test_events_that_are_refused(event, args, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert violation(str(tmp_path.resolve()), event, args)[0] == name


@pytest.mark.parametrize(
    ("event", "args"),
    [
        ("open", ("/etc/passwd", "r", 0)),
        ("open", ("/etc/passwd", None, 0)),
        ("open", ("models/x.pkl", "wb", 0)),
        ("open", (3, "w", 0)),
        ("open", ("/dev/null", "w", 0)),
        ("os.mkdir", ("models", 0o777, -1)),
        ("import", ("torch", None, None, None, None)),
    ],
)
def test_events_that_are_allowed(event, args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert violation(str(tmp_path.resolve()), event, args) is None


# Exceptions --------------------------------------------------------------------


def outcome_of(text, folder):
    """Import a module of this text in this process, and return the Outcome."""
    write_files(folder, {"Autoencoder.py": text, "utils/own.py": ""})
    return run_function(lambda subject: subject.module("Autoencoder"), folder)


def test_an_exception_has_its_place(tmp_path):
    (finding,) = outcome_of("import math\nmath.sqrt(-1)\n", tmp_path).findings
    wanted = "ValueError: math domain error at Autoencoder.py:2"
    assert finding == Finding("raises", wanted, "no exception")


def test_a_syntax_error_has_its_place(tmp_path):
    (finding,) = outcome_of("x = 1\ndef (", tmp_path).findings
    assert finding.name == "raises" and finding.seen.endswith("at Autoencoder.py:2")


def test_a_package_that_is_not_installed_is_no_mistake(tmp_path):
    found = outcome_of("import a_package_of_nobody\n", tmp_path)
    assert not found.findings and "'a_package_of_nobody'" in found.reason


def test_a_missing_module_of_its_own_is_one(tmp_path):
    found = outcome_of("import utils.other\n", tmp_path)
    assert names_in(found) == ["raises"]


def test_a_fault_of_the_check_itself_is_no_finding(tmp_path):
    def check(subject):
        yield Finding("wrong_name", "a", "b")
        raise KeyError("of the check")

    found = run_function(check, write_files(tmp_path, {"Autoencoder.py": ""}))
    assert names_in(found) == ["wrong_name"] and "the check failed" in found.reason


def test_not_examined_keeps_its_reason(tmp_path):
    def check(subject):
        raise NotExamined("no labels")

    found = run_function(check, tmp_path)
    assert (found.findings, found.reason) == ((), "no labels")


def test_our_own_modules_are_back_after_a_check(tmp_path):
    import utils

    outcome_of("import utils.own\n", tmp_path)
    assert sys.modules["utils"] is utils and "utils.own" not in sys.modules
    assert str(tmp_path) not in sys.path


# Copies and traces -------------------------------------------------------------


def test_the_copy_has_the_code_and_no_photos(tmp_path):
    files = {
        **dict.fromkeys(("a.py", "utils/b.py", "models/x.pkl", "vis/p.png"), "1"),
        **dict.fromkeys(("flowers/a/1.png", ".git/x", "__pycache__/y", "p.JPG"), "1"),
        "flowers_net/net.py": "1",
    }
    source = write_files(tmp_path / "source", files)
    (source / "link.py").symlink_to(source / "a.py")
    copy_completion(source, tmp_path / "copy")
    copied = {
        p.relative_to(tmp_path / "copy") for p in (tmp_path / "copy").rglob("*.*")
    }
    assert {p.as_posix() for p in copied} == {
        *("a.py", "utils/b.py", "models/x.pkl", "vis/p.png", "flowers_net/net.py"),
    }


def test_the_place_is_that_of_the_last_trace():
    lines = [
        'File "/x/completion/old.py", line 1 in f',
        "Stack (most recent call first):",
        '  File "/lib/torch/nn.py", line 3 in forward',
        '  File "/x/completion/utils/train.py", line 40 in train',
        '  File "/x/completion/diffusion.py", line 2 in <module>',
    ]
    assert last_place(lines) == "utils/train.py:40"
    assert last_place(lines[:1]) == ""

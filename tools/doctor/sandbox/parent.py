"""Starts the process that examines a completion, and reads what it reports.

A check that does not end, or ends the process, is a finding; a new process then goes on
with the checks after it.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple

from tools.doctor.checks import Finding
from utils.cli import UserError

TOOLS = Path(__file__).resolve().parents[2]
# `doctor` is imported by its name, and the folder that holds it is then forgotten.
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import doctor; del sys.path[0]; "
    "from doctor.sandbox.child import main; main()"
)
# What a process gets of this one's environment.
KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "USER", "LANG")
TAIL = 2**16  # bytes of output that are kept
PLACE = re.compile(r'File ".*[/\\]completion[/\\](.*\.py)", line (\d+)')
NO_MEMORY = re.compile(r"bad_alloc|MemoryError|out of memory|can't allocate memory")
END = 10  # seconds in which a process that was killed is gone
STUCK = 2  # processes that a module has ended, after which its checks are not run


class Outcome(NamedTuple):
    """What a check found: nothing, findings, or a reason why it was not carried out."""

    check: str
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    seconds: float = 0.0

    @property
    def passed(self):
        return not self.findings and not self.reason


@dataclass(frozen=True)
class Limits:
    """What a completion may take."""

    memory: int = 4 * 10**9  # bytes, beyond what torch itself takes
    output: int = 10**7  # bytes that it prints
    largest_file: int = 5 * 10**8  # bytes
    slack: float = 2.0  # times a check's seconds, of computing
    wall: float = 4.0  # times those, of waiting
    start: float = 300.0  # seconds until torch is imported


DEFAULT_LIMITS = Limits()


# The process -------------------------------------------------------------------


def environment(root):
    """Return the variables of a process: folders below root, one thread, no CUDA."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    folders = {"HOME": "home", "USERPROFILE": "home", "XDG_CACHE_HOME": "home"}
    folders |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), "tmp")
    folders["MPLCONFIGDIR"] = "matplotlib"
    return {
        **kept,
        **{name: str(root / folder) for name, folder in folders.items()},
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    }


class Processes:
    """The processes that run now, which one call ends, for good."""

    def __init__(self):
        self.running, self.ended = set(), False

    def end(self):
        """End all, and let no other begin."""
        self.ended = True
        for child in list(self.running):
            child.process.terminate()


class Child:
    """A process that carries out checks; a context manager, which ends it."""

    def __init__(self, root, checks, limits, processes):
        self.processes = processes
        self.limits, self.nonce, self.events = limits, secrets.token_hex(16), Queue()
        self.printed, self.tail = 0, b""  # bytes, the last of them
        self.ended, self.closed = {}, False  # what the supervisor says of the end
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", "-c", START, str(TOOLS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=root,
            env=environment(root),
            start_new_session=True,
        )
        self.readers = [
            threading.Thread(target=reader, daemon=True)
            for reader in (self.read_events, self.read_output)
        ]
        for reader in self.readers:
            reader.start()
        order = {
            "nonce": self.nonce,
            "root": str(root),
            "checks": [c.name for c in checks],
        }
        order |= {"folder": str(root / "completion"), "memory": limits.memory}
        order |= {"largest_file": limits.largest_file, "slack": limits.slack}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.close()

    def next(self, seconds):
        """Return the next event, or None after the last; raises queue.Empty."""
        event = self.events.get(timeout=seconds)
        if event is None:
            self.closed = True
        elif event["event"] == "ended":
            self.ended = event
        return event

    def read_events(self):
        """Put each line of the process on the queue, and None after the last."""
        for line in self.process.stdout:
            try:
                event = json.loads(line)
                known = event.pop("nonce") == self.nonce
            except (ValueError, KeyError, AttributeError, TypeError):
                known = False
            self.events.put(event if known else {"event": "forged"})
        self.events.put(None)

    def read_output(self):
        """Count what the completion prints, keep the last of it, end it if too much."""
        while piece := self.process.stderr.read1(65536):
            self.printed += len(piece)
            # A trace comes in many small pieces.
            self.tail = (self.tail + piece)[-TAIL:]
            if self.printed > self.limits.output:
                self.process.terminate()

    def last_output(self):
        """Return the last lines that the process printed."""
        return self.tail.decode("utf-8", "replace").splitlines()[-40:]

    def drain(self):
        """Read what comes after the last check, until the process is at its end."""
        with suppress(Empty):
            while not self.closed:
                self.next(END)

    def left_behind(self):
        """Return [a finding] if the code left processes, which have been ended."""
        self.drain()
        if not (left := self.ended.get("left")):
            return []
        seen = f"{left} processes still ran after the examination"
        return [Finding("starts_process", seen, "none")]

    def exit_code(self):
        """Return the exit code of the code's process, or minus the signal."""
        if "code" in self.ended:
            return self.ended["code"]
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(END)
        return -signal.SIGTERM

    def interrupt(self, pid):
        """End the code that takes too long; on Unix it prints where it is."""
        if hasattr(signal, "SIGXCPU"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGXCPU)
        else:
            self.process.terminate()

    def __enter__(self):
        self.processes.running.add(self)
        if self.processes.ended:  # meanwhile
            self.process.terminate()
        return self

    def __exit__(self, *_):
        self.processes.running.discard(self)
        # At SIGTERM the supervisor ends all that the code has started.
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END)
        with suppress(AttributeError, ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join(END)
        self.process.stdout.close()
        self.process.stderr.close()


# The checks --------------------------------------------------------------------


def run_checks(root, checks, limits=DEFAULT_LIMITS, processes=None, held=None):
    """Carry out checks on the copy below `root`, and yield an Outcome for each.

    checks: Check rows; processes: the Processes that end together; held: a dictionary
    that gets the names of the protections, and whether they hold. A check that a
    process does not survive ends with a finding, and another goes on after it.
    """
    processes, held = processes or Processes(), {} if held is None else held
    left, lost = list(checks), Counter()  # module -> processes that it has ended
    while left and not processes.ended:
        hopeless = [c for c in left if any(lost[m] >= STUCK for m in c.modules)]
        for check in hopeless:
            why = f"not run, as {check.modules[0]} has ended {STUCK} processes"
            yield Outcome(check.name, reason=why)
        left = [check for check in left if check not in hopeless]
        if not left:
            return
        with Child(root, left, limits, processes) as child:
            for outcome, goes_on in follow(child, list(left), held):
                check = left.pop(0)
                lost.update(() if goes_on else check.modules)
                yield outcome


def follow(child, checks, held):
    """Yield (Outcome, whether the process goes on) of each check."""
    try:
        ready = child.next(child.limits.start)
    except Empty:
        ready = None
    if not ready or ready["event"] != "ready":
        lines = " ".join(child.last_output()[-3:])
        raise UserError(f"the examining process did not start: {lines}")
    held.update(ready["held"])
    known = False  # a process that was left is one finding
    for check in checks:
        started = time.monotonic()
        findings, reason, goes_on = follow_check(child, check, ready["pid"])
        if not goes_on:
            child.process.terminate()
        known |= any(f.name == "starts_process" for f in findings)
        if not known and (not goes_on or check is checks[-1]):
            findings += child.left_behind()
        seconds = time.monotonic() - started
        yield Outcome(check.name, tuple(findings), reason, seconds), goes_on
        if not goes_on:
            return


def follow_check(child, check, pid):
    """Return (findings, reason, whether the process goes on) of one check."""
    seconds, started = check.seconds * child.limits.slack, False
    while True:
        try:
            event = child.next(seconds * child.limits.wall)
        except Empty:
            child.interrupt(pid)
            child.drain()
            return [out_of_time(child, seconds)], "", False
        if event is None or event["event"] == "ended":
            child.drain()
            return [ending(child, seconds)], "", False
        # The events of a check are its start and its end, both of the one process.
        expected = ("end" if started else "start", check.name)
        if event["event"] != "forged" and event["pid"] != pid:
            seen = "a process that the completion started goes on with the checks"
            return [Finding("starts_process", seen, "one process")], "", False
        if (event["event"], event.get("check")) != expected:
            seen = "the completion wrote among the results of the examination"
            return [Finding("forges_result", seen, "results of the checks")], "", False
        if started:
            findings = [Finding(*finding) for finding in event["findings"]]
            return findings, event["reason"], True
        started = True


# Ends --------------------------------------------------------------------------


def out_of_time(child, seconds):
    """Return the finding of a check that took too long, with the place if known."""
    where = last_place(child.last_output())
    seen = f"no end within {seconds:g} s" + (f", at {where}" if where else "")
    return Finding("time_limit", seen, "an end")


def last_place(lines):
    """Return "file:line" of the completion, of the last trace of faulthandler."""
    starts = [n for n, line in enumerate(lines) if "most recent call first" in line]
    for line in lines[starts[-1] :] if starts else ():
        if found := PLACE.search(line):
            return f"{found[1]}:{found[2]}"
    return ""


def ending(child, seconds):
    """Return the finding of a process that ended within a check."""
    code, text = child.exit_code(), "\n".join(child.last_output())
    if child.printed > child.limits.output:
        seen = f"more than {child.limits.output} bytes printed"
        return Finding("too_much_output", seen, "a line per epoch")
    if code == -getattr(signal, "SIGXCPU", 0):
        return out_of_time(child, seconds)
    if NO_MEMORY.search(text):
        seen = f"more than {child.limits.memory} bytes of memory asked for"
        return Finding("memory_limit", seen, "less memory")
    what = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Finding("process_ended", f"the process ended with {what}", "no exit")

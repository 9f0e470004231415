"""The whole examination of a completion: its text, then its behaviour, then points."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tools.doctor.checks import PHOTOS, Check
from tools.doctor.sandbox.child import load_checks
from tools.doctor.sandbox.copies import scratch_folder
from tools.doctor.sandbox.parent import (
    DEFAULT_LIMITS,
    Outcome,
    Processes,
    run_checks,
)
from tools.doctor.static import (
    FILES,
    GENERAL,
    NEEDED,
    UNFINISHED,
    Seen,
    bonus_evidence,
    static_findings,
    unfinished_modules,
)
from utils.cli import UserError
from utils.cli.progress import bar
from utils.data_processor import create_flower_dataloaders

POINTS = {1: 5, 2: 5, 3: 10, 4: 10}  # of the parts
BONUS = 10
PROCESSES = 2  # parts that are examined at the same time
# Findings after which other checks of the module could not be carried out.
BREAKING = {
    *("raises", "time_limit", "process_ended", "too_much_output", "memory_limit"),
    *("writes_outside", "opens_network", "starts_process", "forges_result"),
}


@dataclass
class Part:
    """What was found in a part of the assignment, or in files of none."""

    number: int
    checks: list[Check] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)  # in the text
    left_out: list[Check] = field(default_factory=list)  # as a module is unfinished

    def findings(self):
        """Return {(name, seen, expected): the checks that found it}."""
        found = {s.finding: [s.finding.name] for s in self.seen}
        for outcome in self.outcomes:
            for finding in outcome.findings:
                if not self.is_explained(finding):
                    found.setdefault(finding, []).append(outcome.check)
        return found

    def is_explained(self, finding):
        """Return whether an exception's place is one that the text already shows."""
        place = re.search(r" at (\S+):(\d+)$", finding.seen)
        return finding.name == "raises" and any(
            place and s.file == place[1] and int(place[2]) in s.lines for s in self.seen
        )

    def unexamined(self):
        """Return {reason: the checks that were not carried out for it}."""
        found = {}
        for outcome in self.outcomes:
            if outcome.reason and not outcome.findings:
                found.setdefault(outcome.reason, []).append(outcome.check)
        return found

    def counts(self):
        """Return how many checks found nothing, something, and were not examined."""
        # What could not be carried out because the module breaks is no success.
        modules = {check.name: set(check.modules) for check in self.checks}
        broken = set()
        for outcome in self.outcomes:
            if BREAKING & {f.name for f in outcome.findings}:
                broken |= modules[outcome.check]
        right = sum(outcome.passed for outcome in self.outcomes)
        open_ones = [o for o in self.outcomes if o.reason and not o.findings]
        excused = sum(not modules[o.check] & broken for o in open_ones)
        wrong = len(self.outcomes) - right - excused + len(self.left_out)
        # A finding of the text counts as one check, unless one has found it too.
        behaviour = {f.name for o in self.outcomes for f in o.findings}
        wrong += sum(s.finding.name not in behaviour | UNFINISHED for s in self.seen)
        return right, wrong, excused

    def points(self):
        """Return the proposed points, in halves; None if nothing was examined."""
        right, wrong, _ = self.counts()
        if not right + wrong:
            return None
        return round(2 * POINTS[self.number] * right / (right + wrong)) / 2


@dataclass
class Examination:
    """All parts, the protections that held, and evidence for the bonus."""

    path: str
    parts: dict[int, Part]  # GENERAL among them
    held: dict[str, bool]
    evidence: dict[str, str]

    def score(self):
        """Return the sum of the points of all parts."""
        return sum(self.parts[n].points() or 0.0 for n in POINTS)

    def names(self):
        """Return the names of all findings."""
        return {f.name for part in self.parts.values() for f in part.findings()}


# The examination ---------------------------------------------------------------


def validation_images(folder):
    """Return validation photos (N, 3, 24, 24) in [0, 1]; raises UserError."""
    _, validation = create_flower_dataloaders(16, folder, 24, 24)
    return validation.dataset.fitting_memory().all_images()


def examine(path, photos=None, limits=DEFAULT_LIMITS, names=None):
    """Return the Examination of the completion in a folder.

    photos: validation photos (N, 3, 24, 24) in [0, 1], or None; names: of the checks to
    carry out (default: all).

    Raises:
        UserError: if the folder has none of the starter kit's files.
    """
    path, rows = checked(Path(path)), load_checks()
    parts = {n: Part(n) for n in (GENERAL, *POINTS)}
    for name in rows if names is None else names:
        parts[rows[name].part].checks.append(rows[name])

    with scratch_folder(path) as root:
        source = root / "completion"
        for seen in static_findings(source):
            parts[seen.part].seen.append(seen)
        leave_out(parts.values())
        if photos is not None:
            torch.save(photos, source / PHOTOS)
        held = examine_behaviour(parts.values(), source, limits)
        return Examination(path.resolve().name, parts, held, bonus_evidence(source))


def checked(path):
    """Return a folder that has files of the starter kit; raises UserError."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; name the folder of a completion")
    if not any((path / file).is_file() for file in FILES):
        raise UserError(
            f"{path} has none of the starter kit's files, such as {min(NEEDED)}; name "
            "the folder that holds them"
        )
    return path


def leave_out(parts):
    """Move the checks of unfinished modules to those that are left out."""
    unfinished = unfinished_modules(seen for part in parts for seen in part.seen)
    for part in parts:
        part.left_out = [c for c in part.checks if unfinished & set(c.modules)]
        part.checks = [c for c in part.checks if c not in part.left_out]


def examine_behaviour(parts, source, limits):
    """Carry out the checks of all parts; return which protections held."""
    held, processes = {}, Processes()

    # Each part has a copy of its own, in which it may write.
    def run(part):
        with scratch_folder(source) as root:
            for outcome in run_checks(root, part.checks, limits, processes, held):
                part.outcomes.append(outcome)

    longest_first = sorted(parts, key=lambda part: -len(part.checks))
    with ThreadPoolExecutor(min(PROCESSES, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(run, part) for part in longest_first if part.checks]
        try:
            for job in bar(jobs, "examining"):
                job.result()
        except BaseException:  # Ctrl-C among them: the others end at once
            processes.end()
            raise
    return held

"""How long steps take: measured on this machine, or scaled from the table."""

import re
import time

from utils.cli.progress import time_of_day

EVERY = 60.0  # seconds between estimates while a step runs
PERCENT = re.compile(r"training: (\d+) % done")  # of a command's own estimate


def expected_seconds(steps, manifest, bfloat16=False):
    """Return {name: seconds that a step is expected to take}.

    A step that was finished on this machine takes as long again. The finished ones
    scale the costs of the others. bfloat16: whether the processor has units for it.
    """
    # The costs of this kind of processor.
    costs = {s.name: (bfloat16 and s.cost_bf16) or s.cost for s in steps}
    # Times of other machines say nothing, nor those of steps that were interrupted.
    measured = {}
    for step in steps:
        record = manifest.record(step)
        here = record.get("machine") == manifest.machine
        if here and record["state"] == "done":
            measured[step.name] = record["seconds"]
    # As if the others were slower or faster than the table by the same factor.
    total = sum(costs[name] for name in measured)
    scale = sum(measured.values()) / total if total else 1.0
    return {name: measured.get(name, scale * cost) for name, cost in costs.items()}


def duration(seconds):
    """Return a time in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def words(seconds):
    """Return the time that is left, and when it ends."""
    return f"about {duration(seconds)} left, expected end {time_of_day(seconds)}"


class StepEstimate:
    """The time left while a step runs, from its expected time or its own estimate."""

    def __init__(self, expected, after):
        """expected: seconds of this step; after: seconds of the steps after it."""
        self.expected, self.after = expected, after
        self.start, self.shown = time.monotonic(), time.monotonic()

    def left(self):
        """Return the seconds that are left of this step and those after it."""
        # A step that takes longer than expected may end at any moment.
        elapsed = time.monotonic() - self.start
        return max(0.0, self.expected - elapsed) + self.after

    def update(self, line):
        """Take a line of the step's stderr -> a line of our own, if one is due."""
        now = time.monotonic()
        # What a training says of itself is better than any table.
        if (found := PERCENT.search(line)) and int(found[1]):
            self.expected = (now - self.start) * 100 / int(found[1])
        # Seldom enough to be read.
        if now - self.shown < EVERY:
            return None
        self.shown = now
        return f"all steps: {words(self.left())}"

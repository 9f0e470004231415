"""Make everything of the submission list, from photos to archive, in order.

python -m tools.reproduce
python -m tools.reproduce --list
python -m tools.reproduce --parts 1 2

Steps whose code, settings, photos and files are unchanged are skipped; comments do not
count as code. After an interruption the same call goes on, and a training continues
from its last state. What was made, and from what, is in log/manifest.json.
"""

import sys
import time
from fnmatch import fnmatch
from pathlib import Path

from tools.reproduce import PARTS
from utils.cli import PROJECT, UsageError, UserError, guard, run
from utils.cli.arguments import command_line, whole_number


def parse(argv=None):
    """Return the checked command line."""
    parser = command_line(__doc__, "--data", "--out")
    # Which steps.
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--parts",
        nargs="+",
        type=whole_number(1, max(PARTS)),
        default=PARTS,
        metavar="N",
        help="parts of the assignment; with all four, the default, also the archive",
    )
    group.add_argument(
        "--all", action="store_true", help="every artefact of the project (many hours)"
    )
    # What is done with them.
    parser.add_argument(
        "--force",
        action="store_true",
        help="also make what is up to date; after an interruption it goes on",
    )
    parser.add_argument(
        "--list", action="store_true", help="show the steps, and run nothing"
    )
    args = parser.parse_args(argv)
    # Steps run in the folder --out.
    args.out = args.out.resolve()
    args.data = args.data and args.data.resolve()
    if args.data and not args.data.is_dir():
        raise UsageError(f"{args.data} is not a folder; name one with --data")
    return args


if __name__ == "__main__":
    guard(parse)

import torch

from tools.reproduce.estimates import StepEstimate, duration, expected_seconds, words
from tools.reproduce.hashes import photos_hash
from tools.reproduce.manifest import Manifest, artefacts_of, inputs_of
from tools.reproduce.processes import run_step, wait_for_lock
from tools.reproduce.results import report
from tools.reproduce.resuming import can_resume, state_time
from tools.reproduce.steps import (
    GET_PHOTOS,
    TABLE,
    Place,
    chosen_steps,
    read_steps,
    require_files,
)
from utils.checkpoint.resume import locked
from utils.cli.tables import markdown_table
from utils.device import has_bfloat16_units, machine_facts

MANIFEST = Path("log", "manifest.json")
EVALUATION = "evaluate_diffusion"  # the step whose results are shown at the end

# The plan ----------------------------------------------------------------------------


def to_run(steps, manifest, place):
    """Return {step: why it will run}, in order, as far as it can be known."""
    planned, changing = {}, {}  # changing: file -> the step that will make it
    for step in steps:
        reason = manifest.reason(step, place)
        # A step that reads what another will make may have to follow it.
        before = [
            changing[name]
            for name in changing
            if any(fnmatch(name, pattern) for pattern in step.reads)
        ]
        if reason := reason or (before and f"after {before[0]}"):
            planned[step] = reason
            changing |= dict.fromkeys(step.makes, step.name)
    return planned


def require_photos(steps, place):
    """Raise a UserError if a folder that a step reads holds no photos."""
    for step in steps:
        folder = place.photos(step)
        if folder and photos_hash(folder) is None:
            remedy = f"get them: {GET_PHOTOS[step.photos]}"
            if folder == place.data:
                remedy = "name a folder of class folders with --data"
            raise UserError(f"{folder} holds no photos; {remedy}")


def print_steps(steps, planned, seconds):
    """Print the steps, whether each is up to date, and how long it takes."""
    rows = []
    for step in steps:
        parts = " ".join(map(str, step.parts)) or "-"
        why = planned.get(step, "up to date")
        rows.append([step.name, parts, why, duration(seconds[step.name]), step.line])
    head = ("step", "parts", "state", "time", "command")
    print(markdown_table(head, rows, text_columns=5))
    left = sum(seconds[step.name] for step in planned)
    print(f"{len(planned)} of {len(steps)} steps to run, about {duration(left)}")


# Running -----------------------------------------------------------------------------


def make(step, why, manifest, place, estimate):
    """Run a step, continue it where it was interrupted, and record it."""
    # A training whose caller was killed may need a moment to end.
    record = manifest.record(step)
    if step.trains and record.get("state") == "started":
        wait_for_lock(place.out / step.trains)
    # What it depends on is recorded before it starts: files may change meanwhile.
    resume = can_resume(step, place, record, manifest.machine)
    inputs = inputs_of(step, place)
    if not resume:
        manifest.start(step, inputs, state_time(step, place))
    spent, start = manifest.record(step)["seconds"], time.monotonic()
    verb = "continues" if resume else f"runs ({why})"
    print(f"{step.name} {verb}; {words(estimate.left())}\n  {step.line}", flush=True)

    def on_line(line):
        # Its last line becomes the reason of our error.
        text = "" if ": error: " in line else line  # one error line in all
        if due := estimate.update(line):
            text += f"tools.reproduce: {due}\n"
        print(text, end="", file=sys.stderr, flush=True)

    # However it ends, the time that it took is recorded.
    try:
        run_step(step, place.words(step, resume), place, on_line)
        artefacts = artefacts_of(step, place)
        if missing := [name for name, digest in artefacts.items() if not digest]:
            raise UserError(f"step {step.name} ended without making {missing[0]}")
    except UserError:
        # A state that cannot be continued must not stop every later call.
        manifest.stop(step, spent + time.monotonic() - start, forget=resume)
        raise
    except SystemExit:  # a signal
        manifest.stop(step, spent + time.monotonic() - start)
        print("the same call goes on from here", file=sys.stderr, flush=True)
        raise
    manifest.finish(step, artefacts, spent + time.monotonic() - start)


def make_all(steps, planned, table, manifest, place):
    """Run the steps that are not up to date -> how many ran; planned: of `to_run`."""
    ran = 0
    if planned:
        left = sum(expected(table, manifest)[step.name] for step in planned)
        print(f"{len(planned)} of {len(steps)} steps to run: {words(left)}", flush=True)
    # A step is looked at again when its turn comes.
    for step in steps:
        planned.pop(step, None)
        # What a step made may equal what was there, so that the next one is skipped.
        if why := manifest.reason(step, place):
            seconds = expected(table, manifest)
            after = sum(seconds[other.name] for other in planned)
            estimate = StepEstimate(seconds[step.name], after)
            make(step, why, manifest, place, estimate)
            ran += 1
    return ran


def expected(table, manifest):
    """Return the seconds that each step is expected to take here."""
    bfloat16 = has_bfloat16_units(torch.device("cpu"))
    return expected_seconds(table, manifest, bfloat16)


def print_results(table, manifest, place):
    """Print what the assignment asks for, and what was reached."""
    # Metrics of other weights would be misleading.
    measured = any(
        step.name == EVALUATION and not manifest.reason(step, place) for step in table
    )
    print(report(place.out, measured))


def main(argv=None, project=PROJECT, table=TABLE):
    args = parse(argv)
    place, table = Place(project, args.out, args.data), read_steps(table)
    steps, path = chosen_steps(table, args.parts, args.all), args.out / MANIFEST
    # To look needs no lock, since nothing is written.
    if args.list:
        manifest = Manifest(path, machine_facts())
        planned = to_run(steps, manifest, place)
        print_steps(steps, planned, expected(table, manifest))
        return
    with locked(path):
        manifest = Manifest(path, machine_facts())
        # What is missing is refused before hours of work, and before records are lost.
        planned = to_run(steps, manifest, place)
        required = steps if args.force else planned
        require_photos(required, place)
        require_files(required, table, place)
        if args.force:
            manifest.forget(steps)
            planned = to_run(steps, manifest, place)
        # A step that fails may be one that says which threshold was missed.
        try:
            ran = make_all(steps, planned, table, manifest, place)
        except UserError:
            print_results(table, manifest, place)
            raise
        manifest.complete()
        if not ran:
            print(f"nothing to do: all {len(steps)} steps are up to date")
        print_results(table, manifest, place)


if __name__ == "__main__":
    run(main)

"""Whether the state of an interrupted training belongs to a step."""

from dataclasses import replace
from pathlib import Path

import diffusion
import train_script
from tools.reproduce.manifest import inputs_of
from utils.checkpoint import last_name
from utils.checkpoint.resume import modified, read_state
from utils.cli import UserError

PARSERS = {"train_script.py": train_script.parse, "diffusion.py": diffusion.parse}


def state_path(step, place):
    """Return the file of the state of a step that trains."""
    weights = place.out / step.trains
    return weights.with_name(last_name(Path(step.trains).stem.removeprefix("Best_")))


def state_time(step, place):
    """Return when the state of a step that trains was written, or None."""
    return modified(state_path(step, place)) if step.trains else None


def can_resume(step, place, record, machine):
    """Return whether --resume gives the artefacts that the whole step would.

    record: of the manifest, of a step that was started on this machine and is not done.
    """
    if not step.trains or record.get("state") != "started":
        return False
    # The state must have been written since, by a run of the same code and photos.
    now = state_time(step, place)
    if now in (None, record["state_before"]) or record["machine"] != machine:
        return False
    # Files that the step reads are part of its inputs.
    if record["inputs"] != inputs_of(step, place):
        return False
    return step.argv[0] not in PARSERS or same_settings(step, place)


def same_settings(step, place):
    """Return whether the state has the settings and the seed of a step."""
    # Another training by hand, meanwhile, has its own. Settings that the state lacks
    # have their defaults.
    args, settings = PARSERS[step.argv[0]](list(step.argv[1:]))
    try:
        metadata = read_state(state_path(step, place)).metadata
        stored = replace(settings, **metadata["settings"])
    except (UserError, TypeError):
        return False
    return (stored, metadata["seed"]) == (settings, args.seed or 0)

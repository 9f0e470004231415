"""The guide of a diffusion model: its own weights from early in the training."""

import logging
from copy import deepcopy
from pathlib import Path

from utils.checkpoint.loading import load_checkpoint, restore
from utils.checkpoint.names import weights_name
from utils.checkpoint.saving import save_checkpoint
from utils.files import prepare_target

SAME = ("seed", "data")  # metadata that a training has in common, beside settings

log = logging.getLogger(__name__)


def save_guide(folder, model, metadata, **more):
    """Save the weights of a model as its guide's, in half precision."""
    path = prepare_target(Path(folder, weights_name(f"guide_{model.name}")))
    save_checkpoint(path, deepcopy(model).half(), metadata, **more)


def guide_path(path, name):
    """Return where the guide is of a model's weights in a file."""
    guide = weights_name(f"guide_{name}")
    # `keep_previous` copies both.
    previous = path.name.startswith("Previous_")
    return path.with_name(f"Previous_{guide}" if previous else guide)


def load_best(model, build, path):
    """Load the weights of a file, and their guide, into a model -> their metadata."""
    weights, metadata = load_checkpoint(path)
    model.load_state_dict(weights)
    model.set_guide(load_guide(build, path, metadata))
    return metadata


def load_guide(build, path, metadata):
    """Return the guide beside a model's weights, or None.

    build: function that returns an untrained model of that kind; path: of the model's
    weights; metadata: theirs. Warns if their training saved one, and it is not there.
    """
    if not metadata.get("settings", {}).get("guide_at"):
        return None
    path = guide_path(Path(path), metadata["model"])
    weights, found = load_checkpoint(path) if path.exists() else ({}, {})
    # Settings that are newer than the file are not in it. A run of a constant rate can
    # be resumed for more epochs.
    settings = dict(found.get("settings", {}))
    if settings.get("scheduler") == "constant":
        settings["epochs"] = metadata["settings"]["epochs"]
    same = settings.items() <= metadata["settings"].items()
    if found and same and all(found.get(key) == metadata.get(key) for key in SAME):
        weights = {name: value.float() for name, value in weights.items()}
        return restore(build, weights, path)
    what = "is of another training" if found else "is missing"
    log.warning("%s %s: samples are not guided", path, what)
    return None

"""Saving weights with their metadata, whole or not at all."""

# A checkpoint is a bare state_dict, as the starter kit reads it. Its metadata, a
# dictionary of plain types, is an entry of the state_dict's `_metadata`, which saving
# and safe loading keep and `load_state_dict` ignores.

import io
import sys
from pathlib import Path

import torch

from utils.cli import UserError
from utils.files import replace_file, writing

FORMAT = 2  # version of the metadata
KEY = "description"  # of the metadata in a state_dict's `_metadata`


def save_checkpoint(path, model, metadata=None, **more):
    """Save the model's weights and metadata; a fault leaves the old or the new file.

    `more` are entries that join the metadata.

    Raises:
        UserError: if a weight is not finite, or the file cannot be written.
    """
    path, weights = Path(path), model.state_dict()
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise UserError(
                f"{path} not saved: {key} is not finite{when(more)}; "
                "the file from before is unharmed, try a smaller --lr"
            )
        weights[key] = value.cpu()  # the starter kit loads without map_location
    weights._metadata[KEY] = describe(model, {**(metadata or {}), **more})
    write(path, weights)


def write(path, content):
    """Save tensors and plain types; a fault leaves the old or the new file."""
    # Written to a full disk directly, torch.save hides the reason or aborts.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with writing(path, "the file there, if any, is whole"):
        replace_file(path, [buffer.getbuffer()])


def when(row):
    """Return epoch and learning rate in words, where the row has them."""
    known = {"epoch", "lr"} <= row.keys()
    return " in epoch {epoch} at lr {lr:g}".format(**row) if known else ""


def result_words(metadata):
    """Return epoch and validation loss of weights in words, those that are known."""
    # For readers epochs count from 1; in the metadata they count from 0.
    words = []
    if "epoch" in metadata:
        words.append(f"epoch {metadata['epoch'] + 1}")
    if "valid_per_photo" in metadata:
        words.append(f"validation loss per photo {metadata['valid_per_photo']:.4g}")
    return words


def describe(model, metadata):
    """Return the metadata of a model: what rebuilds it, and how it was trained."""
    return unshared(
        {
            "format": FORMAT,
            "model": model.name,
            "args": getattr(model, "args", {}),
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            **metadata,
        }
    )


def unshared(value):
    """Return plain types whose pickle depends on nothing but their values."""
    # Pickle writes an object once, and refers to it where it occurs again. Whether two
    # equal strings are one object depends on where they come from.
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {unshared(key): unshared(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(unshared, value))
    return value

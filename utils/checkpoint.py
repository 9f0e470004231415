"""Checkpoints: file names, atomic saving, and loading that never runs code."""

# A checkpoint is a bare state_dict, as the starter kit reads it. Its metadata, a
# dictionary of plain types, is an entry of the state_dict's `_metadata`, which saving
# and safe loading keep and `load_state_dict` ignores.

import io
import logging
import pickle
import zipfile
from pathlib import Path

import torch
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from utils.cli import UserError
from utils.files import replace_file

FORMAT = 2  # version of the metadata
KEY = "description"  # of the metadata in a state_dict's `_metadata`
FORMAT_1_KEY = "about"  # the same in files of format 1
FOLDERS = ("models", "model")  # ours, then the starter kit's
NAMES = {
    "MLPAE": "Best_MLPAE.pkl",
    "diffusion": "Best_diffusion.pkl",
    "features": "features.pt",
}
KIT_NAMES = {"diffusion": "Bestmodel_diffusion.pkl"}

log = logging.getLogger(__name__)


def weights_name(name):
    """Return the file name of a model's best weights."""
    if name.startswith("prior_"):
        return f"Prior_{name.removeprefix('prior_')}.pth"
    if name.startswith("diffusion_"):
        return f"Best_{name}.pkl"
    return NAMES.get(name, f"Best_{name}.pth")


def find_weights(project, name):
    """Return the first file of trained weights of this model in the project."""
    # Raises UserError if there is none.
    stem = Path(weights_name(name)).stem
    names = [weights_name(name), f"{stem}.pth", f"{stem}.pkl", KIT_NAMES.get(name)]
    for folder in FOLDERS:
        for candidate in filter(None, names):
            path = Path(project, folder, candidate)
            if path.exists():
                return path
    script = "diffusion.py" if name.startswith("diffusion") else "train_script.py"
    command = script if name == "diffusion" else f"{script} --model {name}"
    missing = Path(project, FOLDERS[0], weights_name(name))
    raise UserError(f"{missing} is not there; train first: python {command}")


# Saving ------------------------------------------------------------------------


def warn_of_replacement(path, data):
    """Warn where drawn flowers are about to replace weights trained on photos."""
    try:
        _, metadata = load_checkpoint(path)
    except UserError:
        return  # nothing there that could be lost
    trained_on = metadata.get("data", {}).get("source")
    if trained_on == "photos" and data["source"] != "photos":
        log.warning("%s was trained on photos; drawn flowers will replace it", path)


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
    # Written to a full disk directly, torch.save hides the reason or aborts.
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    try:
        replace_file(path, [buffer.getbuffer()])
    except OSError as error:
        raise UserError(
            f"cannot save {path}: {error.strerror}; the file there, if any, is whole"
        ) from None


def when(row):
    """Return epoch and learning rate in words, where the row has them."""
    known = {"epoch", "lr"} <= row.keys()
    return " in epoch {epoch} at lr {lr:g}".format(**row) if known else ""


def describe(model, metadata):
    """Return the metadata of a model: what rebuilds it, and how it was trained."""
    return {
        "format": FORMAT,
        "model": model.name,
        "args": getattr(model, "args", {}),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        **metadata,
    }


# Loading -----------------------------------------------------------------------


def load_checkpoint(path):
    """Return (state_dict, metadata) of a file; the metadata may be empty.

    Never runs code from the file, and never returns damaged weights.

    Raises:
        UserError: if the file cannot be read, is damaged, or holds anything else.
    """
    content = verified(Path(path))
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds code, not weights, and was not run; save a state_dict"
        ) from None
    except Exception:  # the file's content decides its type
        raise UserError(
            f"{path} is not a checkpoint of weights; name another file with --weights"
        ) from None
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor)
        for key, value in weights.items()
    ):
        raise UserError(f"{path} holds no state_dict; save model.state_dict() alone")
    entries = getattr(weights, "_metadata", {})
    if not isinstance(entries, dict) or not all(isinstance(k, str) for k in entries):
        raise UserError(f"{path} is damaged: its metadata is unreadable")
    if FORMAT_1_KEY in entries:
        raise UserError(
            f"{path} was written by an older version (format 1, this one reads "
            f"{FORMAT}); train again, or take the file of this version of the project"
        )
    consume_prefix_in_state_dict_if_present(weights, "module.")
    return weights, checked_metadata(path, entries.get(KEY, {}))


def verified(path):
    """Return the bytes of a zip file whose every member has the right checksum."""
    # torch.save writes checksums, but only `zipfile` compares them.
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; name a file with --weights"
        ) from None
    if content and not content.startswith(b"PK\x03\x04"):
        raise UserError(f"{path} is not a checkpoint; train again or use another file")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            # Uncompressed members cannot claim more memory than the file has.
            whole = all(m.compress_type == zipfile.ZIP_STORED for m in members)
            whole &= not any(m.external_attr & 0x10 for m in members)  # folders
            whole &= sum(m.file_size for m in members) <= len(content)
            whole = whole and archive.testzip() is None
    except Exception:  # the file's content decides its type
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged or cut off; train again or use a copy")
    return content


def checked_metadata(path, metadata):
    """Return the metadata, or refuse what this version cannot read."""
    known = {"format": int, "data": dict, "model": str}
    if not isinstance(metadata, dict) or not all(
        isinstance(metadata.get(key, type_()), type_) for key, type_ in known.items()
    ):
        raise UserError(f"{path} is damaged: its metadata is unreadable")
    if metadata.get("format", FORMAT) > FORMAT:
        raise UserError(
            f"{path} was written by a newer version (format {metadata['format']}, "
            f"this one reads {FORMAT}); update this program"
        )
    return metadata


def restore(build, weights, path):
    """Return the model of build() with these weights, in evaluation mode.

    They are checked before any memory is used, whatever sizes the file claims.

    Raises:
        UserError: if they do not fit.
    """
    with torch.device("meta"):
        check_fit(build(), weights, path)
    model = build()
    model.load_state_dict(weights, strict=True)
    return model.eval()


def check_fit(model, weights, path):
    """Refuse weights that do not fit the model, naming the first three misfits."""
    # Raises UserError if a key is missing or unknown, has another type or shape, or
    # is not finite.
    wanted = model.state_dict()
    # Keys, then types and shapes, then values.
    misfits = [f"{key} is missing" for key in wanted if key not in weights]
    misfits += [f"{key} is unknown" for key in weights if key not in wanted]
    misfits += [
        f"{key} is {kind(weights[key])} where {kind(wanted[key])} belongs"
        for key in wanted
        if key in weights and kind(weights[key]) != kind(wanted[key])
    ]
    misfits += [
        f"{key} is not finite"
        for key, value in weights.items()
        if not misfits and not torch.isfinite(value).all()
    ]
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise UserError(
            f"{path} does not fit {model.name}: {'; '.join(misfits[:3])}{more}; "
            "train again or name another file with --weights"
        )


def kind(tensor):
    """Return type and shape in words: `float32 (64, 128)`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"

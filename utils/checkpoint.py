"""Weights on disk: every file name, an atomic save, a load that trusts nothing.

A checkpoint is a bare state_dict, as the starter kit reads it. Its description, a
dictionary of plain types, rides in the state_dict's `_metadata`, which saving and safe
loading keep and `load_state_dict` passes over.
"""

import contextlib
import io
import logging
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from utils.cli import UserError

FORMAT = 1  # of the description
FOLDERS = ("models", "model")  # ours, then the starter kit's
NAMES = {
    "MLPAE": "Best_MLPAE.pkl",
    "diffusion": "Best_diffusion.pkl",
    "features": "features.pt",
}
OLD_NAMES = {"diffusion": "Bestmodel_diffusion.pkl"}

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
    stem = Path(weights_name(name)).stem
    candidates = [weights_name(name), f"{stem}.pth", f"{stem}.pkl", OLD_NAMES.get(name)]
    for folder in FOLDERS:
        for candidate in filter(None, candidates):
            path = Path(project, folder, candidate)
            if path.exists():
                return path
    script = "diffusion.py" if name.startswith("diffusion") else "train_script.py"
    command = script if name == "diffusion" else f"{script} --model {name}"
    missing = Path(project, FOLDERS[0], weights_name(name))
    raise UserError(f"{missing} is not there; train first: python {command}")


# Saving ------------------------------------------------------------------------


def prepare_target(path):
    """Make the folder of `path`, clear what a killed run left; return the path.

    Raises:
        UserError: where the file could not be saved later.
    """
    path = Path(path)
    prepare_folder(path.parent)
    if path.is_dir():
        raise UserError(f"{path} is a folder; move it away, the file goes there")
    temporary(path).unlink(missing_ok=True)
    return path


def prepare_folder(folder):
    """Make the folder and prove that files can be written into it."""
    folder = Path(folder)
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except FileExistsError:
        raise UserError(f"{folder} is not a folder; move that file away") from None
    except OSError as error:
        raise UserError(
            f"cannot write into {folder}: {error.strerror}; name another with --out"
        ) from None


def warn_of_replacement(path, data):
    """Say so where weights trained on photos are about to give way to drawn flowers."""
    try:
        _, about = load_checkpoint(path)
    except UserError:
        return  # nothing there that could be lost
    if about.get("data", {}).get("source") == "photos" and data["source"] != "photos":
        log.warning("%s was trained on photos; drawn flowers will replace it", path)


def temporary(path):
    """Return the name under which `path` is written before it replaces the old one."""
    return path.with_name(path.name + ".tmp")


def save_checkpoint(path, model, about=None, **more):
    """Save the model's weights and description: after a fault, the old or the new file.

    The dictionary `about` and the facts `more` join the description. Serialising to
    memory first keeps the operating system's reason on a full disk.

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
    weights._metadata["about"] = describe(model, {**(about or {}), **more})
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    try:
        replace_file(path, [buffer.getbuffer()])
    except OSError as error:
        raise UserError(
            f"cannot save {path}: {error.strerror}; the file there, if any, is whole"
        ) from None


def when(facts):
    """Say in which epoch and at which learning rate, where that is known."""
    known = {"epoch", "lr"} <= facts.keys()
    return " in epoch {epoch} at lr {lr:g}".format(**facts) if known else ""


def replace_file(path, chunks):
    """Write beside `path`, force it to disk, then rename: all of it or nothing.

    chunks: an iterable of bytes, written one after the other.
    """
    part = temporary(path)
    try:
        with open(part, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        if not isinstance(error, FileExistsError):  # another run's, then
            with contextlib.suppress(OSError):  # the first reason is the one to tell
                part.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder):
    """Force the folder's list of names to disk, where the system lets us."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def describe(model, about):
    """Return the description of a model: what rebuilds it, and what it has seen."""
    return {
        "format": FORMAT,
        "model": model.name,
        "args": getattr(model, "args", {}),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        **about,
    }


# Loading -----------------------------------------------------------------------


def load_checkpoint(path):
    """Return (state_dict, description) of a file; the description may be empty.

    Never runs code from the file, and never returns damaged weights: torch writes
    checksums of every member but only `zipfile` checks them.

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
    except Exception:  # any type: the file's content chooses it
        raise UserError(
            f"{path} is not a checkpoint of weights; name another file with --weights"
        ) from None
    if not is_state_dict(weights):
        raise UserError(f"{path} holds no state_dict; save model.state_dict() alone")
    metadata = getattr(weights, "_metadata", {})
    if not isinstance(metadata, dict) or not all(isinstance(k, str) for k in metadata):
        raise UserError(f"{path} is damaged: its description is unreadable")
    about = metadata.get("about", {})
    consume_prefix_in_state_dict_if_present(weights, "module.")
    return weights, checked_description(path, about)


def verified(path):
    """Return the bytes of a zip file whose every member has the right checksum."""
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
            whole = all(m.compress_type == zipfile.ZIP_STORED for m in members)
            whole &= not any(m.external_attr & 0x10 for m in members)  # folders
            whole &= sum(m.file_size for m in members) <= len(content)
            whole = whole and archive.testzip() is None
    except Exception:  # any type: the file's content chooses it
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged or cut off; train again or use a copy")
    return content


def is_state_dict(weights):
    """Tell whether the object maps names to tensors and holds nothing else."""
    return isinstance(weights, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor)
        for key, value in weights.items()
    )


def checked_description(path, about):
    """Return the description, or refuse one that this version cannot know."""
    known = {"format": int, "data": dict, "model": str}
    if not isinstance(about, dict) or not all(
        isinstance(about.get(key, type_()), type_) for key, type_ in known.items()
    ):
        raise UserError(f"{path} is damaged: its description is unreadable")
    if about.get("format", 1) > FORMAT:
        raise UserError(
            f"{path} was written by a newer version (format {about['format']}, "
            f"this one reads {FORMAT}); update this program"
        )
    return about


def check_fit(model, weights, path):
    """Refuse weights that do not fit the model, and say what does not."""
    wanted = model.state_dict()
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


def save_images(path, batches, shape):
    """Save batches of images (B, 3, H, W) in [0, 1] as uint8, whole or not at all.

    shape: of the array in the file, (N, H, W, 3). A batch is written before the
    next but one is made.

    Raises:
        ValueError: if the batches hold another number or size of images.
        UserError: if the file cannot be written.
    """
    path = prepare_target(path)
    try:
        replace_file(path, chunks(batches, shape))
    except OSError as error:
        raise UserError(
            f"cannot save {path}: {error.strerror}; name another place with --save"
        ) from None


def chunks(batches, shape):
    """Yield the bytes of the .npy file: its header, and the pixels of each batch."""
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, facts)
    yield header.getvalue()
    count = 0
    for images in batches:
        pixels = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte()
        pixels = pixels.permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
        if pixels.shape[1:] != tuple(shape[1:]):
            raise ValueError(f"images are {pixels.shape[1:]}, promised {shape[1:]}")
        yield pixels.tobytes()
        count += len(images)
    if count != shape[0]:
        raise ValueError(f"{shape[0]} images were promised, got {count}")

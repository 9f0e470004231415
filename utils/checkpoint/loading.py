"""Loading weights from files that nobody vouches for: it never runs their code."""

import argparse
import io
import pickletools
import re
import zipfile
from collections import OrderedDict
from dataclasses import fields
from math import inf
from pathlib import Path

import torch
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.overrides import TorchFunctionMode

from utils.checkpoint.saving import FORMAT, KEY
from utils.cli import UserError
from utils.files import read_regular

FORMAT_1_KEY = "about"  # of the metadata in files of format 1

# What a file may name: functions and classes from which plain tensors are built.
PLAIN = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch \w+Storage|torch\.storage \w+Storage|torch Size"
)
KINDS = {  # functions that build other tensors -> what those are
    "sparse_tensor": "a sparse tensor",
    "meta_tensor_no_storage": "a meta tensor",
    "nested_tensor": "a nested tensor",
    "qtensor": "a quantized tensor",
    "tensor_v3": "a tensor of an unusual type",
}
CALLS = {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "NEWOBJ", "OBJ"}
MAX_PICKLE = 2**20  # bytes of everything in a file but the numbers of its tensors
MAX_VALUES = 10_000  # plain values of the metadata
MAX_DEPTH = 8  # of the metadata
MAX_TEXT = 1000  # characters of one text of the metadata
SCHEMA = {  # types of the metadata that are read
    "format": int,
    "model": str,
    "args": dict,
    "seed": int,
    "settings": dict,
    "data": dict,
    "class_proportions": list,
    "epoch": int,
    "valid_loss": float,
    "valid_per_photo": float,
    "fitted_to": dict,
}
DATA = {  # all of them describe the photos
    "source": str,
    "classes": list,
    "count": int,
    "split_seed": int,
    "split": str,
}


def load_checkpoint(path):
    """Return (state_dict, metadata) of a file; the metadata may be empty.

    Never runs code from the file, and never returns damaged weights.

    Raises:
        UserError: if the file cannot be read, is damaged, or holds anything else.
    """
    loaded = read(path)
    if not isinstance(loaded, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor)
        for key, value in dict.items(loaded)
    ):
        raise UserError(f"{path} holds no state_dict; save model.state_dict() alone")
    # A copy has the methods of its class, whatever attributes the file set.
    weights = OrderedDict(dict.items(loaded))
    entries = vars(loaded).get("_metadata", {}) if hasattr(loaded, "__dict__") else {}
    if not isinstance(entries, dict) or not all(isinstance(k, str) for k in entries):
        raise UserError(f"{path} is damaged: its metadata is unreadable")
    if FORMAT_1_KEY in entries:
        raise UserError(
            f"{path} was written by an older version (format 1, this one reads "
            f"{FORMAT}); train again, or take the file of this version of the project"
        )
    consume_prefix_in_state_dict_if_present(weights, "module.")
    return weights, checked_metadata(path, dict(entries).get(KEY, {}))


def read(path, limit=MAX_PICKLE):
    """Return the content of a file that `write` wrote: plain types and tensors."""
    # Raises UserError for anything else; no code of the file runs. limit: bytes of all
    # but the numbers of tensors.
    content, program = verified(Path(path))
    refuse_code(path, program, limit)
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        whole = storages_fit(loaded, len(content))
    except Exception:  # the file's content decides its type
        raise UserError(
            f"{path} is not a checkpoint of weights; name another file with --weights"
        ) from None
    if not whole:
        raise UserError(f"{path} is damaged: a tensor is larger than the file")
    return loaded


def verified(path):
    """Return the bytes of a zip file with right checksums, and those of its pickle."""
    # torch.save writes checksums, but only `zipfile` compares them.
    try:
        content = read_regular(path)
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
            # Of two programs, torch could run the one that was not looked at.
            names = [m.filename for m in members if m.filename.endswith("data.pkl")]
            program = archive.read(names[0]) if whole and len(names) == 1 else b""
    except Exception:  # the file's content decides its type
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged or cut off; train again or use a copy")
    return content, program


def refuse_code(path, program, limit):
    """Refuse a pickle that names anything but plain tensors."""
    # torch.load(weights_only=True) runs no code either, but some of what it allows
    # takes memory without bound, or tensors that are no plain ones.
    if len(program) > limit:
        raise UserError(f"{path} holds more than weights; save model.state_dict()")
    try:
        found = [
            (op.name, argument)
            for op, argument, _ in pickletools.genops(program)
            if op.name in CALLS
        ]
    except Exception:  # the file's content decides its type
        raise UserError(
            f"{path} is not a checkpoint of weights; name another file with --weights"
        ) from None
    for name, argument in found:
        if name == "GLOBAL" and PLAIN.fullmatch(argument):
            continue
        kind = KINDS.get(str(argument).removeprefix("torch._utils _rebuild_"))
        what = f"code, not weights ({str(argument or name).replace(' ', '.'):.60})"
        raise UserError(
            f"{path} holds {kind or what}, and was not loaded; save a state_dict of "
            "plain tensors"
        )


def storages_fit(content, size):
    """Return whether no tensor claims more memory than its file has."""
    # size: of the file, in bytes. A tensor of stride 0 is larger than its storage.
    stack = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += dict.values(value)
        elif isinstance(value, list | tuple):
            stack += value
        elif isinstance(value, torch.Tensor):
            stored = value.untyped_storage().nbytes()
            if value.numel() * value.element_size() > stored or stored > size:
                return False
    return True


def is_plain(content):
    """Return whether metadata are plain types, and not too many of them."""
    stack, count = [(content, 0)], 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            return False
        if type(value) is dict:
            stack += [(part, depth + 1) for pair in value.items() for part in pair]
        elif type(value) in (list, tuple):
            stack += [(part, depth + 1) for part in value]
        elif type(value) is str:
            if len(value) > MAX_TEXT:
                return False
        elif type(value) not in (int, float, bool, type(None)):
            return False
    return True


def checked_metadata(path, metadata):
    """Return the metadata, or refuse what this version cannot read."""
    if type(metadata) is not dict or not is_plain(metadata):
        raise UserError(f"{path} is damaged: its metadata is unreadable")
    if type(metadata.get("format")) is int and metadata["format"] > FORMAT:
        raise UserError(
            f"{path} was written by a newer version (format {metadata['format']}, "
            f"this one reads {FORMAT}); update this program"
        )
    wrong = [k for k in SCHEMA if k in metadata and type(metadata[k]) is not SCHEMA[k]]
    data = metadata.get("data")
    if type(data) is dict:
        wrong += [f"data.{k}" for k in DATA if type(data.get(k)) is not DATA[k]]
        if not wrong and not all(type(name) is str for name in data["classes"]):
            wrong = ["data.classes"]
    if wrong:
        raise UserError(
            f"{path} is damaged: its metadata has no valid {wrong[0]}; train again or "
            "use a copy"
        )
    return metadata


def restore(build, weights, path):
    """Return the model of build() with these weights, in evaluation mode.

    They are checked before any memory is used, whatever sizes the file claims.

    Raises:
        UserError: if they do not fit.
    """
    with torch.device("meta"), SkipNormal():
        check_fit(build(), weights, path)
    model = build()
    model.load_state_dict(weights, strict=True)
    return model.eval()


class SkipNormal(TorchFunctionMode):
    """Leaves tensors as they are where normal numbers would be drawn into them."""

    # On the meta device, which has no numbers, that would import torch.compile, and
    # take seconds.

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.Tensor.normal_, torch.nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


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


def invalid_settings(cls, values):
    """Return the names of values, from a file, that no flag could have given."""
    return [
        f.name for f in fields(cls) if f.name in values and not valid(f, values[f.name])
    ]


def valid(setting_field, value):
    """Return whether a value has the type and the bounds of a field's flag."""
    options = setting_field.metadata
    if "choices" in options:
        return value in options["choices"]
    if "type" not in options:
        return isinstance(value, bool)
    # A list of numbers, the text of one, or one value. An interval may have no end.
    try:
        if options.get("nargs"):
            if not isinstance(value, list | tuple) or len(value) != options["nargs"]:
                return False
            texts = [str(v) for v in value if v != inf]
        elif isinstance(value, list | tuple):
            texts = [",".join(map(str, value))]
        elif isinstance(value, str):  # a word, not the text of a number
            return options["type"](value) == value
        else:
            texts = [str(value)]
        return all(options["type"](text) is not None for text in texts)
    except (argparse.ArgumentTypeError, TypeError, ValueError):
        return False

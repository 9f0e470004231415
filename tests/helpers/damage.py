"""Files of weights that are refused."""

import builtins
import io
import operator
import os
import pickle
import shutil
import subprocess
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.cli import UserError


def refusal(load, *args):
    """Return the message of the UserError that the call must raise."""
    with pytest.raises(UserError) as caught:
        load(*args)
    message = str(caught.value)
    assert "weights_only" not in message  # torch's advice is to trust the file
    return message


def outcome(tiny, content):
    """Load the content in place of the tiny file -> what became of it."""
    path, _, wanted = tiny
    path.write_bytes(content)
    try:
        weights, _ = load_checkpoint(path)
    except UserError:
        return "refused"
    same = list(weights) == list(wanted) and all(
        torch.equal(weights[key].view(torch.int32), value.view(torch.int32))
        for key, value in wanted.items()
    )
    return "same" if same else "different"


def flipped(content, bit):
    """Return the content with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flips_inside_weights(tiny):
    """Return the outcomes of one flipped bit in each byte of the first tensor."""
    start = tiny[1].index(tiny[2]["weight"].numpy().tobytes())
    return {outcome(tiny, flipped(tiny[1], 8 * (start + i) + 2)) for i in range(24)}


def in_memory(write):
    """Return the bytes that write(file) writes."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(*names, content=b"", compression=zipfile.ZIP_STORED):
    """Return a zip file of members with the same content."""

    def write(file):
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name in names:
                archive.writestr(name, content)

    return in_memory(write)


FOREIGN = {
    "text": b"weights",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "jpeg": in_memory(lambda f: Image.new("RGB", (9, 9)).save(f, "JPEG")),
    "zip": zipped("readme", content=b"hello"),
    "npz": in_memory(lambda f: np.savez(f, weight=np.zeros(3))),
    "tar": in_memory(lambda f: tarfile.open(fileobj=f, mode="w").close()),
    "tensor": in_memory(lambda f: torch.save(torch.zeros(3), f)),
    "list": in_memory(lambda f: torch.save([torch.zeros(3)], f)),
    "number": in_memory(lambda f: torch.save({"loss": 0.1}, f)),
    "training state": in_memory(
        lambda f: torch.save({"model": {"a": torch.zeros(2)}, "epoch": 3}, f)
    ),
    "TorchScript": zipped("archive/version", "archive/constants.pkl", content=b"3"),
}


class Call:
    """Pickles as a call of the function, which may be such a call itself."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced

    __call__ = __reduce__  # pickle insists on a function that can be called


def payloads(canary, inner):
    """Name -> an object whose unpickling makes the canary; `inner` is another file."""
    code, name = f"open({str(canary)!r}, 'w').close()", str(canary)
    return {
        "os.system": Call(os.system, f"touch '{name}'"),
        "subprocess": Call(subprocess.check_call, ["touch", name]),
        "eval": Call(builtins.eval, code),
        "exec": Call(builtins.exec, code),
        "mkdir": Call(os.mkdir, name),
        "copy": Call(shutil.copy, __file__, name),
        "touch": Call(Path.touch, canary),
        "write": Call(Path.write_text, canary, "x"),
        "torch.save": Call(torch.save, {}, name),
        "torch.load": Call(partial(torch.load, weights_only=False), str(inner)),
        "getattr": Call(Call(getattr, Call(__import__, "os"), "mkdir"), name),
        "methodcaller": Call(operator.methodcaller("touch"), canary),
    }


NAMES = list(payloads(Path("x"), Path("y")))


def as_torch_file(payload, path):
    """Hide the payload beside true weights."""
    torch.save({"weight": torch.zeros(2), "extra": payload}, path)


def as_legacy_torch_file(payload, path):
    torch.save({"extra": payload}, path, _use_new_zipfile_serialization=False)


def as_pickle(payload, path):
    path.write_bytes(pickle.dumps({"extra": payload}))


WRITERS = [as_torch_file, as_legacy_torch_file, as_pickle]


def trap(tmp_path, name, write):
    """Write the payload -> (file of weights, canary)."""
    canary, inner, path = tmp_path / "canary", tmp_path / "in.pt", tmp_path / "AE.pth"
    torch.save(Call(os.mkdir, str(canary)), inner)
    write(payloads(canary, inner)[name], path)
    return path, canary


def tiny_checkpoint(path):
    """Save a checkpoint of 2 KB -> (path, its bytes, its tensors)."""
    model = nn.Linear(3, 2)
    model.name = "AE"
    save_checkpoint(path, model)
    return path, path.read_bytes(), model.state_dict()

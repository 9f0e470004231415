"""Checks of the saved weights and the logs of parts 1 to 3.

Files that a completion lacks are not mistakes of its code: they are not examined.
"""

import re
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .autoencoders import KINDS, SIZE, build, check_each, class_of, image_shaped
from .checks import Finding, NotExamined, check

FOLDERS, SUFFIXES = ("models", "model"), (".pkl", ".pth")  # C1
SIZES = (24, 28, 32, 40, 48, 64, 96)  # of images, tried where 24 does not fit
NUMBER = r"([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?|nan|inf)"
LINE = re.compile(
    rf"Epoch\D*(\d+)\D.*?Train\w*\s*Loss\W*{NUMBER}.*?Val\w*\s*Loss\W*{NUMBER}", re.I
)
# M19 asks for "about 0.015"; 10 percent more are about that.
SETTLED, AT_EPOCHS = 0.0165, 60
BATCH = 16  # of the kit, to which the sums of Part 3 refer
SLACK = 1.25  # of a loss on other photos than those of the log: the splits differ


# Weights -----------------------------------------------------------------------


@check_each("MLPAE", "AE", "VAE")
def weights(subject, name):
    """Saved weights load safely, are finite, and fit the model (R28)."""
    for path in weight_files(subject, name):
        state = load(path)
        if isinstance(state, Finding):
            yield state
            continue
        # As a loss that became infinite leaves them.
        broken = [key for key, value in state.items() if not value.isfinite().all()]
        if broken:
            seen = f"{path.name}: {broken[0]} holds nan or infinity"
            yield Finding("weights_not_finite", seen, "finite numbers")
            continue
        refused = fitting_model(subject, name, state)[1]
        if refused:
            yield Finding("weights_do_not_fit", f"{path.name}: {refused}", "all fit")


def weight_files(subject, name):
    """Return the files of a model's weights.

    Raises:
        NotExamined: if there is none.
    """
    names = [
        f"{folder}/Best_{name}{suffix}" for folder in FOLDERS for suffix in SUFFIXES
    ]
    # All of them: an old file beside a new one misleads the kit's scripts.
    found = [
        subject.folder / name for name in names if (subject.folder / name).exists()
    ]
    if not found:
        raise NotExamined(f"there is none of {', '.join(names)}")
    return found


def load(path):
    """Return the state_dict of a file, or the Finding that it is none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        seen = f"{path.name}: {first}"
        return Finding("weights_not_safe", seen[:200], "torch.load(weights_only=True)")
    # A state_dict is a dictionary of tensors.
    bare = isinstance(state, dict) and state
    if not bare or not all(isinstance(v, torch.Tensor) for v in state.values()):
        kept = ", ".join(map(str, state))[:80] if isinstance(state, dict) else ""
        seen = f"{path.name} holds {kept or type(state).__name__}"
        return Finding("weights_not_bare", seen, "model.state_dict() and nothing else")
    return state


def fitting_model(subject, name, state):
    """Return (model with these weights, image size, why not): two are None."""
    kind, refused = KINDS[name], ""
    class_of(subject, name)
    # Without its class there is nothing to compare with.
    constants = vars(subject.module(kind.module))
    # The latent size is the module's constant, the image size one that fits.
    dims = [v for k, v in constants.items() if k.endswith("ENCODING_DIM")]
    for size in SIZES if kind.sized else SIZES[:1]:
        model = build(subject, name, *dims[:1], width=size, height=size)
        try:
            if any(
                isinstance(p, torch.nn.UninitializedParameter)
                for p in model.parameters()
            ):
                model(torch.rand(2, 3, size, size))
            model.load_state_dict(state)
        except RuntimeError as error:
            lines = str(error).splitlines()
            refused = refused or " ".join(line.strip() for line in lines[1:3])
        else:
            return (model.eval(), size), None
    return None, refused or "other weights"


# Logs --------------------------------------------------------------------------


class Losses(NamedTuple):
    """The losses of a log, by epoch."""

    path: str
    train: list[float]
    valid: list[float]


def decode(data):
    """Return the text of a file that a shell wrote: UTF-8, or UTF-16 by PowerShell."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if data[1:2] == b"\0" or data[:1] == b"\0":  # without a mark of its byte order
        order = "le" if data[1:2] == b"\0" else "be"
        return data.decode(f"utf-16-{order}", "replace")
    return data.decode("utf-8-sig", "replace")


def read_log(subject, name):
    """Return the Losses of a log, or None if no line of it is that of an epoch.

    Raises:
        NotExamined: if there is no such file.
    """
    path = subject.folder / "log" / f"train_{name}.out"
    if not path.is_file():
        raise NotExamined(f"there is no log/{path.name}")
    # Other lines, such as those of a progress bar, are skipped.
    lines = map(LINE.search, decode(path.read_bytes()).splitlines())
    found = [line.groups() for line in lines if line]
    train, valid = ([float(row[column]) for row in found] for column in (1, 2))
    return Losses(path.name, train, valid) if found else None


def unreadable(name):
    """Return the Finding of a log without lines of epochs."""
    form = "Epoch: 0, Train Loss: {}, Valid Loss: {}"
    seen = f"log/train_{name}.out has no line of an epoch"
    return Finding("log_without_losses", seen, f"lines such as {form}")


def proves(losses, epochs, train, valid):
    """Yield a finding unless the losses fall below these within so many epochs."""
    # Each loss by itself: validation comes in every third epoch only.
    lowest = min(losses.train[:epochs]), min(losses.valid[:epochs])
    if not (lowest[0] < train and lowest[1] < valid):
        seen = f"{losses.path}: train loss {lowest[0]:.5g}, valid loss {lowest[1]:.5g}"
        wanted = f"below {train:g} and {valid:g} within {epochs} epochs"
        yield Finding("threshold_missed", seen, wanted)


@check(1)
def log_MLPAE(subject):
    """Both losses end below 0.03 (M12)."""
    losses = read_log(subject, "MLPAE")
    if losses is None:
        yield unreadable("MLPAE")
    elif not (losses.train[-1] < 0.03 and losses.valid[-1] < 0.03):
        seen = f"train_MLPAE.out ends with {losses.train[-1]:.5g} and "
        wanted = "train and valid loss below 0.03"
        yield Finding("threshold_missed", f"{seen}{losses.valid[-1]:.5g}", wanted)


@check(2)
def log_AE_SGD(subject):
    """The plain SGD of Part 1 ends lower for the convolutions (M19)."""
    losses = read_log(subject, "AE_SGD")
    if losses is None:
        yield unreadable("AE_SGD")
        return
    train, valid = losses.train[:AT_EPOCHS][-1], losses.valid[:AT_EPOCHS][-1]
    if not train < SETTLED:
        seen = f"train_AE_SGD.out has train loss {train:.5g} after 60 epochs or fewer"
        yield Finding("threshold_missed", seen, "about 0.015 or less")
        return
    # M19 says so of all else being equal; the logs are all there is to compare.
    try:
        other = read_log(subject, "MLPAE")
    except NotExamined:
        other = None
    if other and not (losses.train[-1] < other.train[-1] and valid < other.valid[-1]):
        seen = f"AE {losses.train[-1]:.5g} and {losses.valid[-1]:.5g}, MLPAE "
        seen += f"{other.train[-1]:.5g} and {other.valid[-1]:.5g}"
        yield Finding(
            "convolutions_not_better", seen, "lower losses than those of MLPAE"
        )


@check(2)
def log_AE(subject):
    """Within 15 epochs 0.01 and 0.012 (M22)."""
    losses = read_log(subject, "AE")
    yield from proves(losses, 15, 0.01, 0.012) if losses else [unreadable("AE")]


@check(3)
def log_VAE(subject):
    """Within 20 epochs 800 and 800, sums over batches of 16 (M33)."""
    losses = read_log(subject, "VAE")
    yield from proves(losses, 20, 800.0, 800.0) if losses else [unreadable("VAE")]


# Both --------------------------------------------------------------------------


@check_each("MLPAE", "AE", "VAE", seconds=60.0)
def claimed_loss(subject, name):
    """The weights reach on photos what the log says; only with photos."""
    if subject.photos is None:
        raise NotExamined("no photos were given")
    if list(weights(subject, name=name)):
        raise NotExamined("follows from the finding about the file")
    claims = [logged for logged in ("AE", "AE_SGD") if name == "AE"] or [name]
    known = [losses for losses in map(lambda n: existing(subject, n), claims) if losses]
    if not known:
        raise NotExamined("no log says what the loss is")

    # The plain run of Part 2 and the tuned one share a file; either may be the last.
    claim = max(min(losses.valid) for losses in known)
    path = weight_files(subject, name)[0]
    (model, size), _ = fitting_model(subject, name, load(path))
    if size != SIZE:
        raise NotExamined(f"the photos are of {SIZE} pixels, the model of {size}")
    # Part of the photos may be those of training: the split is the completion's own.
    images = torch.load(subject.photos, map_location="cpu", weights_only=True)
    reached = loss_on(subject, name, model, images)
    if not reached < SLACK * claim:
        seen = f"{path.name} has a loss of {reached:.5g} on the photos"
        yield Finding("weights_miss_log", seen, f"about {claim:.5g}, as the log says")


def existing(subject, name):
    """Return the Losses of a log, or None if there is no such log."""
    try:
        return read_log(subject, name)
    except NotExamined:
        return None


@torch.no_grad()
def loss_on(subject, name, model, images):
    """Return the mean of batch losses, in the kit's batches."""
    torch.manual_seed(0)
    losses = []  # of batches, the last one shorter, as in the log
    for batch in images.split(BATCH):
        outputs = model(batch)
        if name == "VAE":
            loss = subject.module("VarAutoencoder").VAE_loss_function(outputs, batch)
            loss = loss[0] if isinstance(loss, tuple | list) else loss
        else:
            loss = F.mse_loss(image_shaped(outputs, batch), batch)
        losses.append(float(loss))
    return sum(losses) / len(losses)

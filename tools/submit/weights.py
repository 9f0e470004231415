"""The four trained models: do they load, and do they reach the losses of their logs?"""

import math
from dataclasses import fields
from functools import partial

import torch

from diffusion import training_loss
from tools.submit.tree import MODELS, Finding
from utils.checkpoint import find_weights, weights_name
from utils.cli import UserError
from utils.config import AUTOENCODERS, PRESETS, DiffusionSettings
from utils.data.photos import photos_below
from utils.data_processor import open_flowers
from utils.experiment import image_size
from utils.registry import autoencoders, load_model, model_args
from utils.train import per_batch, validate

BATCH_SIZE = 16  # of the starter kit, to which the printed losses refer (C6)
TOLERANCE = 0.01  # of a loss that another processor computes
SIZES = ("encoding_dim", "img_width", "img_height")  # arguments of a model
FAULTS = {  # words of the loader -> key of TEXTS; the first that occur
    "is not finite": "not_finite",
    "does not fit": "misfit",
    "out of bounds": "misfit",
    "asked for": "foreign",
    "damaged": "damaged",
    "not a checkpoint": "damaged",
    "cannot read": "damaged",
    "older version": "damaged",
    "newer version": "damaged",
}


def weights_path(tree, name):
    """Return the file of a model's weights in the tree, or None."""
    try:
        return find_weights(name, tree.out)
    except UserError:
        return None


def check_weights(tree):
    """Yield what is wrong with the weights, or the losses that they reach (M47)."""
    photos = Photos(tree.data)
    for name in MODELS:
        path = weights_path(tree, name)
        shown = tree.show(path) if path else f"models/{weights_name(name)}"
        if path is None:
            key, values, status = "missing", {}, "wrong"
        else:
            key, values, status = check_file(tree, name, path, shown, photos)
        # What mends it: another training, of photos.
        command = tree.training(name) if status == "wrong" else ""
        if key == "drawn":
            command = f"python -m tools.get_flowers; {command}"
        values |= {"path": shown, "model": name}
        yield Finding(key, values, command, status)
    if not photos.there:
        get = "python -m tools.get_flowers"
        yield Finding("no_photos", {"path": tree.show(tree.data)}, get, "skipped")


def check_file(tree, name, path, shown, photos):
    """Return (key, fields, status) of the first fault of weights, or of their loss."""
    try:
        model, metadata = load_model(name, path)
    except UserError as error:
        key = next((k for words, k in FAULTS.items() if words in str(error)), "code")
        why = str(error).rpartition(";")[0].replace(str(path), shown)
        return key, {"why": why}, "wrong"
    # The assignment's sizes, with which it would load the file.
    if name in AUTOENCODERS:
        asked = model_args(name, PRESETS[name][0])
        if any(model.args[size] != asked[size] for size in SIZES):
            return "sizes", {size: model.args[size] for size in SIZES}, "wrong"
    return check_training(tree, name, model, metadata, photos)


def check_training(tree, name, model, metadata, photos):
    """Return (key, fields, status) of the training of weights, or of their loss."""
    source = metadata.get("data", {}).get("source", "photos")
    if source != "photos":
        return "drawn", {"source": source}, "wrong"
    # By the training that the log is of.
    held, claimed = claims(tree, name, metadata)
    if None not in (held, claimed) and not math.isclose(held, claimed, rel_tol=1e-9):
        log = tree.show(tree.log_path(name))
        values = {"log": log, "held": held, "claimed": claimed}
        return "other_training", values, "wrong"
    if not photos.there:
        return "loads", {}, "ok"
    if name not in AUTOENCODERS:  # whose validation losses are in no log
        claimed = metadata.get("valid_loss") if "settings" in metadata else None
    elif claimed is None:
        claimed = held
    return compare(name, model, metadata, photos, claimed)


def claims(tree, name, metadata):
    """Return the best epoch's loss by the metadata, and by the log; None for none."""
    rows = tree.logs[name].rows
    if name in AUTOENCODERS:  # the lowest validation loss
        return metadata.get("valid_loss"), min((v for _, v in rows), default=None)
    # The log of a diffusion model has train losses only, to four decimals.
    epoch, held = metadata.get("epoch"), metadata.get("train_loss")
    if not rows or not isinstance(held, float) or epoch is None:
        return None, None
    return round(held, 4), rows[epoch][0] if 0 <= epoch < len(rows) else math.nan


def compare(name, model, metadata, photos, claimed):
    """Return (key, fields, status) of the loss on the photos against the claimed."""
    if claimed is None:
        return "no_metadata", {}, "skipped"
    images = photos.validation(metadata)
    if images is None:
        return "other_photos", {}, "skipped"
    try:
        found = validation_loss(name, model, metadata, images)
    except UserError:  # it is not finite
        found = math.nan
    losses = {"found": found, "claimed": claimed}
    if math.isclose(found, claimed, rel_tol=TOLERANCE):
        return "reached", losses, "ok"
    return "not_reached", losses, "wrong"


class Photos:
    """The validation photos of a folder, opened once for each size and split."""

    def __init__(self, folder):
        self.folder, self.opened = folder, {}
        self.there = folder.is_dir() and bool(photos_below(folder))

    def validation(self, metadata):
        """Return the validation photos of weights, or None if these are others."""
        data = metadata.get("data", {})
        key = image_size(metadata), data.get("split_seed", 0)
        if key not in self.opened:
            size, seed = key
            loaders = open_flowers(self.folder, 1, (size, size), split_seed=seed)
            self.opened[key] = loaders[1].dataset
        images = self.opened[key]
        return images if data in ({}, images.metadata) else None


def validation_loss(name, model, metadata, photos):
    """Return the loss on photos as a training prints it: the mean of batch losses."""
    # With the noise of every validation, so that it depends on the batch size.
    if name in AUTOENCODERS:
        size, loss_fn = BATCH_SIZE, autoencoders()[name].loss_for(1.0)
        batch_loss = partial(reconstruction_loss, loss_fn)
    else:
        names = [f.name for f in fields(DiffusionSettings)]
        settings = DiffusionSettings(**{n: metadata["settings"][n] for n in names})
        size, batch_loss = settings.batch_size, training_loss(settings)
    batches = [photos[start : start + size] for start in range(0, len(photos), size)]
    return per_batch(validate(model, batches, batch_loss, torch.device("cpu")))


def reconstruction_loss(loss_fn, model, images, _labels):
    """Return an autoencoder's loss of a batch of images."""
    return loss_fn(model(images), images)

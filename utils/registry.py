"""Model names -> classes and objectives; building a model, and loading its weights."""

# Model modules are imported where a model is built, since they may import from utils.

import logging
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F

from utils.checkpoint import find_weights, load_checkpoint, load_guide, restore
from utils.checkpoint.loading import invalid_settings
from utils.cli import PROJECT, UsageError, UserError
from utils.config import DIFFUSION_MODELS, PRESETS

# The largest sizes of constructor arguments in a file; 10,000 of others.
MAX_SIZES = {"encoding_dim": 65_536, "img_width": 1024, "img_height": 1024}
MAX_SIZES |= {"num_blocks": 16, "num_classes": 1000, "img_channel": 16}
MAX_SIZES |= {"patch": 16, "img_channels": 16, "antithetic_pairs": 1000}
MAX_RESOLUTIONS = 5

log = logging.getLogger(__name__)


class Autoencoder(NamedTuple):
    """A row of the table of autoencoders."""

    model: Callable  # class; its arguments are those of `model_args`
    loss_for: Callable  # beta -> loss_fn(outputs, images) -> scalar
    reduction: str = "mean"  # of the loss over a batch; or "sum"
    unit: str = "mean squared error"  # of the loss per photo
    asked: dict | None = None  # the assignment's bounds of it: words -> bound


def autoencoders():
    """Return the table of autoencoders: name -> Autoencoder."""
    import Autoencoder as ae
    import MLPAutoencoder as mlpae
    import VarAutoencoder as vae

    def mean_squared_error(beta):
        return F.mse_loss

    return {
        "MLPAE": Autoencoder(
            mlpae.MLPAutoencoder,
            mean_squared_error,
            asked={"asked of both: 0.03": 0.03},
        ),
        "AE": Autoencoder(
            ae.Autoencoder,
            mean_squared_error,
            asked={
                "asked of training: 0.010": 0.010,
                "asked of validation: 0.012": 0.012,
            },
        ),
        "VAE": Autoencoder(
            vae.VarAutoencoder,
            vae.loss_for,
            reduction="sum",
            unit="squared error + KL",
            asked={"asked of both: 50 (800 per batch of 16)": 800 / 16},
        ),
    }


def build_model(name, /, **args):
    """Return a new model by its short name; `args` are its constructor's.

    Raises:
        UsageError: if the model refuses an argument.
    """
    try:
        if name in DIFFUSION_MODELS:
            from diffusion import Diffuser

            return Diffuser(**args)
        return autoencoders()[name].model(**args)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def model_args(name, settings):
    """Return the constructor arguments that an autoencoder's settings give."""
    args = {
        "encoding_dim": settings.encoding_dim,
        "img_width": settings.image_size,
        "img_height": settings.image_size,
    }
    if name == "VAE":
        args["antithetic_pairs"] = settings.antithetic_pairs
    return args


def in_bounds(key, value):
    """Return whether a constructor argument from a file has a size to be built."""
    sizes = value if isinstance(value, list | tuple) else [value]
    limit = MAX_SIZES.get(key, 10_000)
    return len(sizes) <= MAX_RESOLUTIONS and all(
        not isinstance(size, int | float) or 0 <= size <= limit for size in sizes
    )


def load_model(name, path=None, device="cpu"):
    """Return (model on a device, in evaluation mode; metadata) of trained weights.

    name: one of utils.config.AUTOENCODERS or DIFFUSION_MODELS; path: by default the
    model's file in models/. A file without metadata is taken to have the starter kit's
    sizes, with a warning; a setting that the metadata lack, since it is newer than
    they are, has its default, or where it has none the preset's value.

    Raises:
        UserError: if the file is missing, damaged, or holds another model.
    """
    path = path or find_weights(name, PROJECT)
    weights, metadata = load_checkpoint(path)
    # A file without metadata is taken to be what was asked for.
    held = metadata.get("model", name)
    if held != name:
        raise UserError(f"{path} holds a {held}, asked for a {name}; name its own file")
    if not metadata:
        log.warning("%s has no metadata; taking it for a %s of 24 x 24", path, name)
    preset = PRESETS[name][0]
    diffusion = name in DIFFUSION_MODELS
    kit_args = {"n_steps": 300} if diffusion else model_args(name, preset)
    args = metadata.get("args", kit_args)
    # Nothing is built from values that no command line could give.
    wrong = [key for key, value in args.items() if not in_bounds(key, value)]
    wrong += invalid_settings(type(preset), metadata.get("settings", {}))
    if wrong:
        raise UserError(f"{path} is damaged: its {wrong[0]} is out of bounds")
    if "settings" in metadata:
        defaults = {f.name: f.default for f in fields(preset) if f.default != MISSING}
        metadata["settings"] = asdict(preset) | defaults | metadata["settings"]
    try:
        build = partial(build_model, name, **args)
        model = restore(build, weights, path)
        if diffusion:
            model.set_guide(load_guide(build, path, metadata))
        return model.to(device), metadata
    except (TypeError, RuntimeError, UsageError) as error:
        raise UserError(f"{path} does not fit {name}: {error}; train again") from None


def load_diffusion(path, device="cpu"):
    """Return (model, metadata), as `load_model`, of the weights of a diffusion model.

    Raises:
        UserError: if the file is damaged, holds another model, or no metadata.
    """
    name = load_checkpoint(path)[1].get("model")
    if name not in DIFFUSION_MODELS:
        held = f"a {name}" if name else "no metadata"
        raise UserError(f"{path} holds {held}; name weights that diffusion.py saved")
    return load_model(name, path, device)

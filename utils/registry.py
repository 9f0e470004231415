"""The one table: model name -> settings, and the class behind it.

The table loads without torch; model modules are imported where one is built.
"""

import logging
from dataclasses import asdict

from utils.cli import UsageError, UserError
from utils.cli.arguments import DIFFUSIONS
from utils.config import PRESETS

log = logging.getLogger(__name__)


def models():
    """Return an autoencoder's name -> (class, its objective for a weight of the KL)."""
    import torch.nn.functional as F

    from Autoencoder import Autoencoder
    from MLPAutoencoder import MLPAutoencoder
    from VarAutoencoder import VarAutoencoder, loss_with

    return {
        "MLPAE": (MLPAutoencoder, lambda beta: F.mse_loss),
        "AE": (Autoencoder, lambda beta: F.mse_loss),
        "VAE": (VarAutoencoder, loss_with),
    }


def build_model(name, /, **args):
    """Return a new model by its short name; `args` are its constructor's.

    Raises:
        UsageError: if the model refuses an argument.
    """
    try:
        if name in DIFFUSIONS:
            from diffusion import Diffuser

            return Diffuser(**args)
        return models()[name][0](**args)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def loss_of(name, beta=1.0):
    """Return the model's objective, loss_fn(outputs, images) -> scalar.

    beta: weight of the KL where there is one, or "optimal".
    """
    return models()[name][1](beta)


def size_args(settings):
    """Return the constructor arguments that an autoencoder's settings give."""
    return {
        "encoding_dim": settings.encoding_dim,
        "img_width": settings.image_size,
        "img_height": settings.image_size,
    }


def load_diffusion(path):
    """Return (model, description), as `load_model`, of any diffusion model's file.

    Raises:
        UserError: if the file is damaged, holds another model, or no description.
    """
    from utils.checkpoint import load_checkpoint

    name = load_checkpoint(path)[1].get("model")
    if name not in DIFFUSIONS:
        held = f"a {name}" if name else "no description"
        raise UserError(f"{path} holds {held}; name weights that diffusion.py saved")
    return load_model(name, path)


def load_model(name, path):
    """Return (model in evaluation mode, description) from a file of weights.

    A file without a description is taken for the starter kit's sizes, with a warning;
    settings that a description lacks are those of the model's row.

    Raises:
        UserError: if the file is damaged, foreign, or holds another model.
    """
    import torch

    from utils.checkpoint import check_fit, load_checkpoint

    weights, about = load_checkpoint(path)
    held = about.get("model", name)
    if held != name:
        raise UserError(f"{path} holds a {held}, asked for a {name}; name its own file")
    if not about:
        log.warning("%s has no description; taking it for a %s of 24 x 24", path, name)
    kit = {"n_steps": 300} if name in DIFFUSIONS else size_args(PRESETS[name][0])
    args = about.get("args", kit)
    try:
        if "settings" in about:
            about["settings"] = asdict(PRESETS[name][0]) | about["settings"]
        with torch.device("meta"):  # no memory, whatever sizes the file claims
            check_fit(build_model(name, **args), weights, path)
    except (TypeError, RuntimeError, UsageError) as error:
        raise UserError(f"{path} does not fit {name}: {error}; train again") from None
    model = build_model(name, **args)
    model.load_state_dict(weights, strict=True)
    return model.eval(), about

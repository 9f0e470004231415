"""The one table: model name -> settings, and the class behind it.

The table loads without torch; model modules are imported where one is built.
"""

import logging
from dataclasses import dataclass, fields, replace

from utils.cli import UsageError, UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What a training needs to know. Each field is also a flag."""

    epochs: int  # upper bound; early stopping may end sooner
    lr: float  # before any decay
    optimizer: str  # a name that make_optimizer knows
    scheduler: str  # a name that make_scheduler knows
    batch_size: int = 16  # images per step
    patience: int = 5  # validation checks without a new best
    image_size: int = 24  # pixels per side
    encoding_dim: int = 64  # numbers in the latent vector


# One row per model and optimizer that was measured; a model's first row is its default.
PRESETS = {
    "MLPAE": (Settings(epochs=100, lr=1.0, optimizer="sgd", scheduler="exponential"),),
    "AE": (
        Settings(epochs=15, lr=2e-3, optimizer="adamw", scheduler="onecycle"),
        Settings(epochs=60, lr=1.0, optimizer="sgd", scheduler="exponential"),
    ),
    "VAE": (Settings(epochs=20, lr=2e-3, optimizer="adamw", scheduler="onecycle"),),
    "diffusion": (
        Settings(
            epochs=90, lr=1.5e-3, optimizer="adamw", scheduler="onecycle", batch_size=32
        ),
    ),
}


def settings_for(args, model):
    """Return the model's row, with the fields that the command line gave.

    Raises:
        UsageError: if no row has that optimizer and no `--lr` is given.
    """
    flags = {name: getattr(args, name, None) for name in field_names()}
    given = {name: value for name, value in flags.items() if value is not None}
    rows = PRESETS[model]
    optimizer = given.get("optimizer", rows[0].optimizer)
    for row in rows:
        if row.optimizer == optimizer:
            return replace(row, **given)
    if "lr" not in given:
        raise UsageError(
            f"argument --optimizer: {optimizer!r} was not measured for {model}; "
            "say its learning rate with --lr"
        )
    return replace(rows[0], **given)


def field_names():
    """Return the names of all settings."""
    return [field.name for field in fields(Settings)]


def models():
    """Return name -> (class, objective) of the autoencoders."""
    import torch.nn.functional as F

    from Autoencoder import Autoencoder
    from MLPAutoencoder import MLPAutoencoder
    from VarAutoencoder import VAE_loss_function, VarAutoencoder

    return {
        "MLPAE": (MLPAutoencoder, F.mse_loss),
        "AE": (Autoencoder, F.mse_loss),
        "VAE": (VarAutoencoder, VAE_loss_function),
    }


def build_model(name, **args):
    """Return a new model by its short name; `args` are its constructor's.

    Raises:
        UsageError: if the model refuses an argument.
    """
    try:
        return models()[name][0](**args)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def loss_of(name):
    """Return the model's objective, loss_fn(outputs, images) -> scalar."""
    return models()[name][1]


def size_args(settings):
    """Return the constructor arguments that an autoencoder's settings give."""
    return {
        "encoding_dim": settings.encoding_dim,
        "img_width": settings.image_size,
        "img_height": settings.image_size,
    }


def load_model(name, path):
    """Return (model in evaluation mode, description) from a file of weights.

    A file without a description is taken for the starter kit's sizes, with a warning.

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
    args = about.get("args", size_args(PRESETS[name][0]))
    try:
        with torch.device("meta"):  # no memory, whatever sizes the file claims
            check_fit(build_model(name, **args), weights, path)
    except (TypeError, RuntimeError, UsageError) as error:
        raise UserError(f"{path} does not fit {name}: {error}; train again") from None
    model = build_model(name, **args)
    model.load_state_dict(weights, strict=True)
    return model.eval(), about

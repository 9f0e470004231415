"""The settings of every model, and their presets."""

from dataclasses import dataclass, fields, replace

from utils.cli import UsageError


@dataclass(frozen=True)
class Settings:
    """What a training needs to know. Each field is also a flag."""

    epochs: int  # upper bound; early stopping may end sooner
    lr: float  # before any decay
    optimizer: str  # one of utils.flags.OPTIMIZERS
    scheduler: str  # one of utils.flags.SCHEDULERS
    batch_size: int = 16  # images per step
    patience: int = 5  # validation checks without a new best
    image_size: int = 24  # pixels per side
    encoding_dim: int = 64  # numbers in the latent vector
    flips: bool = False  # mirror half of the training photos
    shift: int = 0  # pixels by which training photos are moved, at most
    ema: float = 0.0  # decay per step of the weights' running average; 0 is none
    beta: float | str = 1.0  # weight of the VAE's KL, or "optimal"
    pairs: int = 0  # antithetic, of draws per photo in a VAE's training; 0: one draw
    weight_decay: float = 0.0  # as a share of each step's learning rate
    warm_up: float = 0.25  # share of the steps in which a onecycle rate rises
    start: str = "own"  # initial weights: the model's own, or PyTorch's ("torch")


@dataclass(frozen=True)
class DiffusionSettings(Settings):
    """What the training of a diffusion model needs to know besides."""

    objective: str = "flow"  # one of utils.noise.OBJECTIVES
    density: str = "lognormal"  # one of utils.noise.DENSITIES, of noise levels
    level_mean: float = 0.7  # of ln(noise / signal), where it is normal
    level_deviation: float = 1.0  # of the same
    widths: tuple[int, ...] = (96, 160, 160)  # channels at each level of the U
    blocks: int = 1  # residual blocks a level, on either side of the U
    dropout: float = 0.0  # of features within a block
    label_dropout: float = 0.1  # share of photos whose species is not told
    precision: str = "auto"  # one of utils.flags.PRECISIONS
    guidance: float = 1.2  # of samples, where no other is asked for


def tuned(epochs, lr, optimizer, weight_decay, **more):
    """Return settings of one cycle on mirrored photos."""
    more |= {"weight_decay": weight_decay, "flips": True}
    return Settings(epochs, lr, optimizer, "onecycle", **more)


def flow(epochs, **more):
    """Return settings of flow matching on mirrored photos."""
    options = {"batch_size": 64, "ema": 0.998, "weight_decay": 0.1, "warm_up": 0.05}
    options |= {"patience": epochs, "flips": True}  # the last weights are the best
    return DiffusionSettings(epochs, 3e-3, "muon", "onecycle", **options | more)


# One row per model and optimizer that was measured; a model's first row is its default.
PRESETS = {
    "MLPAE": (
        Settings(epochs=100, lr=1.0, optimizer="sgd", scheduler="exponential"),
        tuned(60, 2e-3, "adamw", weight_decay=0.1),
    ),
    "AE": (
        tuned(15, 4e-3, "muon", weight_decay=0.45),
        tuned(15, 2e-3, "adamw", weight_decay=0.01),
        Settings(epochs=60, lr=3.0, optimizer="sgd", scheduler="onecycle"),
    ),
    "VAE": (
        tuned(20, 3e-3, "muon", weight_decay=0.5, shift=1, pairs=4),
        tuned(20, 2e-3, "adamw", weight_decay=0.01, shift=1, pairs=4),
    ),
    "diffusion": (flow(epochs=95),),
    "diffusion_16": (flow(epochs=40, guidance=1.9),),
    "diffusion_48": (flow(epochs=60, image_size=48, widths=(48, 96, 160, 160)),),
}


def settings_for(args, model):
    """Return the model's row, with the fields that the command line gave.

    An optimizer without a row takes the first one's settings, but no weight decay.

    Raises:
        UsageError: if no row has that optimizer and no `--lr` is given.
    """
    rows = PRESETS[model]
    flags = {field.name: getattr(args, field.name, None) for field in fields(rows[0])}
    given = {name: value for name, value in flags.items() if value is not None}
    if getattr(args, "budget", None) and "epochs" in given:
        raise UsageError("argument --budget: it sets the epochs; leave --epochs away")
    optimizer = given.get("optimizer", rows[0].optimizer)
    for row in rows:
        if row.optimizer == optimizer:
            return checked(replace(row, **given), given)
    if "lr" not in given:
        raise UsageError(
            f"argument --optimizer: {optimizer!r} was not measured for {model}; "
            "say its learning rate with --lr"
        )
    return checked(replace(rows[0], **{"weight_decay": 0.0, **given}), given)


def checked(settings, given):
    """Return the settings, or refuse a flag that would do nothing."""
    density = getattr(settings, "density", None)
    for names, does_nothing, why in (
        (
            ("warm_up",),
            settings.scheduler != "onecycle",
            f"the {settings.scheduler} rate does not rise; "
            "use it with --scheduler onecycle",
        ),
        (
            ("level_mean", "level_deviation"),
            density != "lognormal",
            f"the {density} density has none; use it with --density lognormal",
        ),
    ):
        for name in names:
            if name in given and does_nothing:
                raise UsageError(f"argument --{name.replace('_', '-')}: {why}")
    return settings

"""Settings of every model: each is declared once, as a field that is also a flag."""

# Also the vocabularies from which flags take their choices. Loads without torch.

import argparse
from dataclasses import MISSING, dataclass, field, fields, replace
from math import inf

from utils.cli import UsageError
from utils.cli.arguments import (
    MANY,
    channel_counts,
    finite_number,
    flag_of,
    number_from_zero,
    positive_number,
    positive_or_optimal,
    training_command,
    whole_number,
)

# Vocabularies ------------------------------------------------------------------
# Each names the rows of a table of bodies; a test holds both equal.

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "muon")  # utils.optim.factory
SCHEDULERS = ("exponential", "onecycle", "constant")  # utils.optim.factory
OBJECTIVES = ("flow", "v", "eps", "x0")  # utils.diffusion.denoiser
DENSITIES = ("lognormal", "cosine", "kit")  # utils.diffusion.denoiser
SAMPLERS = (
    "dpm++3m",
    "dpm++2m",
    "ipndm",
    "lms",
    "heun",
    "euler",
    "flow",
    "ddim",
    "ddpm",
)
METRICS = (  # utils.evaluation.evaluate
    "kernel distance to validation photos",
    "- to validation photos",
    "- extrapolated",
    "Frechet distance",
    "kernel distance",
    "recall at equal number",
    "precision at equal number",
    "copies by pixels",
    "nearest by pixels",
    "copies by features",
    "nearest by features",
)
EXTRACTORS = ("features", "features_b")  # utils.evaluation.features
PRIORS = ("normal", "gaussian", "gmm")  # utils.latents
PRECISIONS = ("auto", "fp32", "bf16")
SPECIES = ("astilbe", "bellflower", "calendula")  # the assignment's three
ALL_SPECIES = (
    *("astilbe", "bellflower", "black_eyed_susan", "calendula", "california_poppy"),
    *("carnation", "common_daisy", "coreopsis", "daffodil", "dandelion", "iris"),
    *("magnolia", "rose", "sunflower", "tulip", "water_lily"),
)
PHOTO_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

# Settings ----------------------------------------------------------------------

count, fraction = whole_number(1, MANY), number_from_zero(1)


def setting(default, help_text, **options):
    """Return a dataclass field; its metadata are its flag's `add_argument` options."""
    return field(default=default, metadata={"help": help_text, **options})


def fields_named(settings, *names):
    """Return some fields of a settings class, for the commands that take only those."""
    return [f for f in fields(settings) if f.name in names]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of any training."""

    epochs: int = setting(MISSING, "maximum number of epochs", type=count)
    batch_size: int = setting(16, "photos per optimizer step", type=count)
    lr: float = setting(MISSING, "highest learning rate", type=positive_number)
    optimizer: str = setting(MISSING, "optimizer", choices=OPTIMIZERS)
    # Decoupled for adamw and muon; added to the gradient for the others.
    weight_decay: float = setting(0.0, "weight decay", type=number_from_zero(1000))
    scheduler: str = setting(MISSING, "learning-rate schedule", choices=SCHEDULERS)
    warm_up: float = setting(
        0.25, "proportion of steps in which a onecycle rate rises", type=fraction
    )
    patience: int = setting(
        5, "validation checks without a new best before an early stop", type=count
    )
    image_size: int = setting(24, "pixels per side", type=whole_number(8, 1024))
    hflip: bool = setting(
        False,
        "flip half of the training photos horizontally",
        action=argparse.BooleanOptionalAction,
    )
    translate: int = setting(
        0, "maximum shift of training photos, in pixels", type=whole_number(0, 7)
    )
    ema: float = setting(
        0.0, "decay per step of the weights' moving average; 0 for none", type=fraction
    )


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(Settings):
    """Settings of the training of an autoencoder."""

    encoding_dim: int = setting(
        64, "dimension of the latent vector", type=whole_number(1, 65536)
    )
    beta: float | str = setting(
        1.0, "weight of the VAE's KL, or optimal: sigma-VAE", type=positive_or_optimal
    )
    # In training; 0 draws one vector.
    antithetic_pairs: int = setting(
        0, "antithetic pairs of the VAE's latent vectors", type=whole_number(0, 1000)
    )
    init_weights: str = setting(
        "own", "initial weights: the model's or PyTorch's", choices=("own", "torch")
    )


@dataclass(frozen=True)
class SamplerConfig:
    """Settings of sampling from a diffusion model, whose images are in [-1, 1]."""

    sampler: str = setting("dpm++3m", "sampler", choices=SAMPLERS)
    steps: int = setting(16, "number of sampler steps", type=whole_number(1, 10_000))
    # SCALE - 1 times the conditional minus the unconditional estimate is added.
    guidance: float = setting(
        1.0,
        "scale of classifier-free guidance; all but 1 evaluate the network once more",
        type=number_from_zero(1000),
        metavar="SCALE",
    )
    guidance_interval: tuple[float, float] = setting(
        (0.2, inf),
        "noise levels between which classifier-free guidance acts",
        type=number_from_zero(1e6),
        nargs=2,
        metavar=("LOW", "HIGH"),
    )
    eta: float = setting(
        0.0, "noise of ddim, relative to ddpm's", type=number_from_zero(1.001)
    )
    sigma_max: float = setting(80.0, "first noise level", type=positive_number)
    # Of the ancestral sampler: its whole schedule, or the part not below this level.
    sigma_min: float = setting(
        0.0,
        "last noise level, at which the image is estimated; 0: the sampler's own",
        type=number_from_zero(1e6),
    )
    # The same with the estimate by Guide_NAME.pkl, which has the network's own weights
    # after `guide_at` of the training.
    autoguidance: float = setting(
        1.0,
        "scale of guidance by early weights; all but 1 evaluate the network once more",
        type=number_from_zero(1000),
        metavar="SCALE",
    )


SAMPLER_FLAGS = tuple(flag_of(f.name) for f in fields(SamplerConfig))


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings(SamplerConfig, Settings):
    """Settings of the training of a diffusion model, and of sampling by default."""

    objective: str = setting("flow", "predicted quantity", choices=OBJECTIVES)
    density: str = setting(
        "lognormal", "distribution of noise levels in training", choices=DENSITIES
    )
    # Of ln(sigma / SIGMA_DATA), where that is normal.
    p_mean: float = setting(0.7, "mean of the log noise level", type=finite_number)
    p_std: float = setting(
        1.0, "standard deviation of the log noise level", type=positive_number
    )
    channels: tuple[int, ...] = setting(
        (96, 160, 160),
        "channels at each resolution of the U-Net, such as 64,128,128",
        type=channel_counts,
    )
    # In the encoder and in the decoder.
    num_blocks: int = setting(
        1, "residual blocks per resolution", type=whole_number(1, 16)
    )
    patch: int = setting(
        1, "pixels per side that the U-Net sees as one", type=whole_number(1, 16)
    )
    dropout: float = setting(0.0, "dropout probability of features", type=fraction)
    label_dropout: float = setting(
        0.1, "probability that a species is replaced by the null label", type=fraction
    )
    guide_at: float = setting(
        0.0,
        "proportion of the training after which the guide is saved; 0 for none",
        type=fraction,
    )
    # auto: bf16 on a device with units for it, else fp32
    precision: str = setting(
        "auto", "precision of the network's products", choices=PRECISIONS
    )


# Presets -----------------------------------------------------------------------


def onecycle(epochs, lr, optimizer, weight_decay, **options):
    """Return settings of an autoencoder trained by one cycle on flipped photos."""
    options |= {"epochs": epochs, "lr": lr, "optimizer": optimizer}
    options |= {"weight_decay": weight_decay, "scheduler": "onecycle", "hflip": True}
    return AutoencoderSettings(**options)


def diffusion(epochs, **options):
    """Return settings of a diffusion model trained by Muon on flipped photos."""
    defaults = {"epochs": epochs, "batch_size": 64, "lr": 3e-3, "optimizer": "muon"}
    defaults |= {"weight_decay": 0.1, "scheduler": "onecycle", "warm_up": 0.05}
    defaults |= {"hflip": True, "ema": 0.998, "density": "cosine"}
    defaults |= {"steps": 12, "sigma_min": 0.08, "autoguidance": 1.7, "guide_at": 0.25}
    defaults |= {"guidance": 1.6, "guidance_interval": (0.3, 5.0)}
    defaults["patience"] = epochs  # no early stop
    return DiffusionSettings(**defaults | options)


NARROW = (64, 112, 96)  # channels of fewer than 1.2 million parameters
NO_GUIDE = {"autoguidance": 1.0, "guide_at": 0.0}  # of trainings of few epochs
# A model that tools.reflow made: without guidance, which its training images have.
NO_GUIDANCE = {"guidance": 1.0, **NO_GUIDE}
FEW_STEPS = {"sampler": "flow", "steps": 2, "sigma_min": 0.0, **NO_GUIDANCE}
# The assignment's DDPM: uniform steps of its schedule, all of which are sampled.
DDPM = {"objective": "eps", "density": "kit", "sampler": "ddpm", "steps": 300}
DDPM |= {"sigma_min": 0.0, **NO_GUIDANCE}
# 64 x 64. At this guidance samples are classified as requested as often as photos are;
# autoguidance beside it makes them less often, and farther from the photos.
LARGE = {"image_size": 64, "patch": 2, "channels": (64, 128, 192), "guidance": 4.0}
LARGE |= NO_GUIDE

# One row per model and optimizer that was measured; a model's first row is its default.
PRESETS = {
    "MLPAE": (
        AutoencoderSettings(
            epochs=100, lr=1.0, optimizer="sgd", scheduler="exponential"
        ),
        onecycle(60, 2e-3, "adamw", weight_decay=0.1),
    ),
    "AE": (
        onecycle(15, 4e-3, "muon", weight_decay=0.6, translate=1, init_weights="torch"),
        onecycle(15, 2e-3, "adamw", weight_decay=0.01),
        AutoencoderSettings(epochs=60, lr=3.0, optimizer="sgd", scheduler="onecycle"),
    ),
    "VAE": (
        onecycle(20, 3e-3, "muon", weight_decay=0.5, translate=1, antithetic_pairs=4),
        onecycle(20, 2e-3, "adamw", weight_decay=0.01, translate=1, antithetic_pairs=4),
    ),
    "diffusion": (diffusion(epochs=95),),
    # The same in less or in more time; the settings of the last were not measured.
    "diffusion_quick": (diffusion(18, batch_size=32, channels=NARROW, **NO_GUIDE),),
    "diffusion_short": (diffusion(epochs=70, channels=NARROW),),
    "diffusion_long": (diffusion(epochs=570),),
    "diffusion_fast": (diffusion(epochs=8, channels=NARROW, **FEW_STEPS),),
    "diffusion_ddpm": (diffusion(95, **DDPM),),
    "diffusion_64": (diffusion(30, **LARGE),),
}
AUTOENCODERS = tuple(
    name for name, rows in PRESETS.items() if isinstance(rows[0], AutoencoderSettings)
)
DIFFUSION_MODELS = tuple(name for name in PRESETS if name not in AUTOENCODERS)
FAST = "diffusion_fast"  # made by tools.reflow; diffusion.py trains all others
TRAINED_MODELS = tuple(name for name in DIFFUSION_MODELS if name != FAST)
# What a training answers where it is asked for a model of another one.
ELSEWHERE = {name: f"train it with python {training_command(name)}" for name in PRESETS}


def settings_for(args, model):
    """Return the model's preset, with the fields that the command line gave.

    An optimizer without a preset takes the first one's settings, without weight decay.

    Raises:
        UsageError: if no preset has that optimizer and no `--lr` is given, or a flag
            has no effect.
    """
    rows = PRESETS[model]
    flags = {f.name: getattr(args, f.name, None) for f in fields(rows[0])}
    given = {name: value for name, value in flags.items() if value is not None}
    if getattr(args, "budget", None) and "epochs" in given:
        raise UsageError("argument --budget: it sets the epochs; omit --epochs")
    optimizer = given.get("optimizer", rows[0].optimizer)
    for row in rows:
        if row.optimizer == optimizer:
            return checked(replace(row, **given), given)
    if "lr" not in given:
        raise UsageError(
            f"argument --optimizer: {optimizer!r} was not measured for {model}; "
            "give its learning rate with --lr"
        )
    return checked(replace(rows[0], **{"weight_decay": 0.0, **given}), given)


def checked(settings, given):
    """Return the settings, or refuse a given flag that has no effect."""
    effects = {  # setting -> (setting that it needs, the value that it needs there)
        "warm_up": ("scheduler", "onecycle"),
        "p_mean": ("density", "lognormal"),
        "p_std": ("density", "lognormal"),
    }
    for name, (other, needed) in effects.items():
        if name in given and getattr(settings, other) != needed:
            raise UsageError(
                f"argument {flag_of(name)}: has no effect with {flag_of(other)} "
                f"{getattr(settings, other)}; use it with {flag_of(other)} {needed}"
            )
    if given.get("autoguidance", 1) != 1 and not settings.guide_at:
        raise UsageError(
            "argument --autoguidance: has no effect without a guide; save one with "
            "--guide-at"
        )
    return settings

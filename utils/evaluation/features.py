"""A small residual classifier of flowers, whose features are used for distances."""

from pathlib import Path

import torch
from torch import nn

from utils.checkpoint import load_checkpoint, restore
from utils.cli import UserError

CHANNELS = 64, 128, 256  # at 24 x 24, 12 x 12 and 6 x 6


class Residual(nn.Module):
    """Two convolutions and a shortcut, each followed by batch normalization."""

    # The shortcut downsamples by averaging (He T. et al. 2019, arXiv:1812.01187).

    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        # Without a change of size the shortcut is the identity.
        same = channels_in == channels_out and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True),
                nn.Conv2d(channels_in, channels_out, 1, bias=False),
                nn.BatchNorm2d(channels_out),
            )
        )
        nn.init.zeros_(self.branch[-1].weight)  # the block starts as its shortcut

    def forward(self, x):
        """(B, channels_in, H, W) -> (B, channels_out, ceil(H / stride), ...)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class FlowerFeatures(nn.Module):
    """A small residual classifier of species (He et al. 2016, arXiv:1512.03385).

    Calling it returns the features before the last layer, a mean over positions;
    `classify` returns logits.
    """

    def __init__(self, classes):
        super().__init__()
        self.classes = list(classes)
        self.args = {"classes": self.classes}  # kept in the file's metadata
        # Three resolutions, each entered by one residual block.
        channels_in, strides = (CHANNELS[0], *CHANNELS[:-1]), (1, 2, 2)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS[0]),
            nn.ReLU(),
            *(
                Residual(*sizes)
                for sizes in zip(channels_in, CHANNELS, strides, strict=True)
            ),
            nn.AdaptiveAvgPool2d(1),  # (B, 256, 1, 1)
            nn.Flatten(),  # (B, 256)
        )
        self.head = nn.Linear(CHANNELS[-1], len(self.classes))

    @property
    def name(self):
        return "features"

    def forward(self, images):
        """Return the features (B, 256) of images (B, 3, H, W) in [0, 1]."""
        return self.trunk(2 * images - 1)

    def classify(self, images):
        """Return the logits (B, classes) of images (B, 3, H, W) in [0, 1]."""
        return self.head(self(images))


def load_features(path):
    """Return the feature extractor of a file, in float32 and evaluation mode.

    Raises:
        UserError: if the file is missing, damaged, or holds another model.
    """
    # Refuse other files, with the command that makes the right one.
    if not Path(path).is_file():
        raise UserError(f"{path} is missing; make it: python -m tools.train_features")
    weights, metadata = load_checkpoint(path)
    if metadata.get("model") != "features":
        raise UserError(
            f"{path} holds no feature extractor; make one: "
            "python -m tools.train_features"
        )
    # The file is in half precision.
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    # The file decides the classes.
    try:
        return restore(lambda: FlowerFeatures(**metadata["args"]), weights, path)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} does not fit features: {error}; train again") from None


def find_extractor(name):
    """Return a function (B, 3, H, W) -> (B, D): pixels, Inception, or a file's."""
    if str(name) == "pixels":
        return nn.Flatten()
    return inception() if str(name) == "inception" else load_features(Path(name))


def inception():
    """Return torchmetrics' Inception, which downloads its weights at its first use."""
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"])  # D = 2048
    except ModuleNotFoundError as error:
        raise UserError(f"{error}; install it: pip install -e '.[metrics]'") from None
    return lambda images: network((images * 255).round().byte())

"""A small residual classifier of flowers, whose features measure distances offline."""

from pathlib import Path

import torch
from torch import nn

from utils.checkpoint import check_fit, load_checkpoint
from utils.cli import UserError

WIDTHS = 64, 128, 256  # channels at 24 x 24, 12 x 12 and 6 x 6


class Residual(nn.Module):
    """Two convolutions beside a shortcut, each followed by batch normalisation.

    The shortcut shrinks an image by averaging (He T. et al. 2019, arXiv:1812.01187).
    """

    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
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
        nn.init.zeros_(self.branch[-1].weight)  # the block begins as its shortcut

    def forward(self, x):
        """(B, channels_in, H, W) -> (B, channels_out, ceil(H / stride), ...)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class FlowerFeatures(nn.Module):
    """Classifier of species (He et al. 2016, arXiv:1512.03385), small.

    Calling it gives the features before the last layer, the mean over all places;
    `classify` gives scores.
    """

    def __init__(self, classes):
        super().__init__()
        self.classes = list(classes)
        self.args = {"classes": self.classes}
        befores, strides = (WIDTHS[0], *WIDTHS[:-1]), (1, 2, 2)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(),
            *(Residual(*sizes) for sizes in zip(befores, WIDTHS, strides, strict=True)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(WIDTHS[-1], len(self.classes))

    @property
    def name(self):
        return "features"

    def forward(self, images):
        """Images (B, 3, H, W) in [0, 1] -> features (B, 256)."""
        return self.trunk(2 * images - 1)

    def classify(self, images):
        """Images (B, 3, H, W) in [0, 1] -> scores (B, classes)."""
        return self.head(self(images))


def load_features(path):
    """Return the extractor of a file, in float32 and evaluation mode.

    Raises:
        UserError: if the file is missing, damaged, foreign, or holds another model.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing; make it: python -m tools.train_features")
    weights, about = load_checkpoint(path)
    if about.get("model") != "features":
        raise UserError(
            f"{path} holds no feature extractor; make one: "
            "python -m tools.train_features"
        )
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    try:
        with torch.device("meta"):  # no memory, whatever the file claims
            check_fit(FlowerFeatures(**about["args"]), weights, path)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} does not fit features: {error}; train again") from None
    model = FlowerFeatures(**about["args"])
    model.load_state_dict(weights, strict=True)
    return model.eval()


def find_extractor(name):
    """Return (B, 3, H, W) -> (B, D): pixels, Inception, or the features of a file."""
    if str(name) == "pixels":
        return nn.Flatten()
    return inception() if str(name) == "inception" else load_features(Path(name))


def inception():
    """Return torchmetrics' Inception, which downloads its weights at first use."""
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"])
    except ModuleNotFoundError as error:
        raise UserError(f"{error}; install it: pip install -e '.[metrics]'") from None
    return lambda images: network((images * 255).round().byte())

"""Two small classifiers of flowers, whose features are used for distances.

"features" chooses settings and measures; "features_b" only measures what was chosen
without it, so that its distances are those of a judge that nothing was tuned to.
"""

from pathlib import Path

import torch
from torch import nn

from utils.checkpoint import load_checkpoint, restore
from utils.cli import UserError

CHANNELS = 64, 128, 256  # at 24 x 24, 12 x 12 and 6 x 6
PLAIN_CHANNELS = 48, 96, 192


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


def residual_trunk():
    """Return the layers of a small ResNet (He et al. 2016, arXiv:1512.03385)."""
    # Three resolutions, each entered by one residual block.
    channels_in, strides = (CHANNELS[0], *CHANNELS[:-1]), (1, 2, 2)
    sizes = zip(channels_in, CHANNELS, strides, strict=True)
    return [
        nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(CHANNELS[0]),
        nn.ReLU(),
        *(Residual(*size) for size in sizes),
    ]


def plain_trunk():
    """Return the layers of a small VGG (Simonyan & Zisserman 2015, arXiv:1409.1556)."""
    # No shortcuts; GELU, group norms and maximum pooling instead of ReLU, batch norms
    # and strides.
    layers, before = [], 3
    for channels in PLAIN_CHANNELS:
        for _ in range(2):
            layers += [
                nn.Conv2d(before, channels, 3, padding=1),
                nn.GroupNorm(channels // 16, channels),
                nn.GELU(),
            ]
            before = channels
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return layers[:-1]  # the last features are averaged


TRUNKS = {  # name -> (function that returns the layers, number of features)
    "features": (residual_trunk, CHANNELS[-1]),
    "features_b": (plain_trunk, PLAIN_CHANNELS[-1]),
}


class FlowerFeatures(nn.Module):
    """A small classifier of species.

    Calling it returns the D features before the last layer, a mean over positions;
    `classify` returns logits. name: one of TRUNKS.
    """

    def __init__(self, classes, name="features"):
        super().__init__()
        self.name, self.classes = name, list(classes)
        self.args = {"classes": self.classes, "name": name}  # in the file's metadata
        layers, features = TRUNKS[name]
        self.trunk = nn.Sequential(
            *layers(),
            nn.AdaptiveAvgPool2d(1),  # (B, D, 1, 1)
            nn.Flatten(),  # (B, D)
        )
        self.head = nn.Linear(features, len(self.classes))

    def forward(self, images):
        """Return the features (B, D) of images (B, 3, H, W) in [0, 1]."""
        return self.trunk(2 * images - 1)

    def classify(self, images):
        """Return the logits (B, classes) of images (B, 3, H, W) in [0, 1]."""
        return self.head(self(images))


def load_features(path, device="cpu"):
    """Return the feature extractor of a file, in float32 and evaluation mode.

    Raises:
        UserError: if the file is missing, damaged, or holds another model.
    """
    # Refuse other files, with the command that makes the right one.
    if not Path(path).is_file():
        raise UserError(f"{path} is missing; make it: python -m tools.train_features")
    weights, metadata = load_checkpoint(path)
    if metadata.get("model") not in TRUNKS:
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
        model = restore(lambda: FlowerFeatures(**metadata["args"]), weights, path)
        return model.to(device)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} does not fit features: {error}; train again") from None


def find_extractor(name, device="cpu"):
    """Return a function (B, 3, H, W) -> (B, D): pixels, Inception, or a file's."""
    if str(name) == "pixels":
        return nn.Flatten()
    if str(name) == "inception":
        return inception(device)
    return load_features(Path(name), device)


def inception(device):
    """Return torchmetrics' Inception, which downloads its weights at its first use."""
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"])  # D = 2048
    except ModuleNotFoundError as error:
        raise UserError(f"{error}; install it: pip install -e '.[metrics]'") from None
    network = network.to(device)
    return lambda images: network((images.to(device) * 255).round().byte())

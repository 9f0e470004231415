"""Part 2: a convolutional autoencoder.

3 x H x W -> 32 x H/2 x W/2 -> 64 x H/4 x W/4 -> 128 x H/4 x W/4 -> latent vector
          -> 128 x H/4 x W/4 -> 64 x H/4 x W/4 -> 32 x H/2 x W/2 -> 3 x H x W

The encoder halves the image by max pooling; the decoder doubles it by transposed
convolutions whose 4x4 kernel is a multiple of the stride, so that every output pixel
sums over the same number of kernel entries, which avoids checkerboard artefacts.
"""

import torch
from torch import nn

AE_ENCODING_DIM = 64  # numbers in the latent vector


def quarter(img_width, img_height):
    """Return (W / 4, H / 4).

    Raises:
        ValueError: if a side is not a multiple of 4.
    """
    for name, value in (("img_width", img_width), ("img_height", img_height)):
        if value < 4 or value % 4:
            raise ValueError(f"{name} must be a multiple of 4, got {value}")
    return img_width // 4, img_height // 4


def init_weights(module):
    """Initialize a layer by He's scheme, which keeps the variance under ReLU.

    He et al. 2015, "Delving Deep into Rectifiers", equation 10. In a
    transposed convolution of stride s, 1 / s^2 of the kernel contributes to an output.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.ConvTranspose2d):
        rows, columns = module.kernel_size
        inputs = module.in_channels * rows * columns / module.stride[0] ** 2
        nn.init.normal_(module.weight, std=(2 / inputs) ** 0.5)
        nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    """Images (B, 3, H, W) -> latent vectors (B, encoding_dim)."""

    def __init__(self, encoding_dim, img_width=24, img_height=24):
        super().__init__()
        if encoding_dim < 1:
            raise ValueError(f"encoding_dim must be at least 1, got {encoding_dim}")
        width, height = quarter(img_width, img_height)
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 32 x H/2 x W/2
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 64 x H/4 x W/4
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
        )
        # From image features to the latent vector.
        self.latent = nn.Linear(128 * height * width, encoding_dim)
        self.apply(init_weights)

    def forward(self, x):
        """Return the codes (B, encoding_dim) of images (B, 3, H, W) in [0, 1]."""
        features = self.features(x)  # (B, 128, H/4, W/4)
        return self.latent(features.flatten(1))  # (B, encoding_dim)


class Decoder(nn.Module):
    """Latent vectors (B, encoding_dim) -> images (B, 3, H, W) in [0, 1]."""

    def __init__(self, encoding_dim, img_width=24, img_height=24):
        super().__init__()
        width, height = quarter(img_width, img_height)
        self.features = nn.Sequential(
            nn.Linear(encoding_dim, 128 * height * width),
            nn.ReLU(),
            nn.Unflatten(1, (128, height, width)),
        )
        # A kernel of 4 is a multiple of the stride of 2.
        self.image = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )
        self.apply(init_weights)
        # Small last weights: initial outputs stay near the mean colour.
        with torch.no_grad():
            self.image[-2].weight.mul_(0.3)

    def forward(self, z):
        """Return the images (B, 3, H, W) in [0, 1] of codes (B, encoding_dim)."""
        features = self.features(z)  # (B, 128, H/4, W/4)
        return self.image(features)  # (B, 3, H, W)


class Autoencoder(nn.Module):
    """Compresses an image to `encoding_dim` numbers and back, by convolutions.

    Raises:
        ValueError: if a side is not a multiple of 4, or `encoding_dim` is below 1.
    """

    def __init__(self, encoding_dim, img_width=24, img_height=24):
        super().__init__()
        self.args = {
            "encoding_dim": encoding_dim,
            "img_width": img_width,
            "img_height": img_height,
        }
        self.encoder = Encoder(encoding_dim, img_width, img_height)
        self.decoder = Decoder(encoding_dim, img_width, img_height)

    @property
    def name(self):
        return "AE"

    @torch.no_grad()
    def init_output_bias(self, channel_means):
        """Set the last bias so that the initial outputs are near the mean colour.

        channel_means: (3,), in (0, 1); the bias becomes their logit.
        """
        self.decoder.image[-2].bias.copy_(torch.logit(channel_means, eps=1e-3))

    def forward(self, x):
        """Return the reconstructions of images (B, 3, H, W), all in [0, 1]."""
        return self.decoder(self.encoder(x))

"""Part 1: an autoencoder of fully connected layers.

3 * H * W -> 256 -> 128 -> latent vector -> 128 -> 256 -> 3 * H * W

ReLU on the hidden layers, none on the latent vector, and a sigmoid at the end, so that
every output value lies in [0, 1].
"""

import torch
from torch import nn

MLPAE_ENCODING_DIM = 64  # numbers in the latent vector


def start_layer(module):
    """He initialisation of any layer: keeps the signal's variance under ReLU.

    He et al. 2015, "Delving Deep into Rectifiers", equation 10.
    """
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


class MLPAutoencoder(nn.Module):
    """Compress an image to `encoding_dim` numbers and back, by linear layers.

    Any image size is accepted; it is fixed at construction.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, encoding_dim, img_width, img_height, img_channel=3):
        super().__init__()
        self.args = {
            "encoding_dim": encoding_dim,
            "img_width": img_width,
            "img_height": img_height,
            "img_channel": img_channel,
        }
        for name, value in self.args.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        image_shape = (img_channel, img_height, img_width)
        values = img_channel * img_height * img_width
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(values, 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, encoding_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(encoding_dim, 128),
            nn.ReLU(),
            nn.Linear(128, 256),
            nn.ReLU(),
            nn.Linear(256, values),
            nn.Sigmoid(),
            nn.Unflatten(1, image_shape),
        )
        self.apply(start_layer)

    @property
    def name(self):
        return "MLPAE"

    @torch.no_grad()
    def start_at(self, channel_means):
        """Let an untrained decoder answer with the average colour of the photos.

        channel_means: (C,), in (0, 1); the last bias becomes their logit.
        """
        bias = self.decoder[-3].bias  # (C * H * W,)
        pixels = bias.numel() // len(channel_means)
        bias.copy_(torch.logit(channel_means, eps=1e-3).repeat_interleave(pixels))

    def forward(self, x):
        """Images (B, C, H, W) in [0, 1] -> reconstructions of the same shape."""
        return self.decoder(self.encoder(x))

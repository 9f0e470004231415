"""Part 1: an autoencoder of fully connected layers.

3 * H * W -> 256 -> 128 -> latent vector -> 128 -> 256 -> 3 * H * W

ReLU on the hidden layers, none on the latent vector, and a sigmoid at the end, so that
every output value lies in [0, 1].
"""

import torch
from torch import nn

MLPAE_ENCODING_DIM = 64  # numbers in the latent vector


def init_weights(module):
    """Initialize a layer by He's scheme, which keeps the variance under ReLU.

    He et al. 2015, "Delving Deep into Rectifiers", equation 10.
    """
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


class MLPAutoencoder(nn.Module):
    """Compresses an image to `encoding_dim` numbers and back, by linear layers.

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
        values = img_channel * img_height * img_width  # 1,728 for 3 x 24 x 24

        # No ReLU after the last layer: a code is not a hidden activation.
        self.encoder = nn.Sequential(
            nn.Flatten(),  # (B, C, H, W) -> (B, C * H * W)
            nn.Linear(values, 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, encoding_dim),
        )
        # Not a softmax, over which all values of an image would sum to 1.
        self.decoder = nn.Sequential(
            nn.Linear(encoding_dim, 128),
            nn.ReLU(),
            nn.Linear(128, 256),
            nn.ReLU(),
            nn.Linear(256, values),
            nn.Sigmoid(),
            nn.Unflatten(1, image_shape),  # -> (B, C, H, W)
        )
        self.apply(init_weights)

    @property
    def name(self):
        return "MLPAE"

    @torch.no_grad()
    def init_output_bias(self, channel_means):
        """Set the last bias so that the initial outputs are near the mean colour.

        channel_means: (C,), in (0, 1); the bias becomes their logit.
        """
        bias = self.decoder[-3].bias  # (C * H * W,)
        pixels = bias.numel() // len(channel_means)
        bias.copy_(torch.logit(channel_means, eps=1e-3).repeat_interleave(pixels))

    def forward(self, x):
        """Return the reconstructions of images (B, C, H, W), all in [0, 1]."""
        return self.decoder(self.encoder(x))

"""Part 3: a variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114).

3 x H x W -> 32 x H/2 x W/2 -> 64 x H/4 x W/4 -> 128 x H/4 x W/4 -> mean, log-variance
latent vector ~ N(mean, variance)
          -> 128 x H/4 x W/4 -> 64 x H/4 x W/4 -> 32 x H/2 x W/2 -> 3 x H x W

The convolutions are those of Autoencoder.py, written out again: each part of the
assignment is read on its own.
"""

import torch
import torch.nn.functional as F
from torch import nn

VAE_ENCODING_DIM = 64  # numbers in the latent vector


def quarter(img_width, img_height):
    """Return (W / 4, H / 4), or refuse sizes that two halvings do not divide."""
    for name, value in (("img_width", img_width), ("img_height", img_height)):
        if value < 4 or value % 4:
            raise ValueError(f"{name} must be a multiple of 4, got {value}")
    return img_width // 4, img_height // 4


class VarEncoder(nn.Module):
    """Images (B, 3, H, W) -> the Gaussian q(z | x), as mean and log-variance."""

    def __init__(self, encoding_dim, img_width=24, img_height=24):
        super().__init__()
        if encoding_dim < 1:
            raise ValueError(f"encoding_dim must be at least 1, got {encoding_dim}")
        width, height = quarter(img_width, img_height)
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
        )
        self.mean = nn.Linear(128 * height * width, encoding_dim)
        self.log_variance = nn.Linear(128 * height * width, encoding_dim)

    def forward(self, x):
        """Images (B, 3, H, W) in [0, 1] -> (mu, log_var), each (B, encoding_dim)."""
        features = self.features(x).flatten(1)  # (B, 128 * H/4 * W/4)
        return self.mean(features), self.log_variance(features)  # 2 x (B, D)


class VarDecoder(nn.Module):
    """Latent vectors (B, encoding_dim) -> images (B, 3, H, W) in [0, 1]."""

    def __init__(self, encoding_dim, img_width=24, img_height=24):
        super().__init__()
        width, height = quarter(img_width, img_height)
        self.features = nn.Sequential(
            nn.Linear(encoding_dim, 128 * height * width),
            nn.ReLU(),
            nn.Unflatten(1, (128, height, width)),
        )
        self.image = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z):
        """Latent vectors (B, encoding_dim) -> images (B, 3, H, W) in [0, 1]."""
        features = self.features(z)  # (B, 128, H/4, W/4)
        return self.image(features)  # (B, 3, H, W)


class VarAutoencoder(nn.Module):
    """Encode an image as a Gaussian, draw from it, decode the draw.

    Raises:
        ValueError: if a side is no multiple of 4, or `encoding_dim` is below 1.
    """

    def __init__(self, encoding_dim, img_width=24, img_height=24):
        super().__init__()
        self.args = {
            "encoding_dim": encoding_dim,
            "img_width": img_width,
            "img_height": img_height,
        }
        self.encoder = VarEncoder(encoding_dim, img_width, img_height)
        self.decoder = VarDecoder(encoding_dim, img_width, img_height)

    @property
    def name(self):
        return "VAE"

    @torch.no_grad()
    def start_at(self, channel_means):
        """Let an untrained decoder answer with the average colour of the photos.

        channel_means: (3,), in (0, 1); the last bias becomes their logit.
        """
        self.decoder.image[-2].bias.copy_(torch.logit(channel_means, eps=1e-3))

    def reparameterize(self, mu, log_var):
        """Draw z ~ N(mu, exp(log_var)) so that gradients reach both: (B, D)."""
        return mu + (log_var / 2).exp() * torch.randn_like(mu)

    def forward(self, x):
        """Images (B, 3, H, W) in [0, 1] -> (reconstructions, mu, log_var).

        Draws in evaluation too, since the bound is an expectation over z.
        """
        mu, log_var = self.encoder(x)  # 2 x (B, D)
        z = self.reparameterize(mu, log_var)  # (B, D)
        return self.decoder(z), mu, log_var

    def details(self, x):
        """The parts of the loss for each image: names -> (B,), beside the sum.

        `loss_at_mean` replaces the draw of z by its mean.
        """
        reconstruction, mu, log_var = self(x)
        kl = kl_to_standard_normal(mu, log_var)  # (B,)
        return {
            "squared_error": squared_error(reconstruction, x),
            "kl": kl,
            "loss_at_mean": squared_error(self.decoder(mu), x) + kl,
        }


def squared_error(reconstruction, images):
    """Squared error summed over an image's values: 2 x (B, C, H, W) -> (B,)."""
    return F.mse_loss(reconstruction, images, reduction="none").flatten(1).sum(dim=1)


def kl_to_standard_normal(mu, log_var):
    """KL(N(mu, exp(log_var)) || N(0, 1)), summed over the latent: (B, D) -> (B,).

    Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(dim=1)


def VAE_loss_function(outputs, images):
    """Squared error plus KL, both summed over the whole batch -> scalar.

    The negative evidence lower bound of Kingma & Welling 2014, equation 10, for a
    Gaussian decoder of variance 1/2, up to a constant.
    """
    reconstruction, mu, log_var = outputs
    error = F.mse_loss(reconstruction, images, reduction="sum")
    return error + kl_to_standard_normal(mu, log_var).sum()


VAE_loss_function.reduction = "sum"  # torch's word for "not divided by the batch"

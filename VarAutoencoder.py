"""Part 3: a variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114).

3 x H x W -> 32 x H/2 x W/2 -> 64 x H/4 x W/4 -> 128 x H/4 x W/4 -> mean, log-variance
latent vector ~ N(mean, variance)
          -> 128 x H/4 x W/4 -> 64 x H/4 x W/4 -> 32 x H/2 x W/2 -> 3 x H x W

The convolutions are those of Autoencoder.py, repeated here because each part of the
assignment is read on its own. The activation is GELU (Hendrycks & Gimpel 2016,
arXiv:1606.08415; the assignment does not fix it), which reached a lower loss than ReLU.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

VAE_ENCODING_DIM = 64  # numbers in the latent vector
ACTIVE = 0.01  # variance of a mean over images, above which its dimension is active


def quarter(img_width, img_height):
    """Return (W / 4, H / 4)."""
    # Raises ValueError if a side is not a multiple of 4.
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
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.GELU(),
            nn.MaxPool2d(2),  # 32 x H/2 x W/2
            nn.Conv2d(32, 64, 3, padding=1),
            nn.GELU(),
            nn.MaxPool2d(2),  # 64 x H/4 x W/4
            nn.Conv2d(64, 128, 3, padding=1),
            nn.GELU(),
        )
        # Two linear outputs: mean and log-variance.
        self.mean = nn.Linear(128 * height * width, encoding_dim)
        self.log_variance = nn.Linear(128 * height * width, encoding_dim)

    def forward(self, x):
        """Return (mu, log_var), each (B, encoding_dim), of images (B, 3, H, W)."""
        features = self.convolutions(x).flatten(1)  # (B, 128 * H/4 * W/4)
        return self.mean(features), self.log_variance(features)  # 2 x (B, D)


class VarDecoder(nn.Module):
    """Latent vectors (B, encoding_dim) -> images (B, 3, H, W) in [0, 1]."""

    def __init__(self, encoding_dim, img_width=24, img_height=24):
        super().__init__()
        width, height = quarter(img_width, img_height)
        self.features = nn.Sequential(
            nn.Linear(encoding_dim, 128 * height * width),
            nn.GELU(),
            nn.Unflatten(1, (128, height, width)),
        )
        self.image = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z):
        """Return the images (B, 3, H, W) in [0, 1] of codes (B, encoding_dim)."""
        features = self.features(z)  # (B, 128, H/4, W/4)
        return self.image(features)  # (B, 3, H, W)


class VarAutoencoder(nn.Module):
    """Encodes an image as a Gaussian, samples it, and decodes the sample.

    antithetic_pairs: pairs of latent vectors per image in training; with 0 one vector.

    Raises:
        ValueError: if a side is not a multiple of 4, or `encoding_dim` is below 1.
    """

    def __init__(self, encoding_dim, img_width=24, img_height=24, antithetic_pairs=0):
        super().__init__()
        self.args = {
            "encoding_dim": encoding_dim,
            "img_width": img_width,
            "img_height": img_height,
            "antithetic_pairs": antithetic_pairs,
        }
        self.encoder = VarEncoder(encoding_dim, img_width, img_height)
        self.decoder = VarDecoder(encoding_dim, img_width, img_height)
        self.antithetic_pairs = antithetic_pairs

    @property
    def name(self):
        return "VAE"

    @torch.no_grad()
    def init_output_bias(self, channel_means):
        """Set the last bias so that the initial outputs are near the mean colour."""
        # channel_means: (3,), in (0, 1); the bias becomes their logit.
        self.decoder.image[-2].bias.copy_(torch.logit(channel_means, eps=1e-3))

    def reparameterize(self, mu, log_var):
        """Draw z ~ N(mu, exp(log_var)), differentiable in both: (B, D)."""
        return mu + (log_var / 2).exp() * torch.randn_like(mu)

    def forward(self, x):
        """Images (B, 3, H, W) in [0, 1] -> (reconstructions, mu, log_var).

        Samples z in evaluation mode too, since the bound is an expectation over z. In
        training with K antithetic pairs the reconstructions are (2 K, B, 3, H, W).
        """
        # q(z | x), the approximate posterior.
        mu, log_var = self.encoder(x)  # each (B, D)
        if self.training and self.antithetic_pairs:
            z = self.antithetic_draws(mu, log_var)  # (2 K, B, D)
            images = self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
            return images, mu, log_var
        z = self.reparameterize(mu, log_var)  # (B, D)
        return self.decoder(z), mu, log_var

    def antithetic_draws(self, mu, log_var):
        """Draw pairs of z on opposite sides of the mean -> (2 K, B, D)."""
        # In the mean over a pair, terms of the gradient that are odd in the noise
        # cancel (Wu et al. 2019, arXiv:1810.02555).
        noise = mu.new_empty(self.antithetic_pairs, *mu.shape).normal_()
        noise = (log_var / 2).exp() * noise  # (K, B, D)
        return torch.cat([mu + noise, mu - noise])

    def validation_details(self, x, _labels=None):
        """Return what `summarize_details` needs of images: names -> (B,) or (B, D)."""
        reconstruction, mu, log_var = self(x)
        return {
            "squared_error": squared_error(reconstruction, x),
            "squared_error_at_mean": squared_error(self.decoder(mu), x),
            "kl": kl_to_standard_normal(mu, log_var),
            "mu": mu,
        }

    def summarize_details(self, details):
        """Details of many images -> names -> numbers, logged beside the loss."""
        # The loss's parts per image; `loss_at_mean`, with the mean in place of a draw
        # and an unweighted KL; the KL of each dimension; and the number of active
        # units, whose mean varies by more than ACTIVE over the images (Burda et al.
        # 2016, arXiv:1509.00519, section 5.2).
        error, at_mean, kl = (
            details[name].mean(dim=0)
            for name in ("squared_error", "squared_error_at_mean", "kl")
        )
        active = details["mu"].var(dim=0, correction=0) > ACTIVE
        return {
            "squared_error": error.item(),
            "kl": kl.sum().item(),
            "loss_at_mean": (at_mean + kl.sum()).item(),
            "active_units": active.sum().item(),
            **{f"kl_{i:02}": value for i, value in enumerate(kl.tolist())},
        }


# Losses ------------------------------------------------------------------------


def squared_error(reconstruction, images):
    """Return the squared error, a sum over each image: 2 x (B, C, H, W) -> (B,)."""
    return F.mse_loss(reconstruction, images, reduction="none").flatten(1).sum(dim=1)


def kl_to_standard_normal(mu, log_var):
    """Return KL(N(mu, exp(log_var)) || N(0, 1)) of each dimension: (B, D)."""
    # Kingma & Welling 2014, appendix B.
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var)


def VAE_loss_function(outputs, images, beta=1.0):
    """Return squared error plus beta times KL, each a sum over the batch: a scalar.

    The negative evidence lower bound of Kingma & Welling 2014, equation 10, for a
    Gaussian decoder of variance beta / 2, up to a constant and a factor.

    outputs: (reconstructions, mu, log_var); of several reconstructions per image, (K,
    B, C, H, W), the error is the mean. images: (B, C, H, W).
    """
    # The error: a mean over draws, a sum over batch and values.
    reconstruction, mu, log_var = outputs
    repeated = images.expand_as(reconstruction)
    error = F.mse_loss(reconstruction, repeated, reduction="sum")
    error = error * (images.numel() / repeated.numel())
    return error + beta * kl_to_standard_normal(mu, log_var).sum()


def calibrated_loss_function(outputs, images):
    """Return negative log-likelihood plus KL in nats, a sum over the batch: a scalar.

    The decoder's variance is the optimal one for the batch, its mean squared error: the
    sigma-VAE of Rybkin et al. 2021, arXiv:2006.13202. A density can exceed 1, so the
    loss can be negative.
    """
    reconstruction, mu, log_var = outputs
    variance = F.mse_loss(reconstruction, images.expand_as(reconstruction))
    likelihood = images.numel() / 2 * (torch.log(2 * torch.pi * variance) + 1)
    return likelihood + kl_to_standard_normal(mu, log_var).sum()


def loss_for(beta):
    """Return the loss for a weight of the KL, or for "optimal" the calibrated one."""
    if beta == "optimal":
        return calibrated_loss_function
    return partial(VAE_loss_function, beta=beta)

"""Small diffusion models, ideal ones, and files of them."""

import torch

from diffusion import Diffuser
from utils.checkpoint import save_checkpoint

SIGMA_DATA = 0.5  # of the photos, by which the network's units divide
VARIANCE = 0.25  # of the images of `gaussian`
SPECIES = ["astilbe", "bellflower", "calendula"]


def small(n_steps=300, **network):
    """Return an untrained model of few weights, in evaluation mode."""
    torch.manual_seed(0)
    return Diffuser(n_steps, **{"channels": (16,), **network}).eval()


def randomize_zeros(module):
    """Give random values to all weights that start as zeros; return the module."""
    with torch.no_grad():
        for weight in module.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return module


def ideal(model, estimate):
    """Replace the network's output by what an estimate implies; return the model.

    estimate(x, sigma (B, 1, 1, 1), labels) estimates the image, (B, C, H, W). The
    targets are computed independently of the code under test, v by its angle.
    """

    def model_output(x, sigma, labels):
        sigma = sigma.double().view(-1, 1, 1, 1)
        x = x.double() * (1 + sigma**2).sqrt()
        x_0 = estimate(SIGMA_DATA * x, SIGMA_DATA * sigma, labels) / SIGMA_DATA
        noise, angle = (x - x_0) / sigma, torch.atan(sigma)
        outputs = {
            "eps": noise,
            "x0": x_0,
            "v": angle.cos() * noise - angle.sin() * x_0,
            "flow": noise - x_0,
        }
        return outputs[model.objective].float()

    model.network.forward = model_output
    return model


def ideal_for(model, photos):
    """Replace the network's output by the ideal one for photos (N, C, H, W).

    The ideal estimate is the mean of the photos, weighted by their likelihood given x.
    """
    photos = photos.double()

    def mean_photo(x, sigma, labels):
        squares = (x[:, None] - photos).flatten(2).square().sum(dim=2)  # (B, N)
        weights = torch.softmax(-squares / (2 * sigma.view(-1, 1) ** 2), dim=1)
        return torch.einsum("bn,nchw->bchw", weights, photos)

    return ideal(model, mean_photo)


def gaussian(x, sigma, labels=None):
    """Return the ideal estimate of the image in x for images of N(0, VARIANCE)."""
    return x * VARIANCE / (VARIANCE + sigma**2)


def save_small(path, **network):
    """Save a small model of 8 x 8 photos, with the metadata that a training saves."""
    metadata = {
        "settings": {"image_size": 8, "ema": 0.9},
        "data": {
            "classes": SPECIES,
            "count": 30,
            "source": "photos",
            "split_seed": 0,
            "split": "0",
        },
        "class_proportions": [0.5, 0.25, 0.25],
        "epoch": 3,
        "valid_loss": 0.25,
    }
    save_checkpoint(path, randomize_zeros(small(**network)), metadata)
    return path

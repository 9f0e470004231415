"""Small diffusion models, ideal ones, and files of them."""

import torch

from diffusion import Diffuser
from utils.checkpoint import save_checkpoint

SIGMA_DATA = 0.5  # of the photos, by which the network's units divide
VARIANCE = 0.25  # of the images that `gaussian` knows
SPECIES = ["astilbe", "bellflower", "calendula"]


def small(n_steps=300, **network):
    """Return an untrained model of few weights, in evaluation mode."""
    torch.manual_seed(0)
    return Diffuser(n_steps, **{"channels": (16,), **network}).eval()


def awake(module):
    """Give random values to all weights that start as zeros; return the module."""
    with torch.no_grad():
        for weight in module.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return module


def ideal(model, estimate):
    """Let the network answer as an estimate of the image implies; return the model.

    estimate(x, sigma (B, 1, 1, 1), labels) -> (B, C, H, W); the objectives are written
    down anew, the velocity v by its angle.
    """

    def model_output(x, sigma, labels):
        sigma = sigma.double().view(-1, 1, 1, 1)
        x = x.double() * (1 + sigma**2).sqrt()
        x_0 = estimate(SIGMA_DATA * x, SIGMA_DATA * sigma, labels) / SIGMA_DATA
        noise, angle = (x - x_0) / sigma, torch.atan(sigma)
        answers = {
            "eps": noise,
            "x0": x_0,
            "v": angle.cos() * noise - angle.sin() * x_0,
            "flow": noise - x_0,
        }
        return answers[model.objective].float()

    model.network.forward = model_output
    return model


def knowing(model, photos):
    """Let the network answer as if these photos (N, C, H, W) were all there are.

    The best estimate is the mean over the photos, by how likely each is in the noise.
    """
    photos = photos.double()

    def mean_photo(x, sigma, labels):
        far = (x[:, None] - photos).flatten(2).square().sum(dim=2)  # (B, N)
        shares = torch.softmax(-far / (2 * sigma.view(-1, 1) ** 2), dim=1)
        return torch.einsum("bn,nchw->bchw", shares, photos)

    return ideal(model, mean_photo)


def gaussian(x, sigma, labels=None):
    """Estimate the image in x, knowing that images are of N(0, VARIANCE)."""
    return x * VARIANCE / (VARIANCE + sigma**2)


def save_small(path, **network):
    """Save a small awake model of 8 x 8 photos, described as training describes it."""
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
    save_checkpoint(path, awake(small(**network)), metadata)
    return path

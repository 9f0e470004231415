"""Codes of an autoencoder: how to get them, and ways from one to another."""

import torch


@torch.no_grad()
def encode(model, images, draw=True, batch_size=256):
    """Images (N, 3, H, W) in [0, 1] -> codes (N, D).

    Of a Gaussian encoder a draw, or its mean.
    """
    parts = []
    for batch in images.split(batch_size):
        code = model.encoder(batch)
        if isinstance(code, tuple):
            code = model.reparameterize(*code) if draw else code[0]
        parts.append(code)
    return torch.cat(parts)


def linear(start, end, steps):
    """Codes (D,) -> codes (steps, D) on the straight line, both ends included."""
    t = torch.linspace(0, 1, steps)[:, None]
    return (1 - t) * start + t * end


def spherical(start, end, steps):
    """Codes (D,) -> codes (steps, D) on the arc about 0, both ends included.

    Shoemake 1985; keeps the length of codes that are alike in length, as draws of
    N(0, I) are (White 2016, arXiv:1609.04468). Codes on one line are joined by it.
    """
    cosine = torch.cosine_similarity(start, end, dim=0).clamp(-1, 1)
    angle = torch.acos(cosine)
    if torch.sin(angle) < 1e-2:
        return linear(start, end, steps)
    t = torch.linspace(0, 1, steps)[:, None]
    ways = torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end
    return ways / torch.sin(angle)

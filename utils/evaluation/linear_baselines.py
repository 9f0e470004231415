"""Linear models in closed form, which an autoencoder has to beat."""

from typing import NamedTuple

import torch


class PrincipalAxes(NamedTuple):
    """The axes of largest variance of a set of images."""

    mean: torch.Tensor  # (D,)
    axes: torch.Tensor  # (components, D), orthonormal, the largest variance first

    def codes(self, images):
        """Return the coordinates (N, components) of images (N, ...) on the axes."""
        return (images.flatten(1).double() - self.mean) @ self.axes.T

    def reconstruct(self, images):
        """Return the projections of images (N, ...) on the axes, of the same shape."""
        return (self.codes(images) @ self.axes + self.mean).view(images.shape)


def fit_pca(images, components):
    """Return the PrincipalAxes of images (N, ...): the best linear autoencoder.

    Raises:
        ValueError: if there are fewer images or values than components.
    """
    flat = images.flatten(1).double()  # (N, D)
    if not 1 <= components <= min(flat.shape):
        raise ValueError(f"components must be 1 to {min(flat.shape)}, got {components}")
    mean = flat.mean(dim=0)
    axes = torch.linalg.svd(flat - mean, full_matrices=False).Vh
    return PrincipalAxes(mean, axes[:components])


def best_linear_bound(images, encoding_dim, validation=None):
    """Return the least squared error plus KL per image of any linear Gaussian VAE.

    A linear VAE is probabilistic PCA (Lucas et al. 2019, arXiv:1911.02469). Squared
    error means a decoder variance of 1/2. With validation images, the loss of those
    under the VAE that is optimal for `images`.
    """
    flat = images.flatten(1).double()  # (N, D)
    mean = flat.mean(dim=0)
    _, scales, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    variances = scales[:encoding_dim].square() / len(flat)  # maximum likelihood

    # A principal axis of variance v > 1/2 that a latent dimension encodes costs c^2 /
    # 2v + ln(2v) / 2 for an image at coordinate c on it; every other axis costs c^2.
    variances = variances[variances > 0.5]  # (K,)
    centred = (images if validation is None else validation).flatten(1).double() - mean
    squares = (centred @ axes[: len(variances)].T).square()  # (M, K)
    costs = squares / (2 * variances) + torch.log(2 * variances) / 2
    rest = centred.square().sum(dim=1) - squares.sum(dim=1)
    return (costs.sum(dim=1) + rest).mean().item()

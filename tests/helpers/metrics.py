"""Sets of features whose mean and covariance are known."""

import torch


def normal(count, size, seed, scale=1.0, shift=0.0):
    """Return draws of N(shift, scale^2): (count, size) in float64."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, size, generator=generator).double() + shift


def whitened(count, size, seed):
    """Return (count, size) values of mean exactly 0 and identity covariance."""
    x = normal(count, size, seed)
    x = x - x.mean(dim=0)
    # With C = L L^T, the covariance of L^-1 x is the identity.
    lower = torch.linalg.cholesky(torch.atleast_2d(x.T.cov()))
    return x @ torch.linalg.inv(lower).T

"""Sets of features whose mean and covariance are known."""

import torch


def normal(count, size, seed, scale=1.0, shift=0.0):
    """Draws of N(shift, scale^2), (count, size) in float64."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, size, generator=generator).double() + shift


def whitened(count, size, seed):
    """A set whose mean is exactly 0 and whose covariance is exactly the identity."""
    draws = normal(count, size, seed)
    draws = draws - draws.mean(dim=0)
    return (
        draws
        @ torch.linalg.inv(torch.linalg.cholesky(torch.atleast_2d(draws.T.cov()))).T
    )

"""The best linear autoencoder and the best linear VAE, in closed form."""

import math

import pytest
import torch

from tests.helpers.metrics import whitened
from utils.data.synthetic import draw_flowers
from utils.evaluation.linear_baselines import best_linear_bound, fit_pca


@pytest.fixture(scope="module")
def flowers():
    """Return drawn flowers: (600, 3, 24, 24) in [0, 1]."""
    return draw_flowers(200, 24, 24)[0].float() / 255


def test_pca_leaves_the_smallest_eigenvalues(flowers):
    """Eckart-Young: the error is the sum of the dropped eigenvalues."""
    images = flowers[:200, :, ::4, ::4]  # (200, 3, 6, 6)
    values = torch.linalg.eigvalsh(images.flatten(1).double().T.cov(correction=0))
    for components in (1, 10, 108):
        error = (fit_pca(images, components).reconstruct(images) - images).square()
        expected = values[: 108 - components].sum() / 108
        assert error.mean().item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-9)


def test_best_linear_bound_of_a_linear_vae_trained_to_its_end():
    """L-BFGS on encoder, decoder and variances reaches the bound, and no less."""
    torch.manual_seed(0)
    scales = torch.tensor([3, 2, 1, 0.4, 0.2], dtype=torch.float64)
    data = whitened(500, 5, 0) * math.sqrt(500 / 499) * scales  # divided by N
    expected = best_linear_bound(data, 2)
    # By hand: the two largest variances are encoded.
    by_hand = sum(0.5 * (math.log(2 * v) + 1) for v in (9, 4)) + 1 + 0.16 + 0.04
    assert expected == pytest.approx(by_hand, rel=1e-9)
    unused = 0.16 + 0.04  # variances below 1/2 are not worth a dimension
    encoded = sum(0.5 * (math.log(2 * v) + 1) for v in (9, 4, 1))
    assert best_linear_bound(data, 5) == pytest.approx(encoded + unused, rel=1e-9)

    # A linear VAE, whose bound is exact: no draws.
    encode, decode = (0.1 * torch.randn(2, 5).double() for _ in range(2))
    log_var = torch.zeros(2).double()
    parameters = [p.requires_grad_() for p in (encode, decode, log_var)]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, line_search_fn="strong_wolfe"
    )

    def bound():
        optimizer.zero_grad()
        mean = data @ encode.T
        error = (mean @ decode - data).square().sum(dim=1).mean()
        error = error + (decode.square().sum(dim=1) * log_var.exp()).sum()
        kl = 0.5 * (mean.square().mean(dim=0) + log_var.exp() - 1 - log_var).sum()
        (error + kl).backward()
        return error + kl

    optimizer.step(bound)
    assert bound().item() == pytest.approx(expected, rel=1e-6)
    # The trained VAE on other data, which `bound` reads.
    training, data = data, 0.3 + 1.1 * data[:99].flip(1)
    expected = best_linear_bound(training, 2, data)
    assert bound().item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("components", [0, 11])
def test_pca_refuses_more_axes_than_there_are(components):
    with pytest.raises(ValueError, match=f"1 to 10, got {components}"):
        fit_pca(torch.rand(10, 20), components)

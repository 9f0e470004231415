"""Truths about the distributions that are fitted to codes."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from MLPAutoencoder import MLPAutoencoder
from utils.checkpoint import save_checkpoint
from utils.cli import UserError
from utils.latents import (
    GaussianMixture,
    Priors,
    fit_gaussian_mixture,
    fit_priors,
    fitted_to,
    load_prior,
)
from VarAutoencoder import VarAutoencoder

ABOUT = {"seed": 0, "epoch": 3, "valid_loss": 0.25}


def example():
    """A mixture of two Gaussians in two dimensions, ours and torch's own."""
    ours = GaussianMixture(2, 2)
    ours.weights.copy_(torch.tensor([0.3, 0.7]))
    ours.means.copy_(torch.tensor([[0.0, 0.0], [6.0, -2.0]]))
    ours.cholesky.copy_(
        torch.tensor([[[1.0, 0.0], [0.5, 2.0]], [[0.4, 0.0], [0.0, 1.0]]])
    )
    parts = MultivariateNormal(ours.means, scale_tril=ours.cholesky)
    return ours, MixtureSameFamily(Categorical(ours.weights), parts)


def log_likelihoods(mixture, codes):
    """Return the logarithms of the mixture's density at the codes (N, D): (N,)."""
    return mixture.log_densities(codes).logsumexp(1)


def test_densities_by_hand():
    """Codes on both sides of the means; the inverse covariances are computed here."""
    mixture, _ = example()
    codes = 4 * torch.randn(50, 2)
    parts = []
    for weight, mean, root in zip(
        mixture.weights, mixture.means, mixture.cholesky, strict=True
    ):
        covariance, offsets = root @ root.T, codes - mean
        distances = (offsets @ covariance.inverse() * offsets).sum(dim=1)
        scale = weight / (2 * torch.pi * covariance.det().sqrt())
        parts.append(scale.log() - distances / 2)
    found = mixture.log_densities(codes)
    torch.testing.assert_close(found, torch.stack(parts, dim=1))


def test_samples_have_the_mixtures_moments():
    torch.manual_seed(0)
    ours, theirs = example()
    codes = ours.sample(200_000)
    torch.testing.assert_close(codes.mean(0), theirs.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(codes.var(0), theirs.variance, atol=0.1, rtol=0)


def test_samples_of_a_component_have_its_covariance():
    """L L^T, which differs from L^T L as soon as L is not diagonal."""
    torch.manual_seed(0)
    ours, _ = example()
    ours.weights.copy_(torch.tensor([1.0, 0.0]))
    root = ours.cholesky[0]
    found, expected = ours.sample(100_000).T.cov(), root @ root.T
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0)
    assert (root.T @ root - expected).abs().max() > 0.2


def test_one_gaussian_is_fitted_in_closed_form():
    """Mean and covariance of the codes, the latter drawn to a ball by SHRINKAGE."""
    torch.manual_seed(1)
    codes = torch.randn(500, 3) @ torch.randn(3, 3) + 5
    fitted = fit_gaussian_mixture(codes, 1)
    torch.testing.assert_close(fitted.means[0], codes.mean(0))
    covariance = codes.T.cov(correction=0)
    expected = 0.95 * covariance + 0.05 * covariance.trace() / 3 * torch.eye(3)
    torch.testing.assert_close(
        fitted.cholesky[0] @ fitted.cholesky[0].T, expected, rtol=1e-4, atol=1e-4
    )


def test_a_mixture_finds_what_it_was_drawn_from():
    """Held-out codes are as likely under the fit as under the truth, within 2 %."""
    torch.manual_seed(0)
    ours, theirs = example()
    fitted = fit_gaussian_mixture(theirs.sample((4000,)), 2)
    held_out = theirs.sample((4000,))
    truth = theirs.log_prob(held_out).mean().item()
    found = log_likelihoods(fitted, held_out).mean().item()
    assert found == pytest.approx(truth, rel=0.02)
    means = fitted.means[fitted.weights.argsort()]
    torch.testing.assert_close(means, ours.means, atol=0.3, rtol=0)


def test_every_round_makes_the_codes_likelier(monkeypatch):
    """Dempster et al. 1977, but for the shrinkage, which is taken away here."""
    monkeypatch.setattr("utils.latents.SHRINKAGE", 0.0)
    torch.manual_seed(0)
    codes, likelihoods = torch.randn(300, 4).abs(), []
    for rounds in range(6):
        monkeypatch.setattr("utils.latents.EM_STEPS", rounds)
        fitted = fit_gaussian_mixture(codes, 3)
        likelihoods.append(log_likelihoods(fitted, codes).mean().item())
    assert likelihoods == sorted(likelihoods) and likelihoods[0] < likelihoods[-1]


@pytest.mark.parametrize("codes", [torch.zeros(2, 5), torch.ones(200, 3)])
def test_codes_that_are_all_alike_do_no_harm(codes):
    priors = fit_priors("AE", codes)
    for prior in (priors.gaussian, priors.gmm):
        torch.testing.assert_close(
            prior.sample(9), codes[:1].repeat(9, 1), atol=0.02, rtol=0
        )


@pytest.mark.parametrize("components", [0, 4])
def test_more_components_than_codes_are_refused(components):
    with pytest.raises(ValueError, match=f"1 to 3, got {components}"):
        fit_gaussian_mixture(torch.zeros(3, 2), components)


# The file beside the weights ---------------------------------------------------


@pytest.fixture
def kept(tmp_path):
    """A model with a prior in a file; (model, its weights' path)."""
    model = MLPAutoencoder(4, 8, 8)
    priors = fit_priors(model.name, torch.randn(300, 4) + torch.arange(4))
    metadata = {"fitted_to": fitted_to(ABOUT)}
    save_checkpoint(tmp_path / "Prior_MLPAE.pth", priors, metadata)
    return model, tmp_path / "Best_MLPAE.pkl"


@pytest.mark.parametrize("name", ["gaussian", "gmm"])
def test_a_kept_prior_draws_what_was_fitted(kept, name):
    torch.manual_seed(0)
    codes = load_prior(name, kept[0], ABOUT, kept[1])(20_000)
    assert codes.shape == (20_000, 4)
    torch.testing.assert_close(codes.mean(0), torch.arange(4).float(), atol=0.2, rtol=0)


def test_the_normal_prior_needs_no_file(tmp_path):
    torch.manual_seed(0)
    model = VarAutoencoder(6)
    codes = load_prior("normal", model, {}, tmp_path / "none.pth")(50_000)
    torch.testing.assert_close(codes.T.cov(), torch.eye(6), atol=0.03, rtol=0)


def test_a_missing_prior_names_file_and_remedy(tmp_path):
    model = VarAutoencoder(6)
    with pytest.raises(UserError, match="Prior_VAE.pth is missing.*train again"):
        load_prior("gmm", model, ABOUT, tmp_path / "Best_VAE.pth")


def test_a_prior_of_other_weights_is_refused(kept):
    """Trained again and killed before the fit: the old prior is no use."""
    with pytest.raises(UserError, match="was not fitted to the codes of .*train again"):
        load_prior("gmm", kept[0], {**ABOUT, "valid_loss": 0.2}, kept[1])


def test_a_prior_of_another_size_is_refused(kept):
    path = kept[1].with_name("Prior_MLPAE.pth")
    save_checkpoint(path, Priors("MLPAE", 3, 2), {"fitted_to": fitted_to(ABOUT)})
    with pytest.raises(UserError, match="does not fit prior_MLPAE"):
        load_prior("gaussian", kept[0], ABOUT, kept[1])

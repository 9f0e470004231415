"""The variational parts: the bound, the draw, and what is told of them."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from VarAutoencoder import (
    VAE_loss_function,
    VarAutoencoder,
    kl_to_standard_normal,
    loss_for,
)


def random_outputs():
    """Return photos, and what a model with a code of size 2 could return for them."""
    images, reconstructions = torch.rand(2, 4, 3, 8, 8)
    mu, log_var = torch.randn(2, 4, 2)
    return images, (reconstructions, mu, log_var)


def test_kl_matches_torch():
    """M30, R25: against torch.distributions."""
    mu, log_var = torch.randn(5, 3), torch.randn(5, 3)
    theirs = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mu, log_var), theirs)


def test_vae_loss_by_hand():
    """C6, R25: two photos of one grey pixel off by 1/2 each; KL of N(1, e) is e / 2.

    A sum over the batch, not a mean.
    """
    images = torch.zeros(2, 3, 1, 1)
    outputs = torch.full((2, 3, 1, 1), 0.5), torch.ones(2, 1), torch.ones(2, 1)
    expected = 2 * (3 * 0.25 + 0.5 * (1 + torch.e - 1 - 1))
    assert VAE_loss_function(outputs, images).item() == pytest.approx(expected)


def test_reparameterize_draws_the_gaussian():
    """M29: mean and standard deviation of 200,000 draws; gradients reach both."""
    torch.manual_seed(0)
    mu = torch.tensor([[-1.0, 2.0]]).repeat(200_000, 1).requires_grad_()
    log_var = torch.tensor([[0.0, -2.0]]).repeat(200_000, 1).requires_grad_()
    z = VarAutoencoder(64).reparameterize(mu, log_var)
    torch.testing.assert_close(z.mean(0), torch.tensor([-1.0, 2.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(z.std(0), torch.tensor([1.0, 0.3679]), atol=0.01, rtol=0)
    z.sum().backward()
    assert (mu.grad == 1).all() and log_var.grad.abs().max() > 0


def test_pairs_are_draws_on_opposite_sides_of_the_mean():
    """Each as likely as a single draw; in evaluation there is one."""
    model, images = VarAutoencoder(64).train(), torch.rand(2, 3, 24, 24)
    mu, log_var = torch.randn(2, 64), torch.randn(2, 64)
    model.antithetic_pairs = 5000
    z = model.antithetic_draws(mu, log_var)  # (10000, 2, 64)
    torch.testing.assert_close(z[:5000] + z[5000:], (2 * mu).expand(5000, -1, -1))
    deviations = (log_var / 2).exp()
    torch.testing.assert_close(z.std(dim=0), deviations, rtol=0.05, atol=0)
    model.antithetic_pairs = 3
    shape = (6, 2, 3, 24, 24)
    assert model(images)[0].shape == shape and model.eval()(images)[0].ndim == 4


@pytest.mark.parametrize("loss_fn", [VAE_loss_function, loss_for("optimal")])
def test_the_error_of_several_draws_is_their_mean(loss_fn):
    """So that the loss does not depend on how many there are."""
    images, (_, mu, log_var) = random_outputs()
    draws = torch.rand(3, 4, 3, 8, 8)
    found = loss_fn((draws, mu, log_var), images)
    error = (draws - images).square().mean()
    flat = images + error.sqrt()  # one reconstruction with that error
    torch.testing.assert_close(found, loss_fn((flat, mu, log_var), images))


def test_pairs_take_the_noise_of_a_linear_decoder_out_of_the_gradient():
    """Wu et al. 2019: what is odd in the draw cancels; a single draw leaves it in."""
    torch.manual_seed(0)
    model, images = VarAutoencoder(4, 8, 8).train(), torch.rand(3, 3, 8, 8)
    lerp = torch.nn.Linear(4, 192)
    model.decoder.forward = lambda z: lerp(z).unflatten(1, (3, 8, 8))

    def spread():
        """Largest deviation, over draws, of the gradient of a latent mean's bias."""
        gradients = []
        for _ in range(20):
            loss = VAE_loss_function(model(images), images)
            bias = model.encoder.mean.bias
            gradients.append(torch.autograd.grad(loss, bias)[0])
        return torch.stack(gradients).std(dim=0).max().item()

    alone = spread()
    model.antithetic_pairs = 1
    assert alone > 0.1 and spread() < 1e-4


def test_details_add_up_to_the_loss():
    """T13: squared error + KL is the loss; at the mean there is no draw."""
    model, images = VarAutoencoder(64).eval(), torch.rand(6, 3, 24, 24)
    torch.manual_seed(1)
    facts = model.summarize_details(model.validation_details(images))
    torch.manual_seed(1)
    loss = VAE_loss_function(model(images), images).item()
    assert 6 * (facts["squared_error"] + facts["kl"]) == pytest.approx(loss, rel=1e-5)
    again = model.summarize_details(model.validation_details(images))
    assert again["squared_error"] != facts["squared_error"]
    assert again["loss_at_mean"] == facts["loss_at_mean"]


def test_summary_tells_of_each_dimension():
    """Burda et al. 2016: a dimension whose mean hardly varies over images is unused."""
    validation_details = {
        "squared_error": torch.tensor([1.0, 3.0]),
        "squared_error_at_mean": torch.tensor([0.5, 1.5]),
        "kl": torch.tensor([[0.0, 2.0, 7.0], [1.0, 4.0, 9.0]]),
        # Variances 0.005, 2 and 0.
        "mu": torch.tensor([[0.0, 1.0, 5.0], [0.1, 3.0, 5.0]]),
    }
    assert VarAutoencoder(64).summarize_details(validation_details) == {
        "squared_error": 2,
        "kl": 11.5,
        "loss_at_mean": 12.5,
        "active_units": 1,
        "kl_00": 0.5,
        "kl_01": 3,
        "kl_02": 8,
    }


def test_beta_weighs_the_kl():
    """The loss is linear in beta, and beta = 1 is the assignment's."""
    images, outputs = random_outputs()
    at = {beta: loss_for(beta)(outputs, images) for beta in (0.5, 1.0, 2.0)}
    assert at[1.0] == VAE_loss_function(outputs, images)
    kl = kl_to_standard_normal(*outputs[1:]).sum()
    torch.testing.assert_close(at[2.0] - at[1.0], kl)
    torch.testing.assert_close(at[1.0] - at[0.5], kl / 2)


def test_the_calibrated_loss_is_the_least_over_all_variances():
    """Rybkin et al. 2021: torch's own Gaussian likelihood, its variance searched."""
    torch.manual_seed(0)
    images, outputs = random_outputs()
    kl = kl_to_standard_normal(*outputs[1:]).sum()
    tried = [
        kl - Normal(outputs[0], deviation).log_prob(images).sum()
        for deviation in torch.linspace(0.05, 1, 951)
    ]
    ours = loss_for("optimal")(outputs, images)
    assert ours <= min(tried)
    torch.testing.assert_close(ours, min(tried), rtol=1e-5, atol=1e-3)

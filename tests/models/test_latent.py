"""Truths about codes and the ways between them."""

import math

import pytest
import torch

from utils.latents import encode, lerp, slerp
from VarAutoencoder import VarAutoencoder


@pytest.mark.parametrize("way", [lerp, slerp])
def test_ways_start_and_end_where_they_should(way):
    start, end = torch.randn(2, 64)
    steps = way(start, end, 7)
    assert steps.shape == (7, 64)
    torch.testing.assert_close(steps[[0, -1]], torch.stack([start, end]))


def test_the_line_is_evenly_spaced():
    steps = lerp(torch.zeros(2), torch.tensor([3.0, 6.0]), 4)
    expected = torch.tensor([[0.0, 0], [1, 2], [2, 4], [3, 6]])
    torch.testing.assert_close(steps, expected)


def test_the_arc_is_the_circles():
    """A quarter of a circle of radius 2 in steps of 30 degrees."""
    steps = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), 4)
    angles = torch.tensor([0, 30, 60, 90]) * math.pi / 180
    expected = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    torch.testing.assert_close(steps, expected)


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0])
def test_codes_on_one_line_are_joined_by_it(factor):
    start = torch.randn(8)
    torch.testing.assert_close(
        slerp(start, factor * start, 5), lerp(start, factor * start, 5)
    )


def test_codes_of_a_gaussian_encoder_are_drawn_or_its_mean():
    """The draws are the encoder's Gaussian, whatever the size of a batch."""
    torch.manual_seed(0)
    model, images = VarAutoencoder(4, 8, 8).eval(), torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        mu, log_var = model.encoder(images)
    means = encode(model, images, draw=False, batch_size=2)
    torch.testing.assert_close(means, mu)
    draws = encode(model, images[:1].expand(40_000, 3, 8, 8))
    deviation = (log_var[0] / 2).exp()
    torch.testing.assert_close(draws.mean(0), mu[0], atol=0.03, rtol=0)
    torch.testing.assert_close(draws.std(0), deviation, atol=0.03, rtol=0)

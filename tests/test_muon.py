"""Muon against singular values and torch's own AdamW."""

import copy

import pytest
import torch
from torch import nn

from utils.muon import Muon, orthogonalised, quickly_orthogonalised


def convolutional():
    """A small model with first, inner and last weights, and biases."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 4, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3, padding=1),
    )


@pytest.mark.parametrize("shape", [(16, 72), (72, 16), (32, 32), (1, 9)])
def test_singular_values_become_alike(shape):
    """All near 1, and the same singular vectors: the polar factor U V^T, nearly."""
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    found = orthogonalised(matrix)
    assert found.shape == shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.25
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ found @ vh.T  # diagonal if the axes are kept
    torch.testing.assert_close(inside, inside.diagonal().diag(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_scale_of_the_gradient_does_not_matter(scale):
    matrix = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        orthogonalised(scale * matrix), orthogonalised(matrix), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("shape", [(16, 72), (72, 16), (128, 1152), (1, 9)])
@pytest.mark.parametrize("units", [False, True])
def test_the_quick_way_is_nearly_the_exact_one(monkeypatch, shape, units):
    """Singular values from 0.5 to 1.4, and hardly another direction."""
    monkeypatch.setattr("utils.muon.has_bfloat16_units", lambda device: units)
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found, exact = quickly_orthogonalised(matrix), orthogonalised(matrix)
    assert found.shape == shape and found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5 and values.max() < 1.4
    off = (found - exact).norm() / exact.norm()
    assert off < (0.1 if units else 1e-3)
    cosine = (found * exact).sum() / (found.norm() * exact.norm())
    assert cosine > 0.99


def test_inner_weights_that_are_named_are_the_ones():
    """Whatever their order or place; all others are AdamW's."""
    model = convolutional()
    chosen = [model[6].weight, model[2].weight]
    inner, others = Muon(model.parameters(), 1e-3, inner=iter(chosen)).param_groups
    assert [id(p) for p in inner["params"]] == [id(p) for p in chosen]
    assert inner["orthogonal"] and not others["orthogonal"]
    every = {id(p) for p in model.parameters()}
    assert {id(p) for p in others["params"]} == every - {id(p) for p in chosen}
    (only,) = Muon(model.parameters(), 1e-3, inner=[]).param_groups
    assert not only["orthogonal"] and len(only["params"]) == len(every)


@pytest.mark.parametrize("quick", [False, True])
def test_it_goes_the_quick_way_only_if_told(monkeypatch, quick):
    ways = []
    for name in ("orthogonalised", "quickly_orthogonalised"):
        way = lambda flat, name=name: ways.append(name) or flat  # noqa: E731
        monkeypatch.setattr(f"utils.muon.{name}", way)
    model = convolutional()
    optimizer = Muon(model.parameters(), 1e-3, inner=[model[2].weight], quick=quick)
    model(torch.rand(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    assert ways == ["quickly_orthogonalised" if quick else "orthogonalised"]


def test_inner_weights_are_all_but_first_last_and_biases():
    model = convolutional()
    inner, others = Muon(model.parameters(), 1e-3).param_groups
    assert inner["orthogonal"] and not others["orthogonal"]
    assert [id(p) for p in inner["params"]] == [
        id(model[2].weight),
        id(model[4].weight),
    ]
    assert len(others["params"]) == len(list(model.parameters())) - 2


def test_a_step_of_an_inner_weight_has_the_size_of_the_rate():
    """Root mean square 0.2 lr for any shape, as Liu et al. 2025 ask."""
    model = convolutional()
    before = copy.deepcopy(model)
    optimizer = Muon(model.parameters(), lr=0.01, weight_decay=0)
    model(torch.rand(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    for index in (2, 4):
        change = model[index].weight - before[index].weight
        assert change.square().mean().sqrt().item() == pytest.approx(0.002, rel=0.25)


def test_the_rest_is_adamw():
    """Weight for weight what torch's own AdamW makes of the same gradients."""
    model = convolutional()
    other = copy.deepcopy(model)
    optimizer = Muon(model.parameters(), lr=0.01)
    adamw = torch.optim.AdamW(other.parameters(), 0.01, betas=(0.9, 0.99))
    ours, theirs = list(model.parameters()), list(other.parameters())
    compared = [i for i in range(len(ours)) if i not in (2, 4)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for one, two in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            two.grad = one.grad.clone()
        optimizer.step()
        adamw.step()
    for i in compared:
        torch.testing.assert_close(ours[i], theirs[i], rtol=1e-5, atol=1e-7)
    assert (ours[2] - theirs[2]).abs().max() > 1e-3


def test_momentum_remembers():
    """A zero gradient after a step still moves the weight."""
    model = convolutional()
    optimizer = Muon(model.parameters(), lr=0.01, weight_decay=0)
    weight = model[2].weight
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert (weight - before).abs().max() > 1e-4


def test_weights_without_a_gradient_stay():
    model = convolutional()
    before = copy.deepcopy(model.state_dict())
    Muon(model.parameters(), lr=0.1).step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_resumed_optimizer_goes_on_as_before():
    """Its state is in its state_dict."""
    runs = []
    for resumed in (False, True):
        model = convolutional()
        optimizer = Muon(model.parameters(), lr=0.01)
        images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        for step in range(4):
            if step == 2 and resumed:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = Muon(model.parameters(), lr=0.5)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
        runs.append(model.state_dict())
    for one, two in zip(runs[0].values(), runs[1].values(), strict=True):
        assert torch.equal(one, two)


def test_it_returns_the_closures_loss():
    model = convolutional()
    optimizer = Muon(model.parameters(), lr=0.01)

    def closure():
        loss = model(torch.rand(2, 3, 8, 8)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0 and optimizer.step() is None

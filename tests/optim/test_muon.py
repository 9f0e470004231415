"""Muon against singular values and torch's own AdamW."""

import copy

import pytest
import torch
from torch import nn

from utils.optim.muon import Muon, orthogonalize


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


@pytest.mark.parametrize("shape", [(16, 72), (72, 16), (128, 1152), (1, 9)])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_single_precision_is_enough(shape, precision):
    """Also for small singular values, and where the process multiplies bfloat16."""
    torch.manual_seed(0)
    rank = min(shape)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left * torch.logspace(0, -3, rank) @ right
    exact = orthogonalize(matrix)
    torch.set_float32_matmul_precision(precision)
    try:
        found = orthogonalize(matrix, torch.float32)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.shape == shape and found.dtype == torch.float32
    off = (found - exact).norm() / exact.norm()
    assert off < (0.1 if precision == "medium" else 1e-3)  # of its last product


@pytest.mark.parametrize("shape", [(16, 72), (72, 16)])
def test_matrices_together_are_as_each_alone(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    matrices *= torch.tensor([1e-3, 1.0, 50.0]).view(3, 1, 1)
    together = orthogonalize(matrices, torch.float32)
    for found, matrix in zip(together, matrices, strict=True):
        torch.testing.assert_close(found, orthogonalize(matrix), rtol=0, atol=1e-4)


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


def test_the_quick_way_takes_the_same_steps():
    """Weights of one shape together, of another apart: all move as without `quick`."""
    models = [convolutional() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for model, batched in zip(models, (False, True), strict=True):
        optimizer = Muon(model.parameters(), 1e-2, batched=batched)
        model(images).square().mean().backward()
        optimizer.step()
    for one, two in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


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

"""Muon: momentum whose every step is an orthogonal matrix."""

from collections import defaultdict
from contextlib import contextmanager

import torch

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of Jordan's quintic iteration
RMS = 0.2  # of a step of an inner weight, in learning rates: about AdamW's


class Muon(torch.optim.Optimizer):
    """Muon on a model's inner weights, AdamW on everything else.

    Inner weights are those of `inner`, by default all with two or more dimensions but
    the first and the last of `parameters`; filters are flattened to (first dimension,
    all others). Their momentum is replaced by the nearest matrix with all singular
    values alike, so that rare directions learn as fast as common ones (Jordan et al.
    2024, https://kellerjordan.github.io/posts/muon/),
    and scaled to the size of an AdamW step, so that both share one learning rate (Liu
    et al. 2025, arXiv:2502.16982, equation 4).

    parameters: of one model, in its own order; weight decay is decoupled. With `quick`
    matrices of one shape are made orthogonal together, and in single precision.
    """

    def __init__(
        self,
        parameters,
        lr,
        momentum=0.95,
        betas=(0.9, 0.99),
        eps=1e-8,
        weight_decay=0.01,
        inner=None,
        quick=False,
    ):
        parameters = list(parameters)
        if inner is None:
            inner = [p for p in parameters if p.ndim >= 2][1:-1]
        inner = list(inner)  # it is read twice
        chosen = {id(p) for p in inner}
        others = [p for p in parameters if id(p) not in chosen]
        groups = [
            {"params": list(group), "orthogonal": orthogonal}
            for group, orthogonal in ((inner, True), (others, False))
            if group
        ]
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "quick": quick,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step; return the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            directions = (
                orthogonal_directions if group["orthogonal"] else adam_directions
            )
            weights = [w for w in group["params"] if w.grad is not None]
            for weight, change in directions(weights, self.state, group):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(change, alpha=-group["lr"])
        return loss


def orthogonal_directions(weights, state, group):
    """Yield (weight, Nesterov momentum of its gradient made orthogonal)."""
    alike = defaultdict(list)
    for weight in weights:
        matrix = nesterov(weight.grad, state[weight], group).flatten(1)
        alike[matrix.shape if group["quick"] else weight].append((weight, matrix))
    for some in alike.values():
        ours, matrices = zip(*some, strict=True)
        if group["quick"]:
            found = orthogonalised(torch.stack(matrices), torch.float32)
        else:
            found = [orthogonalised(matrix) for matrix in matrices]
        for weight, matrix in zip(ours, found, strict=True):
            yield weight, RMS * max(matrix.shape) ** 0.5 * matrix.view(weight.shape)


def nesterov(grad, state, group):
    """Momentum of a gradient, looking ahead; of the gradient's shape."""
    if not state:
        state["momentum"] = torch.zeros_like(grad)
    state["momentum"].lerp_(grad, 1 - group["momentum"])
    return grad.lerp(state["momentum"], group["momentum"])


def orthogonalised(matrix, exact=torch.float64, steps=5):
    """Bring all singular values of matrices (..., rows, columns) near 1; axes stay.

    A quintic Newton-Schulz iteration, whose coefficients lift small values fast and
    leave all between about 0.7 and 1.2. Every iterate is a polynomial of the smaller
    Gram matrix times the matrix, so that the polynomial alone is iterated; in double
    precision, where there is one, or in what `exact` says, for small values show
    squared there.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    exact = torch.float32 if matrix.device.type == "mps" else exact
    x = (wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(exact)
    with full_precision():
        gram = x @ x.mT  # (..., rows, rows), the smaller side
        eye = factor = torch.eye(gram.shape[-1], dtype=exact, device=gram.device)
        for _ in range(steps):
            step = a * eye + b * gram + c * gram @ gram
            gram, factor = step @ gram @ step, step @ factor
    x = factor.to(matrix.dtype) @ x.to(matrix.dtype)
    return x if wide is matrix else x.mT


@contextmanager
def full_precision():
    """Multiply float32 matrices as such inside, whatever the process is set to."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def adam_directions(weights, state, group):
    """Yield (weight, quotient of moments of its gradient)."""
    for weight in weights:
        yield weight, adam_direction(weight.grad, state[weight], group)


def adam_direction(grad, state, group):
    """The quotient of bias-corrected moments (Kingma & Ba 2015, algorithm 1)."""
    if not state:
        state.update(
            step=0, first=torch.zeros_like(grad), second=torch.zeros_like(grad)
        )
    state["step"] += 1
    step, (beta_1, beta_2) = state["step"], group["betas"]
    state["first"].lerp_(grad, 1 - beta_1)
    state["second"].lerp_(grad.square(), 1 - beta_2)
    first = state["first"] / (1 - beta_1**step)
    second = state["second"] / (1 - beta_2**step)
    return first / (second.sqrt() + group["eps"])

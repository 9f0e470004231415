"""Muon: momentum whose every step is an orthogonal matrix."""

import torch

from utils.hardware import has_bfloat16_units

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
    the steps are orthogonal to bfloat16's precision, and cheap where the processor has
    units for it.
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
            direction = orthogonal_direction if group["orthogonal"] else adam_direction
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    change = direction(weight.grad, self.state[weight], group)
                    weight.add_(change, alpha=-group["lr"])
        return loss


def orthogonal_direction(grad, state, group):
    """Nesterov momentum of a gradient, made orthogonal; of the gradient's shape."""
    if not state:
        state["momentum"] = torch.zeros_like(grad)
    state["momentum"].lerp_(grad, 1 - group["momentum"])
    ahead = grad.lerp(state["momentum"], group["momentum"])
    flat = ahead.flatten(1)  # (rows, columns)
    matrix = quickly_orthogonalised(flat) if group["quick"] else orthogonalised(flat)
    return RMS * max(matrix.shape) ** 0.5 * matrix.view(grad.shape)


def orthogonalised(matrix, steps=5):
    """Bring all singular values of a matrix (rows, columns) near 1, and keep its axes.

    A quintic Newton-Schulz iteration, whose coefficients lift small values fast and
    leave all between about 0.7 and 1.2. Every iterate is a polynomial of the smaller
    Gram matrix times the matrix, so that the polynomial alone is iterated; in double
    precision, where there is one, for small values show squared there.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    exact = torch.float32 if matrix.device.type == "mps" else torch.float64
    x = (wide / (wide.norm() + 1e-7)).to(exact)
    gram = x @ x.T  # (rows, rows), the smaller side
    eye = factor = torch.eye(len(gram), dtype=exact, device=gram.device)
    for _ in range(steps):
        step = a * eye + b * gram + c * gram @ gram
        gram, factor = step @ gram @ step, step @ factor
    x = factor.to(matrix.dtype) @ x.to(matrix.dtype)
    return x if wide is matrix else x.T


def quickly_orthogonalised(matrix, steps=5):
    """The same iteration on the matrix itself, in bfloat16 where there are units.

    Rounding leaves singular values between about 0.6 and 1.3.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    if has_bfloat16_units(x.device):
        x = x.bfloat16()
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide is matrix else x.T).to(matrix.dtype)


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

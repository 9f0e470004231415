"""The Muon optimizer: momentum whose updates are orthogonal matrices."""

from collections import defaultdict
from contextlib import contextmanager

import torch

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of Jordan's quintic iteration
UPDATE_RMS = 0.2  # of an inner weight's update, in learning rates: about AdamW's


class Muon(torch.optim.Optimizer):
    """Muon for a model's inner weights, AdamW for all others.

    Inner weights are those of `inner`, by default all with two or more dimensions but
    the first and the last of `parameters`; filters are flattened to (first dimension,
    all others). Their momentum is replaced by the nearest semi-orthogonal matrix, whose
    singular values are equal, so that rare directions learn as fast as common ones
    (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), and scaled to the
    size of an AdamW update, so that both share one learning rate (Liu et al. 2025,
    arXiv:2502.16982, equation 4).

    parameters: of one model, in its own order; weight decay is decoupled. With
    `batched` matrices of one shape are orthogonalized together, in single precision.
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
        batched=False,
    ):
        # Split the parameters into two groups.
        parameters = list(parameters)
        if inner is None:
            inner = [p for p in parameters if p.ndim >= 2][1:-1]
        inner = list(inner)
        # Tensors compare by value, so parameters are compared by identity.
        chosen = {id(p) for p in inner}
        others = [p for p in parameters if id(p) not in chosen]
        groups = [
            {"params": list(group), "orthogonal": orthogonal}
            for group, orthogonal in ((inner, True), (others, False))
            if group
        ]
        # Defaults of both groups.
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "batched": batched,
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
            updates = muon_updates if group["orthogonal"] else adam_updates
            weights = [w for w in group["params"] if w.grad is not None]
            for weight, update in updates(weights, self.state, group):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"])
        return loss


def muon_updates(weights, state, group):
    """Yield (weight, orthogonalized Nesterov momentum of its gradient)."""
    batches = defaultdict(list)
    for weight in weights:
        matrix = nesterov(weight.grad, state[weight], group).flatten(1)
        batches[matrix.shape if group["batched"] else weight].append((weight, matrix))
    for batch in batches.values():
        members, matrices = zip(*batch, strict=True)
        if group["batched"]:
            results = orthogonalize(torch.stack(matrices), torch.float32)
        else:
            results = [orthogonalize(matrix) for matrix in matrices]
        for weight, matrix in zip(members, results, strict=True):
            scale = UPDATE_RMS * max(matrix.shape) ** 0.5
            yield weight, scale * matrix.view(weight.shape)


def nesterov(grad, state, group):
    """Return the Nesterov momentum of a gradient, of the gradient's shape."""
    if not state:
        state["momentum"] = torch.zeros_like(grad)
    state["momentum"].lerp_(grad, 1 - group["momentum"])
    return grad.lerp(state["momentum"], group["momentum"])


def orthogonalize(matrix, dtype=torch.float64, steps=5):
    """Bring all singular values of matrices (..., rows, columns) close to 1.

    A quintic Newton-Schulz iteration, whose coefficients enlarge small values fast and
    leave all between about 0.7 and 1.2. Every iterate is a polynomial of the smaller
    Gram matrix times the matrix, so only the polynomial is iterated; in `dtype`, since
    the Gram matrix squares small values. MPS has no double precision.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    dtype = torch.float32 if matrix.device.type == "mps" else dtype
    x = (wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    with highest_precision():
        gram, factor = x @ x.mT, None  # (..., rows, rows), the smaller side
        eye = torch.eye(gram.shape[-1], dtype=dtype, device=gram.device)
        for step in range(1, steps + 1):
            polynomial = a * eye + b * gram + c * gram @ gram
            factor = polynomial if factor is None else polynomial @ factor
            if step < steps:  # the last iterate's is not needed
                gram = polynomial @ gram @ polynomial
    x = factor.to(matrix.dtype) @ x.to(matrix.dtype)
    return x if wide is matrix else x.mT


@contextmanager
def highest_precision():
    """Multiply float32 matrices in float32 inside, whatever the process is set to."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def adam_updates(weights, state, group):
    """Yield (weight, quotient of bias-corrected moments of its gradient)."""
    # Kingma & Ba 2015, algorithm 1.
    beta_1, beta_2 = group["betas"]
    for weight in weights:
        grad, moments = weight.grad, state[weight]
        if not moments:
            moments["step"] = 0
            moments["first"] = torch.zeros_like(grad)
            moments["second"] = torch.zeros_like(grad)
        moments["step"] += 1
        moments["first"].lerp_(grad, 1 - beta_1)
        moments["second"].lerp_(grad.square(), 1 - beta_2)
        first = moments["first"] / (1 - beta_1 ** moments["step"])
        second = moments["second"] / (1 - beta_2 ** moments["step"])
        yield weight, first / (second.sqrt() + group["eps"])

"""Part 4: the loss, and that training with it helps."""

import math

import torch

from ..checks import Finding, NotExamined, check
from . import calls
from .check_noise import table_findings
from .denoisers import denoiser_of, recorded, reported_by
from .noising import KINDS, losses_of, noised_batch, process_of

STEPS = 60  # of the optimizer, at most, on one batch
FALL = 0.9  # of the loss on that batch

# The loss -------------------------------------------------------------------------


@check(4, seconds=60, modules=("diffusion",))
def diffusion_loss(subject):
    """An ideal network has no loss, and zeros have the variance of the target."""
    if list(table_findings(subject)):
        raise NotExamined("the noise tables are wrong")
    denoiser = denoiser_of(subject)
    # The loss of the network itself: its form.
    calls.seed_all(0)
    loss = denoiser.loss(denoiser.photos(4))
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        shape = tuple(getattr(loss, "shape", ())) or type(loss).__name__
        yield Finding("loss_not_scalar", f"a loss of {shape}", "one number per batch")
        return
    if not loss.requires_grad:
        yield Finding(
            "loss_without_gradient",
            "the loss does not depend on the network's parameters",
            "a loss with a gradient",
        )
        return
    # The loss of ideal networks: its value.
    losses = losses_of(subject)
    best = min(KINDS, key=losses.get)
    if losses[best] < 0.01 * losses["zero"]:
        yield from reduction_findings(subject, losses["zero"], best)
    else:
        yield from target_findings(subject, losses)


def reduction_findings(subject, zero, kind):
    """Yield a finding if the loss of zeros is a sum over pixels."""
    target, x_0, _ = true_target(subject, kind)
    # The loss of zeros is this variance, if it is a mean.
    variance = target.square().mean().item()
    for over, count in (("batch", x_0.numel()), ("pixels", x_0[0].numel())):
        if abs(zero / (variance * count) - 1) < 0.2:
            yield Finding(
                "loss_is_a_sum",
                f"a network of zeros has a loss of {zero:.4g}, a sum over {over}",
                f"{variance:.3g}, the mean square of the {kind}",
            )


def true_target(subject, kind):
    """Return (target, photos, network's call) of a batch of 64, by the process."""
    denoiser, process = denoiser_of(subject), process_of(subject)
    x_0 = denoiser.photos(64)
    call = noised_batch(denoiser, x_0, seed=0)
    # The noise is what the process has added to the photo.
    a, b = (rate.to(x_0.device) for rate in process.rates(call.t.cpu()))
    noise = (call.x.double() - a * x_0.double()) / b.clamp(min=1e-6)
    return KINDS[kind](x_0.double(), noise, a, b), x_0, call


def target_findings(subject, losses):
    """Yield a finding if the target does not follow from the photo and the noise."""
    # The gradient at an output of zeros points away from the target.
    denoiser = denoiser_of(subject)
    noise, x_0, call = true_target(subject, "noise")
    # A leaf of zeros is added to an output of zeros.
    output = torch.zeros_like(x_0, requires_grad=True)
    calls.seed_all(0)
    with (
        recorded(denoiser.model, lambda x, t: torch.zeros_like(x)),
        reported_by("diffusion_loss"),
    ):
        forward = denoiser.model.forward
        denoiser.model.forward = lambda *args, **kw: forward(*args, **kw) + output
        loss = denoiser.loss(x_0)
    (gradient,) = torch.autograd.grad(loss, output)
    # Scaled by weights of the loss, which change no direction.
    target = -gradient.double().flatten(1)
    # Proportions of the target's variance.
    unrelated = 1 - explained(target, x_0, noise)
    noised = explained(target, call.x)
    if unrelated > 0.05 or noised > 0.99:
        what = "the noised image itself" if noised > 0.99 else "other than that noise"
        best = min(losses[kind] for kind in KINDS)
        yield Finding(
            "loss_target",
            f"a network that predicts the added noise exactly has a loss of "
            f"{losses['noise']:.3g}; the target is {what}",
            f"0 (the best known prediction has {best:.3g})",
        )
        return
    raise NotExamined("the target of the loss is none of the known ones")


def explained(target, *images):
    """Return the proportion of targets (B, N) that lies in the images' span."""
    basis = torch.stack([image.double().flatten(1) for image in images], dim=2)
    basis = torch.linalg.qr(basis).Q  # (B, N, number of images)
    inside = torch.einsum("bnk,bn->bk", basis, target).square().sum()
    return (inside / target.square().sum().clamp(min=1e-30)).item()


# Training -------------------------------------------------------------------------


@check(4, seconds=120, modules=("diffusion",))
def diffusion_overfits(subject):
    """A few steps of Adam on one batch with fixed noise reduce the loss."""
    denoiser = denoiser_of(subject)
    # A new model, as the starter kit trains it.
    model, x_0 = denoiser.build().train(), denoiser.photos(4)
    labels = denoiser.draw_labels(4)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.Adam(weights, lr=1e-3), []
    for _ in range(STEPS):
        calls.seed_all(0)
        with reported_by("diffusion_loss"):
            loss = denoiser.loss(x_0, labels, model)
            loss.backward()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[0]):
            raise NotExamined("the loss is not finite before the first step")
        # A batch with fixed times and noise is fitted within a few steps.
        if losses[-1] < FALL * losses[0]:
            return
        optimizer.step()
        optimizer.zero_grad()
    yield Finding(
        "diffusion_does_not_learn",
        f"loss {losses[0]:.4g} before and {losses[-1]:.4g} after {STEPS} steps of Adam",
        f"below {FALL * losses[0]:.4g}",
    )

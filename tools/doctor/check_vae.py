"""Checks of Part 3: the KL, the loss's reduction, and the reparameterization.

With N(mu, s^2) the posterior, KL to N(0, 1) is (mu^2 + s^2 - 1 - ln s^2) / 2 for each
number (Kingma & Welling 2014, appendix B), and z = mu + s * noise. Here s^2 is
exp(log_var). A completion whose two functions agree on another meaning of the second
output, such as ln s, is right too.
"""

import inspect
import math

import torch

from .autoencoders import (
    DIM,
    SIZE,
    check_each,
    needs,
    photos_like,
    reconstruct,
    working,
)
from .check_learning import gradients, learn_by_heart
from .check_models import layers_in_forward, output_range
from .checks import Finding, NotExamined, check

MODULES = ("VarAutoencoder",)
VALUES = 3 * SIZE * SIZE
MEANINGS = {  # of the encoder's second output v -> s
    "log-variance": lambda v: math.exp(v / 2),
    "log-deviation": math.exp,
    "variance": math.sqrt,
    "deviation": lambda v: v,
}
SECONDS = (0.5, 1.0, 2.0)  # values of the second output at which s is compared
DRAWS = 4000
CLOSE = 0.02  # relative, of computed values; statistics have 0.1


# The loss ----------------------------------------------------------------------


def loss_function(subject):
    """Return VAE_loss_function as a function of (images, mu, second output, target)."""
    function = getattr(subject.module("VarAutoencoder"), "VAE_loss_function", None)
    if function is None:
        raise NotExamined("VarAutoencoder.py has no VAE_loss_function")
    # More arguments may have defaults, such as a weight of the KL.
    parameters = inspect.signature(function).parameters.values()
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if sum(p.default is p.empty for p in plain) > 2:
        raise NotExamined("VAE_loss_function requires more than (outputs, images)")

    def loss(images, mu, second, target):
        value = function((images, mu, second), target)
        if isinstance(value, tuple | list):  # the sum first, then its parts
            value = value[0]
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise NotExamined("VAE_loss_function returns no scalar")
        return value.item()

    return loss


def kl_of(loss, mu, second, batch=1, dim=1):
    """Return what the loss gains where one number is not of mean 0 and second 1."""
    # The rest of the loss cancels. 1 has a finite KL in each of the meanings.
    images = photos_like(batch)
    means, seconds = torch.zeros(batch, dim), torch.ones(batch, dim)
    base = loss(images, means, seconds, images)
    means[0, 0], seconds[0, 0] = mu, second
    return loss(images, means, seconds, images) - base


def kl_scale(loss, batch, dim):
    """Return how often the KL of one number counts, in a batch of codes."""
    return kl_of(loss, 1.0, 1.0, batch, dim) / 0.5


def error_scale(loss, batch):
    """Return how often an image's squared error counts, in a batch."""
    # Grey images, so that a difference stays in [0, 1], as cross-entropy needs.
    target, zeros = 0.5 + 0 * photos_like(batch), torch.zeros(batch, DIM)
    images = target.clone()
    images[0] += 0.1
    base = loss(target, zeros, zeros, target)
    return (loss(images, zeros, zeros, target) - base) / (0.01 * VALUES)


def kl_meaning(loss):
    """Return which meaning of the second output the KL takes, or None."""
    unit = 2 * kl_of(loss, 1.0, 1.0)  # how much (s^2 - 1 - ln s^2) / 2 counts
    if not math.isfinite(unit) or unit == 0:
        return None
    low, *others = (kl_of(loss, 0.0, second) / unit for second in SECONDS)
    # A factor before the KL cancels: it is a matter of the reduction.
    for meaning, deviation in MEANINGS.items():
        squares = [deviation(v) ** 2 for v in SECONDS]
        first, *rest = ((square - 1 - math.log(square)) / 2 for square in squares)
        pairs = zip(others, rest, strict=True)
        if all(near(seen - low, right - first) for seen, right in pairs):
            return meaning
    return None


def near(value, wanted, tolerance=CLOSE):
    """Return whether two numbers agree, relatively."""
    return abs(value - wanted) <= tolerance * max(abs(wanted), 1e-6)


@check(3, modules=MODULES)
def kl_values(subject):
    """The KL at known values: its sign, and its form (R25)."""
    loss = loss_function(subject)
    values = [kl_of(loss, mu, 1.0) for mu in (1.0, 2.0)]
    if all(value < 0 for value in values):
        seen = f"from mu = 0 to mu = 1 the KL changes by {values[0]:.4g}"
        yield Finding("kl_sign", seen, "0.5")
        return
    # The mean's part grows by its square. The second output's part is right if the
    # draw takes it for the same.
    meaning, drawn = kl_meaning(loss), drawn_meaning(subject)
    if not near(values[1] / (values[0] or math.inf), 4):
        seen = "from mu = 0 to 1 and 2 the KL changes by {:.4g} and {:.4g}"
        seen = seen.format(*values)
        yield Finding("kl_formula", seen, "0.5 and 2")
    elif meaning is None or (drawn == "log-variance" != meaning):
        value = -kl_of(loss, 0.0, 0.0) / values[0] / 2
        seen = f"from log-variance 0 to 1 the KL changes by {value:.4g}"
        yield Finding("kl_formula", seen, f"{(math.e - 2) / 2:.4g}")


@check(3, modules=MODULES)
def loss_reduction(subject):
    """Squared error and KL are sums over batch, values and numbers (C6, R8, R25)."""
    loss = loss_function(subject)
    if list(kl_values(subject)):
        raise NotExamined("follows from the finding about the KL")
    # A mean over images or over numbers changes with the sizes, a weight does not.
    sizes = ((1, 1), (2, 1), (4, 1), (4, DIM))  # of batch and code
    kl = [kl_scale(loss, batch, dim) for batch, dim in sizes]
    error = [error_scale(loss, batch) for batch, _ in sizes]
    if not near(*ratio_of_errors(loss)):
        seen = "twice the difference costs not four times as much"
        yield Finding("reconstruction_not_squared", seen, "the sum of squared errors")
        error = [1.0] * len(error)  # of which nothing more can be said

    # The whole is divided, or one of the two parts.
    wrong_kl, wrong_error = (not all(near(s, 1) for s in x) for x in (kl, error))
    batch_only = near(kl[2], kl[3]) and all(map(near, kl, error))
    if wrong_kl and wrong_error and batch_only:
        seen = f"in a batch of 4 an image counts {kl[2]:.4g} times"
        yield Finding("loss_reduction", seen, "once: a sum, not a mean")
        return
    if wrong_error:
        seen = f"in batches of 1 and 4 a squared error counts {error[0]:.4g} and "
        yield Finding("reconstruction_reduction", f"{seen}{error[2]:.4g} times", "once")
    if wrong_kl:
        counts = ", ".join(f"{scale:.4g}" for scale in kl)
        seen = f"in batches of {sizes} (images, numbers) the KL counts {counts} times"
        yield Finding("kl_reduction", seen, "once")


def ratio_of_errors(loss):
    """Return (the loss of twice a difference over that of one, 4)."""
    target, zeros = 0.5 + 0 * photos_like(1), torch.zeros(1, DIM)
    base, once, twice = (
        loss(target + shift, zeros, zeros, target) for shift in (0.0, 0.1, 0.2)
    )
    return (twice - base) / ((once - base) or math.inf), 4


# The draw ----------------------------------------------------------------------


def draw_function(subject):
    """Return the model's function (mu, second output) -> z, in training mode."""
    # In evaluation mode the mean may stand for a draw.
    model = working(subject, "VAE").train()
    function = getattr(model, "reparameterize", None)
    if not callable(function):
        raise NotExamined("VarAutoencoder has no reparameterize")
    required = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if len(required) > 2:
        raise NotExamined("reparameterize requires more than (mu, log_var)")
    return function


def draw(function, mu, second, count=DRAWS, dim=4):
    """Return draws (count, dim) of one Gaussian."""
    torch.manual_seed(0)
    z = function(torch.full((count, dim), mu), torch.full((count, dim), second))
    return z.detach()


def drawn_meaning(subject):
    """Return which meaning of the second output the draw takes, or None."""
    try:
        function = draw_function(subject)
    except NotExamined:
        return None
    deviations = [draw(function, 0.0, v).std().item() for v in SECONDS]
    for meaning, deviation in MEANINGS.items():
        rights = map(deviation, SECONDS)
        if all(near(s, r, 0.1) for s, r in zip(deviations, rights, strict=True)):
            return meaning
    return None


@check(3, modules=MODULES)
def reparameterization(subject):
    """The draw is random, has the given mean and deviation, and passes gradients."""
    # The first of these findings explains the others.
    function = draw_function(subject)
    z = draw(function, 3.0, 0.5)  # (DRAWS, 4)
    if z.std() < 1e-3:
        seen = "every draw of one Gaussian is the same"
        yield Finding("reparameterization_not_random", seen, "normal noise")
    elif min(z.std(dim=0).mean(), z.std(dim=1).mean()) < 1e-3:
        seen = "images of a batch, or numbers of a code, share their noise"
        yield Finding("reparameterization_shared_noise", seen, "noise of their own")
    elif abs(z.mean() - 3) > 0.15:
        seen = f"the mean of draws at mu = 3 is {z.mean().item():.4g}"
        yield Finding("reparameterization_mean", seen, "3")
    elif found := list(spread(subject, function)):
        yield from found
    elif not passes_gradients(function):
        seen = "z has no gradient with respect to mu and log_var"
        yield Finding("reparameterization_gradient", seen, "one for both")


def spread(subject, function):
    """Yield a finding if the deviation of draws does not fit the second output."""
    # Another meaning is right if the KL takes it too.
    drawn, meaning = drawn_meaning(subject), "log-variance"
    if drawn not in (None, "log-variance"):
        meaning = kl_meaning(loss_function(subject))
    if drawn is None or (drawn != meaning == "log-variance"):
        deviation = draw(function, 0.0, 2.0).std().item()
        seen = f"the deviation of draws at log-variance 2 is {deviation:.4g}"
        yield Finding("reparameterization_scale", seen, f"e^1 = {math.e:.4g}")


def passes_gradients(function):
    """Return whether the draw is differentiable in both of its arguments."""
    arguments = [torch.full((4, 4), 0.5, requires_grad=True) for _ in range(2)]
    torch.manual_seed(0)
    z = function(*arguments)
    if not z.requires_grad:
        return False
    found = torch.autograd.grad(z.square().sum(), arguments, allow_unused=True)
    return all(gradient is not None and gradient.any() for gradient in found)


@check(3, modules=MODULES)
def random_forward(subject):
    """In training, the decoder is given a draw and not the mean."""
    if list(reparameterization(subject)):
        raise NotExamined("follows from the finding about the draw")
    # The second pass continues with other random numbers.
    model, images = working(subject, "VAE").train(), photos_like()
    torch.manual_seed(0)
    first = reconstruct(model, images)
    if torch.allclose(first, reconstruct(model, images), atol=1e-6):
        seen = "two forward passes in training mode give the same images"
        yield Finding("forward_not_random", seen, "images of two draws")


@check_each("VAE", seconds=60.0)
def one_batch(subject, name):
    """A batch of eight images is learned by heart."""
    needs(subject, name, output_range, gradients, layers_in_forward)
    if list(reparameterization(subject)):
        raise NotExamined("follows from the finding about the draw")
    yield from learn_by_heart(working(subject, name))

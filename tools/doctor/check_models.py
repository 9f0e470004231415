"""Checks of the three autoencoders: sizes, activations, outputs."""

import inspect
import math

import torch

from .autoencoders import (
    BATCH,
    CONVOLUTIONS,
    DIM,
    MATMULS,
    SIZE,
    build,
    check_each,
    class_of,
    codes,
    kit_arguments,
    needs,
    parameters_made,
    photos_like,
    reconstruct,
    trace,
    working,
)
from .checks import Finding, NotExamined

VALUES = 3 * SIZE * SIZE
MLP_CHAIN = [256, 128, DIM, 128, 256, VALUES]  # M5
AE_CHAIN = [  # M15, without the image at the start
    *((32, SIZE // 2, SIZE // 2), (64, SIZE // 4, SIZE // 4)),
    *((128, SIZE // 4, SIZE // 4), (DIM,), (128, SIZE // 4, SIZE // 4)),
    *((64, SIZE // 4, SIZE // 4), (32, SIZE // 2, SIZE // 2), (3, SIZE, SIZE)),
]
POOLINGS = {"max_pool2d_with_indices", "max_pool2d", "adaptive_max_pool2d"}
POOLINGS |= {"amax", "max", "fractional_max_pool2d", "mkldnn_max_pool2d"}


# Interface ---------------------------------------------------------------------


@check_each("MLPAE", "AE", "VAE")
def outputs(subject, name):
    """The name, and the shapes of what the model returns."""
    # Scripts make file names of the name, so that it has to be the very same.
    model, images = build(subject, name), photos_like()
    found = getattr(model, "name", None)
    if found != name:
        yield Finding("wrong_name", f"name is {found!r}", repr(name))
    result = model(images)  # (B, 3, H, W), or a tuple for the VAE
    if name == "VAE":
        yield from vae_outputs(result, images)
    elif not isinstance(result, torch.Tensor) or result.shape != images.shape:
        seen = f"images {tuple(images.shape)} became {shapes(result)}"
        yield Finding("output_shape", seen, f"{tuple(images.shape)}")


def shapes(result):
    """Return the shapes of a tensor or of a tuple of tensors, in words."""
    if isinstance(result, tuple | list):
        return "(" + ", ".join(map(shapes, result)) + ")"
    if isinstance(result, torch.Tensor):
        return str(tuple(result.shape))
    return type(result).__name__


def vae_outputs(result, images):
    """Yield a finding if the result is not (images, mean, log-variance)."""
    code = (len(images), DIM)  # of the mean, and of the log-variance
    wanted = [tuple(images.shape), code, code]
    several = isinstance(result, tuple | list)
    if not several or [shapes(r) for r in result] != list(map(str, wanted)):
        yield Finding("output_shape", shapes(result), ", ".join(map(str, wanted)))


@check_each("MLPAE", "AE", "VAE")
def constructor(subject, name):
    """The constructor takes the kit's arguments and follows them (R2)."""
    model_class, dim = class_of(subject, name), 37
    kit = kit_arguments(name, dim)
    working(subject, name)  # or not examined
    parameters = list(inspect.signature(model_class).parameters.values())
    open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(parameters) < len(kit) and not open_ended:
        seen = f"{model_class.__name__} takes {len(parameters)} arguments"
        yield Finding("constructor_arguments", seen, f"at least {len(kit)}")
        return

    # Another latent size, and for the first part another image size.
    traced = trace(build(subject, name, dim=dim), photos_like())
    if (dim,) not in {without_ones(step.shape) for step in traced.steps}:
        seen = f"with encoding_dim = {dim} no step of the model has {dim} values"
        yield Finding("constructor_arguments", seen, f"codes of {dim} values")
    if name == "MLPAE":
        yield from image_size(subject)


def image_size(subject):
    """Yield a finding if the MLP does not follow the image size that it is given."""
    # Width and height may be taken in either order, as in the kit's comments.
    model, tried = build(subject, "MLPAE", width=20, height=28), []
    for shape in ((BATCH, 3, 28, 20), (BATCH, 3, 20, 28)):
        try:
            if model(torch.rand(shape)).numel() == BATCH * 3 * 20 * 28:
                return
        except (RuntimeError, ValueError) as error:
            tried.append(str(error).splitlines()[0])
    seen = f"built for 20 x 28 it refuses such images: {(tried or ['other size'])[0]}"
    yield Finding("constructor_arguments", seen, "images of that size")


@check_each("MLPAE", "AE", "VAE")
def layers_in_forward(subject, name):
    """Layers are made by the constructor alone (R22)."""
    # A layer may be made and thrown away, or become an attribute of the model. Layers
    # without parameters, such as nn.ReLU, may be made anywhere.
    model = build(subject, name)
    before = set(dict(model.named_parameters()))
    with parameters_made() as made:
        try:
            model(photos_like())
        except Exception as error:
            raise NotExamined(f"the model cannot be called ({error})") from error
    new = sorted(set(dict(model.named_parameters())) - before) or made
    if made or new:
        yield Finding("layer_made_in_forward", f"forward made {new[0]}", "none")


# Sizes and activations ---------------------------------------------------------


@check_each("MLPAE", "AE")
def dimension_chain(subject, name):
    """Sizes of M5 and M15."""
    # No layer more and no layer less.
    traced = trace(working(subject, name), photos_like())
    if name == "MLPAE":
        steps = [traced.steps[index] for index in traced.layers()]
        outputs_of_layers = [step.output.flatten(1).shape[1] for step in steps]
        if outputs_of_layers != MLP_CHAIN:
            seen = " -> ".join(map(str, outputs_of_layers))
            yield Finding("dimension_chain", seen, " -> ".join(map(str, MLP_CHAIN)))
        return

    # Other sizes may stand between those of the chain, as before a pooling, but not
    # between the features and the code.
    missing = list(AE_CHAIN)
    for step in traced.steps:
        if missing and without_ones(step.shape) == missing[0]:
            del missing[0]
    if missing or not makes_code_of_features(traced):
        sized = MATMULS | CONVOLUTIONS | POOLINGS
        met = [step.shape for step in traced.steps if step.operation in sized]
        seen = " -> ".join(in_words(shape) for shape in met)
        wanted = " -> ".join(in_words(shape) for shape in AE_CHAIN)
        yield Finding("dimension_chain", seen, wanted)


def makes_code_of_features(traced):
    """Return whether the layer that makes the code is given all features."""
    # A convolution of the features' size is a linear layer too.
    layers = (traced.steps[index] for index in traced.layers())
    makers = [step for step in layers if without_ones(step.shape) == (DIM,)]
    features = BATCH * math.prod(AE_CHAIN[2])
    return not makers or any(x.numel() == features for x in makers[0].inputs)


def without_ones(shape):
    """Return a shape without the ones at its end: a code may be D x 1 x 1."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def in_words(shape):
    """Return a shape as in the assignment: 32x12x12."""
    return "x".join(map(str, shape))


@check_each("AE")
def max_pooling(subject, name):
    """The image is halved by max pooling, twice (M16, R23)."""
    needs(subject, name, dimension_chain)
    # By whichever function: a maximum over windows is a pooling too.
    traced = trace(working(subject, name), photos_like())
    count = sum(step.operation in POOLINGS for step in traced.steps)
    if count < 2:
        yield Finding("no_max_pooling", f"{count} max poolings", "2")


@check_each("MLPAE", "AE")
def hidden_relu(subject, name):
    """ReLU follows hidden layers (M6, M16)."""
    needs(subject, name, dimension_chain)
    model = working(subject, name)
    gaps = trace(model, 3 * torch.randn(BATCH, 3, SIZE, SIZE)).between_layers()

    # The latent vector is no hidden layer. In Part 2 it is not said which layers have
    # a ReLU, so that half of them suffice.
    hidden = [after for layer, after in gaps if without_ones(layer.shape) != (DIM,)]
    count = sum(any(map(rectified, after)) for after in hidden)
    wanted = len(hidden) if name == "MLPAE" else len(hidden) // 2
    if count < wanted:
        seen = f"{count} of {len(hidden)} hidden layers are followed by ReLU"
        yield Finding("hidden_not_relu", seen, f"{wanted} or more")


def rectified(step):
    """Return whether a step's values look like those of a ReLU: some exactly 0."""
    # Sigmoid and softplus end near 0, tanh and GELU below.
    values = step.output
    return bool(values.min() >= 0 and (values == 0).float().mean() > 0.005)


@check_each("MLPAE", "AE", "VAE")
def output_range(subject, name):
    """Outputs lie in [0, 1], whatever the input (M6, R24)."""
    # A softmax keeps the range, but over which dimension is not known.
    model = working(subject, name).eval()
    values = reconstruct(model, photos_like()).detach()  # (B, 3, H, W)
    for dims in ((0,), (1,), (2,), (3,), (2, 3), (1, 2, 3)):
        total = values.sum(dim=dims)
        if torch.allclose(total, torch.ones_like(total), atol=1e-4):
            seen = f"output values sum to 1 over dimensions {dims}"
            yield Finding("output_softmax", seen, "each value free in [0, 1]")
            return

    # Small initial weights hide a missing sigmoid; large inputs show it.
    values = reconstruct(model, 100 * torch.randn(BATCH, 3, SIZE, SIZE)).detach()
    low, high = values.min().item(), values.max().item()
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        seen = f"values from {low:.4g} to {high:.4g} for large inputs"
        yield Finding("output_range", seen, "0 to 1")


@check_each("MLPAE", "AE", "VAE")
def latent_sign(subject, name):
    """The latent vector has no ReLU or sigmoid of its own (R24)."""
    model = working(subject, name)
    needs(subject, name, dimension_chain if name != "VAE" else outputs)
    # Of a hundred random numbers or more, none is negative by chance.
    found = codes(model, 3 * torch.randn(BATCH, 3, SIZE, SIZE))
    several = isinstance(found, tuple | list)
    # Not strict: a VAE may return more than two.
    labels = ("mean", "log-variance") if several else ("code",)
    for label, values in zip(labels, found if several else [found], strict=False):
        if isinstance(values, torch.Tensor) and values.min() >= 0:
            seen = f"the least value of the {label} is {values.min().item():.4g}"
            yield Finding("latent_rectified", seen, "values of both signs")

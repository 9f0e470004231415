"""Checks of the three autoencoders: sizes, activations, gradients, learning."""

import inspect
import math
import time

import torch
import torch.nn.functional as F

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
    decoder_of,
    encoder_of,
    image_shaped,
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
STEPS, FITTED = 300, 0.5  # of the overfitted batch; proportion of its variance


# Interface ---------------------------------------------------------------------


@check_each("MLPAE", "AE", "VAE")
def outputs(subject, name):
    """The name, and the shapes of what the model returns."""
    model, images = build(subject, name), photos_like()
    found = getattr(model, "name", None)
    if found != name:
        yield Finding("wrong_name", f"name is {found!r}", repr(name))
    result = model(images)
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
    code = (len(images), DIM)
    wanted = [tuple(images.shape), code, code]
    several = isinstance(result, tuple | list)
    if not several or [shapes(r) for r in result] != list(map(str, wanted)):
        yield Finding("output_shape", shapes(result), ", ".join(map(str, wanted)))


@check_each("MLPAE", "AE", "VAE")
def constructor(subject, name):
    """The constructor takes the kit's arguments and follows them (R2)."""
    model_class, dim = class_of(subject, name), 37
    kit = kit_arguments(name, dim)
    working(subject, name)
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
    traced = trace(working(subject, name), photos_like())
    if name == "MLPAE":
        steps = [traced.steps[index] for index in traced.layers()]
        widths = [step.output.flatten(1).shape[1] for step in steps]
        if widths != MLP_CHAIN:
            seen = " -> ".join(map(str, widths))
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
    values = step.output
    return bool(values.min() >= 0 and (values == 0).float().mean() > 0.005)


@check_each("MLPAE", "AE", "VAE")
def output_range(subject, name):
    """Outputs lie in [0, 1], whatever the input (M6, R24)."""
    model = working(subject, name).eval()
    values = reconstruct(model, photos_like()).detach()
    for dims in ((0,), (1,), (2,), (3,), (2, 3), (1, 2, 3)):
        total = values.sum(dim=dims)
        if torch.allclose(total, torch.ones_like(total), atol=1e-4):
            seen = f"output values sum to 1 over dimensions {dims}"
            yield Finding("output_softmax", seen, "each value free in [0, 1]")
            return
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
    found = codes(model, 3 * torch.randn(BATCH, 3, SIZE, SIZE))
    several = isinstance(found, tuple | list)
    labels = ("mean", "log-variance") if several else ("code",)
    for label, values in zip(labels, found if several else [found], strict=False):
        if isinstance(values, torch.Tensor) and values.min() >= 0:
            seen = f"the least value of the {label} is {values.min().item():.4g}"
            yield Finding("latent_rectified", seen, "values of both signs")


# Gradients and learning --------------------------------------------------------


@check_each("MLPAE", "AE", "VAE")
def gradients(subject, name):
    """The loss of one batch reaches every parameter that acts on the output."""
    model, images = working(subject, name).train(), photos_like()
    outputs = seeded(model, images)
    loss = F.mse_loss(first := image_shaped(outputs, images), images)
    if isinstance(outputs, tuple | list):  # the KL's part, whatever is drawn
        loss = loss + sum(values.square().mean() for values in outputs[1:])
    if loss.requires_grad:
        loss.backward()

    # A layer that is not used is no fault.
    missed = []
    for key, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            with torch.no_grad():
                parameter.add_(change := torch.randn_like(parameter))
                second = image_shaped(seeded(model, images), images)
                parameter.sub_(change)
            if not torch.allclose(first, second, atol=1e-4):
                missed.append(key)
    if missed:
        seen = f"no gradient for {', '.join(missed[:4])}"
        yield Finding("gradient_missing", seen, "one for every parameter that is used")


def seeded(model, images):
    """Return a model's outputs, with the same random numbers at every call."""
    torch.manual_seed(0)
    return model(images)


@check_each("MLPAE", "AE", "VAE")
def separate_images(subject, name):
    """An image's output does not depend on the other images of its batch."""
    needs(subject, name, output_range, layers_in_forward)
    model, images = working(subject, name).eval(), photos_like()
    parts = [(model, images)]
    if name == "VAE":  # its forward pass draws random numbers
        encoder, decoder = encoder_of(model), decoder_of(model)
        if not (encoder and decoder):
            raise NotExamined("no encoder and decoder")
        parts = [(lambda x: encoder(x)[0], images), (decoder, torch.randn(BATCH, DIM))]
    for part, batch in parts:
        together, alone = part(batch)[:1], part(batch[:1])
        if not torch.allclose(together, alone, atol=1e-4):
            gap = (together - alone).abs().max().item()
            seen = f"alone, an image's output differs by up to {gap:.3g}"
            yield Finding("images_mixed", seen, "no difference")
            return


@check_each("MLPAE", "AE", seconds=60.0)
def one_batch(subject, name):
    """A batch of eight images is learned by heart."""
    needs(subject, name, output_range, gradients, layers_in_forward)
    yield from learn_by_heart(working(subject, name))


def learn_by_heart(model):
    """Yield a finding if the model does not fit one batch."""
    images = photos_like()
    baseline = images.var(dim=0, correction=0).mean().item()  # the mean image's error
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    started = time.process_time()
    for _ in range(STEPS):
        loss = F.mse_loss(reconstruct(model, images), images)
        if loss.item() < FITTED * baseline:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if time.process_time() - started > 40:
            raise NotExamined("too slow to learn a batch by heart")
    seen = f"loss {loss.item():.4g} after {STEPS} steps of Adam on one batch"
    wanted = f"below {FITTED * baseline:.4g}, half that of the mean image"
    yield Finding("batch_not_fitted", seen, wanted)

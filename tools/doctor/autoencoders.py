"""Builds the autoencoders of a completion and follows what they compute.

Completions differ: other layer names, functional style, one network instead of an
encoder and a decoder, more arguments. So a model is called as the starter kit calls it,
further arguments are guessed by their names, and layers are known by the operations of
PyTorch that they end in, whoever calls those.
"""

import inspect
import re
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from .checks import CHECKS, Check, NotExamined

SIZE, DIM = 24, 64  # the starter kit's image side and latent size
BATCH = 8
MATMULS = {"addmm", "mm", "bmm", "baddbmm", "linear", "matmul"}
CONVOLUTIONS = {"convolution", "conv2d", "conv_transpose2d", "_convolution"}
GUESSES = [  # pattern of an argument's name -> which value it takes
    (r"width|^w$|_w$", "width"),
    (r"height|^h$|_h$", "height"),
    (r"chan|^c$|_c$", "channels"),
    (r"shape", "shape"),
    (r"^img|^image", "width"),  # of a square
    (r"dim|latent|encod|code|^z", "dim"),
    (r"size", "width"),
]


class Kind(NamedTuple):
    """An autoencoder of the assignment."""

    part: int
    module: str
    class_name: str
    sized: bool  # its constructor takes the image size too


KINDS = {
    "MLPAE": Kind(1, "MLPAutoencoder", "MLPAutoencoder", True),
    "AE": Kind(2, "Autoencoder", "Autoencoder", False),
    "VAE": Kind(3, "VarAutoencoder", "VarAutoencoder", False),
}


def check_each(*names, seconds=20.0):
    """Return a decorator that adds a check of each of these models to CHECKS.

    The function takes a Subject and the name of a model, a key of KINDS.
    """

    def add(function):
        for name in names:
            kind, title = KINDS[name], f"{function.__name__}_{name}"
            run = partial(function, name=name)
            CHECKS[title] = Check(title, kind.part, seconds, run, (kind.module,))
        return function

    return add


# Building ----------------------------------------------------------------------


def class_of(subject, name):
    """Return the class of a model.

    Raises:
        NotExamined: if its module has no class of that name.
    """
    # A function that builds a model would do, but the kit's scripts import a class.
    kind = KINDS[name]
    found = getattr(subject.module(kind.module), kind.class_name, None)
    if not inspect.isclass(found):
        raise NotExamined(f"{kind.module}.py has no class {kind.class_name}")
    return found


def kit_arguments(name, dim=DIM, width=SIZE, height=SIZE):
    """Return the positional arguments with which the starter kit builds a model."""
    return (dim, width, height) if KINDS[name].sized else (dim,)


def build(subject, name, dim=DIM, width=SIZE, height=SIZE, seed=0):
    """Return a new model of a completion, its weights drawn from `seed`.

    Raises:
        NotExamined: if an argument is required whose meaning cannot be guessed.
    """
    model_class = class_of(subject, name)
    kit = kit_arguments(name, dim, width, height)
    values = {"dim": dim, "width": width, "height": height, "channels": 3}
    values["shape"] = (3, height, width)
    arguments = {}
    parameters = inspect.signature(model_class).parameters.values()
    torch.manual_seed(seed)
    # (*args) takes what it is given.
    if any(p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY) for p in parameters):
        return model_class(*kit)

    # The kit's arguments, and others that have no default.
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        required = parameter.default is parameter.empty
        if index < len(kit) or required:
            # By name first: width and height may have changed places.
            value = guess(parameter.name, values)
            if value is None and index < len(kit):
                value = kit[index]
            if value is None and required:
                raise NotExamined(
                    f"{model_class.__name__} requires {parameter.name}, "
                    "whose meaning is not known"
                )
            arguments[parameter.name] = value
    return model_class(**arguments)


def guess(argument, values):
    """Return the value for an argument of this name, or None."""
    for pattern, key in GUESSES:
        if re.search(pattern, argument.lower()):
            return values[key]
    return None


def working(subject, name, seed=0):
    """Return a model that has been called once, so that lazy layers have their sizes.

    Raises:
        NotExamined: if it cannot be built or called; the check `outputs` says why.
    """
    # Whatever it raises is the finding of the check `outputs` alone.
    try:
        model = build(subject, name, seed=seed)
        reconstruct(model, photos_like())
    except NotExamined:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise NotExamined(f"the model cannot be called ({reason})") from error
    return model


def needs(subject, name, *checks):
    """Refuse a check whose result would only repeat that of others.

    Raises:
        NotExamined: if one of these checks of the same model finds something.
    """
    # One mistake shall give one finding.
    for needed in checks:
        if found := list(needed(subject, name=name)):
            raise NotExamined(f"follows from the finding {found[0].name}")


# Calling -----------------------------------------------------------------------


def photos_like(count=BATCH, seed=1):
    """Return smooth random images (count, 3, 24, 24), spread over [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    # Smooth, as photos are: of 4 x 4 random colours.
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    fine = torch.nn.functional.interpolate(
        coarse, size=(SIZE, SIZE), mode="bilinear", align_corners=True
    )
    return fine.clamp(0, 1)


def reconstruct(model, images):
    """Return a model's reconstructions in the shape of the images."""
    return image_shaped(model(images), images)


def image_shaped(outputs, images):
    """Return the images of a model's outputs, the first of a tuple.

    Flat outputs are a finding of their own, and no reason to look no further.
    """
    if isinstance(outputs, tuple | list):  # of the VAE
        outputs = outputs[0]
    if outputs.numel() == images.numel():  # in whichever shape
        return outputs.reshape(images.shape)
    raise NotExamined(f"{tuple(images.shape)} became {tuple(outputs.shape)}")


def part_of(model, *names):
    """Return the first attribute of a model that can be called, or None."""
    # A module is callable too.
    found = (getattr(model, name, None) for name in names)
    return next((part for part in found if callable(part)), None)


def encoder_of(model) -> Callable | None:
    """Return the function from images to codes, or None for one network."""
    return part_of(model, "encoder", "encode", "Encoder")


def decoder_of(model) -> Callable | None:
    """Return the function from codes to images, or None for one network."""
    return part_of(model, "decoder", "decode", "Decoder")


@contextmanager
def parameters_made():
    """Yield a list of the names of parameters that modules get inside the block."""
    names = []  # "Linear.weight"; PyTorch calls the hook for each
    handle = register_module_parameter_registration_hook(
        lambda module, name, _: names.append(f"{type(module).__name__}.{name}")
    )
    try:
        yield names
    finally:
        handle.remove()


# Following ---------------------------------------------------------------------


class Step(NamedTuple):
    """An operation of PyTorch that a model carried out."""

    operation: str
    inputs: list[torch.Tensor]
    output: torch.Tensor

    @property
    def shape(self):
        """The shape of the output for one image."""
        return tuple(self.output.shape[1:])


class Trace(TorchDispatchMode):
    """Records every operation inside the block, whichever style the model is in.

    Hooks see modules alone, and not functions such as `torch.relu`.
    """

    def __init__(self):
        super().__init__()
        self.steps = []  # in the order of time

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # Copies, since later steps may change a tensor in its place.
        inputs = [a.detach().clone() for a in args if isinstance(a, torch.Tensor)]
        result = function(*args, **(kwargs or {}))
        # Of a pooling the second result are indices.
        first = result[0] if isinstance(result, tuple | list) and result else result
        if isinstance(first, torch.Tensor) and first.is_floating_point():
            operation = function.name().removeprefix("aten::").split(".")[0]
            self.steps.append(Step(operation, inputs, first.detach().clone()))
        return result

    def layers(self):
        """Return the indices of matrix products and convolutions of the batch."""
        return [
            index
            for index, step in enumerate(self.steps)
            if step.operation in MATMULS | CONVOLUTIONS
        ]

    def between_layers(self):
        """Return [(layer, steps until the next layer)], without the last layer."""
        return [
            (self.steps[first], self.steps[first + 1 : second])
            for first, second in pairwise(self.layers())
        ]


def trace(model, images):
    """Return the Trace of a model in evaluation mode."""
    model.eval()  # without dropout, whose zeros look like those of a ReLU
    with Trace() as traced:
        model(images)
    return traced


def codes(model, images):
    """Return the latent vectors (B, D) of images.

    Without an encoder they are what follows a matrix product of `DIM` outputs and goes
    into the next one.

    Raises:
        NotExamined: if there is no such product.
    """
    model.eval()
    # What the encoder returns is the code, whatever the decoder begins with.
    if encoder := encoder_of(model):
        return encoder(images)
    for layer, after in trace(model, images).between_layers():
        if layer.operation in MATMULS and layer.shape == (DIM,):
            # The last step of this size, after an activation if there is one.
            same = [step.output for step in after if step.shape == (DIM,)]
            return (same or [layer.output])[-1]
    raise NotExamined(f"no encoder, and no layer of {DIM} outputs")

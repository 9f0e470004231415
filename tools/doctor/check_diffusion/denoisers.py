"""The adapter: a completion's denoising network, its loss and its sampler.

What is examined is what the network is given and what becomes of its output. So the
network is replaced by a function, and its calls are recorded. An ideal network is one
that knows the photo: it returns the noise, the photo or the velocity exactly.
"""

import contextlib
import functools
import inspect
from typing import NamedTuple

import torch
from torch import nn

from ..checks import NotExamined
from . import calls

SIZE_NAMES = ("img_size", "image_size", "img_width", "img_height")
STEP_NAMES = ("num_steps", "n_steps", "steps", "timesteps", "num_timesteps", "T")
CLASSES = 3  # kinds of flowers of the assignment
BATCH = 4


class TrainsAtImport(BaseException):
    """The completion's module computes gradients while it is imported."""


class NetworkCall(NamedTuple):
    """What the network was given."""

    x: torch.Tensor  # (B, C, H, W)
    t: torch.Tensor  # (B,), as it was given
    args: tuple  # all positional arguments
    kwargs: dict
    training: bool


@contextlib.contextmanager
def no_training():
    """Raise TrainsAtImport where gradients are computed."""

    # Optimizers of all kinds need gradients first.
    def refuse(*args, **kwargs):
        raise TrainsAtImport

    original = torch.autograd.backward
    torch.autograd.backward = refuse
    try:
        yield
    finally:
        torch.autograd.backward = original


def import_diffusion(subject):
    """Import diffusion.py of a completion, without letting it train."""
    with no_training():
        return subject.module("diffusion")


@functools.cache
def denoiser_of(subject):
    """Return the Denoiser of a completion.

    Raises:
        NotExamined: if it has no Diffuser, or that cannot be made.
    """
    with reported_by("diffuser_made"):
        return make_denoiser(subject)


def make_denoiser(subject):
    """Return the Denoiser of a completion, or raise what its own code raises."""
    try:
        module = import_diffusion(subject)
    except TrainsAtImport as error:
        raise NotExamined("diffusion.py trains when it is imported") from error
    return Denoiser(module, calls.syntax_tree(subject.folder / "diffusion.py"))


@contextlib.contextmanager
def reported_by(name):
    """Turn errors of the completion into NotExamined: another check reports them."""
    try:
        yield
    except NotExamined:
        raise
    except Exception as error:
        raise NotExamined(f"{type(error).__name__}, see {name}") from error


class Denoiser:
    """A completion's Diffuser with all that is needed to call it."""

    def __init__(self, module, tree):
        self.module, self.tree = module, tree
        if not isinstance(getattr(module, "Diffuser", None), type):
            raise NotExamined("diffusion.py has no class Diffuser")
        self.device = str(getattr(module, "device", "cpu"))
        # Settings by the names that the starter kit or papers give them.
        steps = (getattr(module, name, None) for name in STEP_NAMES)
        self.n_steps = next((n for n in steps if isinstance(n, int) and n > 0), 300)
        self.size = self.named_size()
        self.classes = self.named_classes()
        self.model = self.build()

    # Construction ------------------------------------------------------------------

    def named_size(self):
        """Return the side of the square images that the completion trains on."""
        for name in SIZE_NAMES:
            for spelling in (name, name.upper()):
                value = getattr(self.module, spelling, None)
                if isinstance(value, int) and 4 <= value <= 256:
                    return value
        return 24

    def named_classes(self):
        """Return the number of classes of the completion."""
        for name in calls.COUNTS:
            value = getattr(self.module, name, None)
            if isinstance(value, int) and value > 0:
                return value
        return CLASSES

    def build(self):
        """Return a new Diffuser of the completion."""
        # The number of steps is given first, unless the model does not take it first.
        diffuser = self.module.Diffuser
        first = next((p.name.lower() for p in calls.parameters(diffuser)), "")
        given = (self.n_steps,) if "step" in first or first == "t" else ()
        given, kwargs = calls.fill(diffuser, given, self.constructor_value)
        calls.seed_all(0)
        model = diffuser(*given, **kwargs)
        if not isinstance(model, nn.Module):
            raise NotExamined("Diffuser is no torch.nn.Module")
        return model.to(self.device)

    def constructor_value(self, name):
        """Return the value of a required argument of the constructor, or None."""
        namespace = vars(self.module)
        # As the completion itself makes its model, if its text shows it.
        value = calls.keyword_value(self.tree, "Diffuser", name, namespace)
        if value is not None:
            return value
        if calls.is_count(name):
            return self.classes
        if name in STEP_NAMES:
            return self.n_steps
        if name.lower() in (*SIZE_NAMES, "size", "width", "height"):
            return self.size
        if "channel" in name.lower():
            return 3
        return self.table_value(name)

    def table_value(self, name):
        """Return the module's variable of this name, such as a table, or None."""
        value = getattr(self.module, name, None)
        return value if isinstance(value, torch.Tensor | int | float | str) else None

    # Calls -------------------------------------------------------------------------

    def value(self, count, labels, n_steps):
        """Return a function that knows the arguments of a call by their names."""

        def known(name):
            # Labels, counts and steps by their usual names, else a module variable.
            if calls.is_label(name):
                return labels
            if calls.is_count(name):
                return self.classes
            if name in STEP_NAMES:
                return n_steps
            if name.lower() in ("dt", "step_size", "h"):
                return 1 / n_steps
            if name.lower() in ("batch_size", "count", "num_images"):
                return count
            if name.lower() == "device":
                return self.device
            return self.table_value(name)

        return known

    def draw_labels(self, count):
        """Draw labels (count,) int64."""
        return torch.randint(self.classes, (count,), device=self.device)

    def loss(self, x_0, labels=None, model=None, labelled=True):
        """Return diffusion_loss_fn of images (B, C, H, W) in [-1, 1].

        Labels (B,) are given where the function takes them; where they are optional,
        labelled=False omits them. Of several results the first is returned.
        """
        function = getattr(self.module, "diffusion_loss_fn", None)
        if function is None:
            raise NotExamined("diffusion.py has no diffusion_loss_fn")
        # Required arguments first, then optional labels.
        labels = self.draw_labels(len(x_0)) if labels is None else labels
        known = self.value(len(x_0), labels, self.n_steps)
        given = (self.model if model is None else model, x_0)
        given, kwargs = calls.fill(function, given, known)
        parameter = calls.label_parameter(function)
        if parameter is not None and labelled:
            kwargs[parameter.name] = labels
        result = function(*given, **kwargs)
        return result[0] if isinstance(result, tuple) else result

    def sample(self, shape, n_steps):
        """Return what model.sample returns for a shape (B, C, H, W)."""
        function = getattr(self.model, "sample", None)
        if function is None:
            raise NotExamined("Diffuser has no sample")
        # The starter kit's call, and labels where they are required.
        known = self.value(shape[0], self.draw_labels(shape[0]), n_steps)
        given, kwargs = calls.fill(function, (shape, n_steps), known)
        return function(*given, **kwargs)

    def photos(self, count, limit=1.0, seed=0):
        """Return smooth random images (count, 3, S, S) in [-limit, limit]."""
        generator = torch.Generator().manual_seed(seed)
        # Neighbouring pixels are alike, as in photos.
        coarse = torch.rand(count, 3, 6, 6, generator=generator)
        images = nn.functional.interpolate(
            coarse, (self.size, self.size), mode="bilinear", align_corners=True
        )
        return (limit * (2 * images - 1)).to(self.device)

    def network_call(self, model=None):
        """Return the NetworkCall of the loss for a batch of BATCH photos.

        model: a Diffuser; by default that of the adapter.
        """
        model = self.model if model is None else model
        # The output does not matter here: zeros cost nothing.
        calls.seed_all(0)
        with (
            recorded(model, lambda x, t: torch.zeros_like(x)) as record,
            reported_by("diffusion_loss"),
        ):
            self.loss(self.photos(BATCH), model=model)
        return only_call(record, BATCH)


def only_call(record, count):
    """Return the last call of the network for a batch of `count`.

    Raises:
        NotExamined: if there was none.
    """
    # Self-conditioning calls the network twice; the last call counts.
    found = [call for call in record if len(call.x) == count]
    if not found:
        raise NotExamined("the loss does not call the network as model(x_t, t)")
    return found[-1]


@contextlib.contextmanager
def recorded(model, predict):
    """Replace a network by predict(x, t), and yield the list of its calls.

    The output depends on a parameter of the model, with factor 0, as a graph would.
    """
    signature = inspect.signature(model.forward)
    anchor = next((p for p in model.parameters() if p.requires_grad), None)
    if anchor is None:
        raise NotExamined("Diffuser has no parameters")
    record = []

    def forward(*args, **kwargs):
        # The first two arguments, whatever their names.
        bound = signature.bind(*args, **kwargs)
        x, t, *_ = [*bound.arguments.values(), None]
        if not isinstance(x, torch.Tensor) or t is None:
            raise NotExamined("the network is not called as model(x_t, t)")
        # Copies: the completion may change its images in place.
        t = torch.as_tensor(t, device=x.device).detach()
        record.append(NetworkCall(x.detach().clone(), t, args, kwargs, model.training))
        return predict(x.detach(), t).to(x.dtype) + 0 * anchor.flatten()[0]

    # An attribute of the instance hides the method of its class.
    model.forward = forward
    try:
        yield record
    finally:
        del model.forward


@contextlib.contextmanager
def spied(model, name):
    """Yield the list of the (args, kwargs) with which a method is called."""
    method, record = getattr(model, name, None), []

    def call(*args, **kwargs):
        record.append((args, kwargs))
        return method(*args, **kwargs)

    if method is None:
        yield record
        return
    # As in `recorded`; the method itself is called.
    setattr(model, name, call)
    try:
        yield record
    finally:
        delattr(model, name)


def randomize_zeros(model):
    """Give random values to all weights that start as zeros; return the model."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and not parameter.any():
                parameter.normal_(std=0.1)
    return model

"""Part 4: the network itself: its output, what it uses, and what it costs."""

import contextlib

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..checks import Finding, NotExamined, check
from . import calls
from .denoisers import BATCH, denoiser_of, randomize_zeros, reported_by
from .noising import process_of

GFLOP = 1e9
FLAT_CAP, CAP = 2.0, 25.0  # GFLOP of a 24 x 24 image: without down-sampling, at all
PIXELS = 24 * 24
BATCHES = 40  # at most, until every layer has a gradient


def run_network(model, call, **changes):
    """Return the network's output for the arguments of a NetworkCall.

    changes: arguments to use instead of the call's, by their names; the first two are
    x and t.
    """
    # All arguments by name, so that one of them can be changed.
    names = [p.name for p in calls.parameters(model.forward)]
    values = dict(zip(names, call.args, strict=False)) | call.kwargs
    aliases = dict(zip(("x", "t"), names, strict=False))
    with reported_by("network_output"):
        return model(**values | {aliases.get(n, n): v for n, v in changes.items()})


@check(4, seconds=60, modules=("diffusion",))
def network_output(subject):
    """The output has the shape of the noised image."""
    denoiser = denoiser_of(subject)
    call = denoiser.network_call()
    with torch.no_grad():
        output = denoiser.model(*call.args, **call.kwargs)
    if not isinstance(output, torch.Tensor):
        raise NotExamined(f"the network returns a {type(output).__name__}")
    # Learned variances (Nichol & Dhariwal 2021) double the channels.
    if output.shape[1:2] == (6,):
        raise NotExamined("the network also predicts variances")
    if output.shape != call.x.shape:
        yield Finding(
            "network_output_shape",
            f"{tuple(output.shape)} for images of {tuple(call.x.shape)}",
            f"{tuple(call.x.shape)}",
        )


@check(4, seconds=60, modules=("diffusion",))
def time_used(subject):
    """The output depends on the time that the network is given."""
    denoiser, process = denoiser_of(subject), process_of(subject)
    # Layers that start as zeros would hide the time.
    model = randomize_zeros(denoiser.build()).eval()
    call = denoiser.network_call(model)
    # The same images at two times.
    outputs = []
    with torch.no_grad():
        for time in (process.times[len(process.times) // 10], process.times[-1]):
            t = torch.full_like(call.t, time.to(call.t.dtype))
            outputs.append(run_network(model, call, t=t))
    if torch.equal(*outputs):
        yield Finding(
            "time_not_used",
            "equal outputs for equal images at an early and at the last time",
            "an output that depends on t",
        )


# Parameters -----------------------------------------------------------------------


@check(4, seconds=90, modules=("diffusion",))
def diffusion_gradients(subject):
    """The loss has a gradient for the parameters of every layer."""
    denoiser = denoiser_of(subject)
    model = randomize_zeros(denoiser.build()).train()
    # Several batches: what takes the place of dropped labels is used at times only.
    for seed in range(BATCHES):
        calls.seed_all(seed)
        x_0 = denoiser.photos(BATCH, seed=seed)
        with reported_by("diffusion_loss"):
            denoiser.loss(x_0, model=model, labelled=seed % 4 != 3).backward()
        idle = sorted(layer for layer in owners(model) if not reached(model, layer))
        if not idle:
            return
    if idle:
        yield Finding(
            "no_gradient_in_diffuser",
            f"no gradient for {', '.join(idle[:3])}" + (" ..." if idle[3:] else ""),
            "a gradient for every layer of the Diffuser",
        )


def owners(model):
    """Return the names of layers with own parameters, and of lone parameters."""
    return {
        name.rpartition(".")[0] if is_layer(model, name) else name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def is_layer(model, name):
    """Tell whether a parameter belongs to a layer of torch.nn, which uses it whole."""
    module = model.get_submodule(name.rpartition(".")[0])
    return type(module).__module__.startswith("torch.nn") and module is not model


def reached(model, name):
    """Tell whether any parameter of a layer, or this parameter, has a gradient."""
    # A layer of torch.nn counts as a whole: the gradient of a single bias may be zero.
    with contextlib.suppress(AttributeError):
        layer = model.get_submodule(name)
        gradients = [p.grad for p in layer.parameters(recurse=False)]
        return any(g is not None and g.any() for g in gradients)
    return model.get_parameter(name).grad is not None


@check(4, seconds=60, modules=("diffusion",))
def diffusion_layers(subject):
    """No layer is made while the network runs (R22)."""
    denoiser = denoiser_of(subject)
    model, made = denoiser.build(), []
    call = denoiser.network_call(model)
    # A layer registers its parameters when it is made.
    original = nn.Module.register_parameter

    def register(module, name, parameter):
        if parameter is not None:
            made.append(type(module).__name__)
        original(module, name, parameter)

    nn.Module.register_parameter = register
    try:
        with torch.no_grad():
            run_network(model, call)
    finally:
        nn.Module.register_parameter = original
    if made:
        yield Finding(
            "layer_made_in_forward",
            f"a {made[0]} is made in each forward pass",
            "all layers are made in __init__",
        )


# Cost and sizes -------------------------------------------------------------------


@check(4, seconds=60, modules=("diffusion",))
def network_cost(subject):
    """A forward pass costs no more than 300 steps on a CPU allow (R5)."""
    denoiser = denoiser_of(subject)
    call, sides = denoiser.network_call(), set()

    def note(module, args, output):
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            sides.add(output.shape[-1])

    # The smallest feature map tells whether the network down-samples.
    convolutions = [m for m in denoiser.model.modules() if isinstance(m, nn.Conv2d)]
    handles = [layer.register_forward_hook(note) for layer in convolutions]
    # The counter counts a multiplication and an addition as two.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run_network(denoiser.model, call)
    for handle in handles:
        handle.remove()
    # Per image of the starter kit's size.
    images = BATCH * denoiser.size**2 / PIXELS
    cost = counter.get_total_flops() / GFLOP / images
    flat = bool(sides) and min(sides) >= denoiser.size
    if cost > (FLAT_CAP if flat else CAP):
        where = (
            "all convolutions at full resolution" if flat else "down-sampling is used"
        )
        yield Finding(
            "network_too_costly",
            f"{cost:.1f} GFLOP per 24 x 24 pixels, {where}",
            f"at most {FLAT_CAP if flat else CAP:g} GFLOP, most at lower resolutions",
        )


@check(4, seconds=60, modules=("diffusion",))
def network_sizes(subject):
    """A network that takes several square sizes takes oblong images too (R20)."""
    denoiser = denoiser_of(subject)
    # Multiples of 8, so that three halvings are no obstacle.
    model, call = denoiser.model.eval(), denoiser.network_call()
    takes = {side: output_shape(model, call, side, side) for side in (24, 32)}
    if any(shape != (side, side) for side, shape in takes.items()):
        return  # one size, or none of these
    # Height and width can be confused only where they differ.
    for height, width in ((24, 32), (32, 24)):
        shape = output_shape(model, call, height, width)
        if shape != (height, width):
            yield Finding(
                "oblong_images",
                f"{height} x {width} images give "
                + (f"{shape[0]} x {shape[1]}" if shape else "an error")
                + ", although 24 x 24 and 32 x 32 work",
                f"{height} x {width}",
            )
            return


def output_shape(model, call, height, width):
    """Return (H, W) of the output for images of this size, or None for an error."""
    x = torch.zeros(*call.x.shape[:2], height, width, device=call.x.device)
    try:
        with torch.no_grad():
            return tuple(run_network(model, call, x=x).shape[-2:])
    except Exception:  # whatever the completion raises for a size it does not take
        return None


# Labels ---------------------------------------------------------------------------


@check(4, seconds=60, modules=("diffusion",))
def network_labels(subject):
    """Labels have an effect, and without them the same layers are used (R15)."""
    denoiser = denoiser_of(subject)
    model = randomize_zeros(denoiser.build()).eval()
    parameter = calls.label_parameter(model.forward)
    if parameter is None:
        return
    # Two labels, and all else equal.
    call, name = denoiser.network_call(model), parameter.name
    ones = torch.ones(BATCH, dtype=torch.int64, device=denoiser.device)
    with_labels, seen = observed(model, call, **{name: ones})
    others = observed(model, call, **{name: 0 * ones})[0]
    if denoiser.classes > 1 and torch.equal(with_labels, others):
        yield Finding(
            "labels_not_used",
            "equal outputs for two labels",
            "an output that depends on the labels",
        )
    # Only without labels can another branch be taken.
    if parameter.default is not None:
        return
    # Layers that depend on the time, and are used with labels alone.
    without = observed(model, call, **{name: None})[1]
    moved = observed(model, call, **{name: ones, "t": call.t.flip(0)})[1]
    skipped = [
        layer
        for layer in seen
        if layer not in without and not torch.equal(seen[layer], moved[layer])
    ]
    if skipped:
        yield Finding(
            "labels_skip_layers",
            f"without labels {skipped[0]} is not used, although it sees the time",
            "a null label that goes through the same layers",
        )


def observed(model, call, **changes):
    """Return (output, {layer: its first input}) of a call of the network."""
    seen = {}
    # Hooks on layers with weights, for one call.
    layers = [(name, m) for name, m in model.named_modules() if is_block(m)]
    handles = [m.register_forward_hook(note_input(seen, name)) for name, m in layers]
    with torch.no_grad():
        output = run_network(model, call, **changes)
    for handle in handles:
        handle.remove()
    return output, seen


def is_block(layer):
    """Tell whether a module is a layer with weights, other than an embedding."""
    own = next(layer.parameters(recurse=False), None) is not None
    return own and not isinstance(layer, nn.Embedding)


def note_input(seen, name):
    """Return a hook that keeps a layer's first input in `seen`."""

    def hook(module, args, output):
        if args and isinstance(args[0], torch.Tensor):
            seen[name] = args[0]

    return hook

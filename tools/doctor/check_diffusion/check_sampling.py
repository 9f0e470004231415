"""Part 4: the sampler and its reverse step, with an ideal network in place."""

import ast
import contextlib

import torch

from ..checks import Finding, NotExamined, check
from . import calls
from .denoisers import denoiser_of, recorded
from .noising import DDPM, FLOW, process_of
from .reverse import ideal_sampling, reverse_faults

SHORT = 10  # steps of a short sampling


@check(4, seconds=60, modules=("diffusion",))
def sampling(subject):
    """sample() returns n_steps + 1 states, without a graph, in evaluation mode."""
    denoiser = denoiser_of(subject)
    model = denoiser.model.train()
    # In training mode, which sample() has to leave.
    shape, steps = (2, 3, denoiser.size, denoiser.size), min(SHORT, denoiser.n_steps)
    states, steps, record = zero_sampling(denoiser, shape, steps)
    yield from state_findings(denoiser, states, steps)
    # A caller under no_grad keeps no graph either.
    tensors = [state for state in states if isinstance(state, torch.Tensor)]
    protected = all_under_no_grad(denoiser.tree, "sample")
    if any(state.requires_grad for state in tensors) and not protected:
        yield Finding(
            "sampling_keeps_graph",
            "the samples require gradients: the graph of all steps is kept",
            "sampling under torch.no_grad()",
        )
    if any(call.training for call in record) and depends_on_mode(model):
        yield Finding(
            "sampling_in_training_mode",
            "model.training is true while sample() calls the network",
            "evaluation mode",
        )


def zero_sampling(denoiser, shape, steps):
    """Return (states, steps, [NetworkCall]) of sampling with a network of zeros.

    In all steps of the completion, where it takes no fewer.

    Raises:
        NotExamined: if sampling succeeds with the network itself alone.
    """
    for count in (steps, denoiser.n_steps):
        calls.seed_all(0)
        with (
            contextlib.suppress(Exception),
            recorded(denoiser.model, lambda x, t: torch.zeros_like(x)) as record,
        ):
            states = denoiser.sample(shape, count)
            if not record:
                raise NotExamined
            return states, count, record
    # The completion's own error, if it is one.
    with torch.no_grad():
        denoiser.sample(shape, steps)
    raise NotExamined("sample does not call the network as model(x_t, t)")


def state_findings(denoiser, states, steps):
    """Yield a finding if the list of states has another length than it should."""
    if isinstance(states, torch.Tensor) and states.dim() < 5:
        raise NotExamined("sample returns one tensor, not the list of states")
    if not isinstance(states, list | tuple | torch.Tensor):
        raise NotExamined(f"sample returns a {type(states).__name__}")
    # Other lengths are another form of result, not a mistake.
    faults = {steps: "one state is missing", denoiser.n_steps + 1: "n_steps is ignored"}
    if len(states) != steps + 1 and len(states) in faults:
        yield Finding(
            "sample_states",
            f"sample(shape, {steps}) returns {len(states)} states: "
            f"{faults[len(states)]}",
            f"{steps + 1} states, from pure noise to the result",
        )


def depends_on_mode(model):
    """Tell whether a model has layers that behave differently in training."""
    kinds = (
        torch.nn.modules.dropout._DropoutNd,
        torch.nn.modules.batchnorm._BatchNorm,
    )
    return any(isinstance(module, kinds) for module in model.modules())


def all_under_no_grad(tree, name):
    """Tell whether all calls of a method in a syntax tree are under no_grad."""
    protected = set()
    for node in ast.walk(tree):
        # `with torch.no_grad():` and decorators of functions.
        guards = [item.context_expr for item in getattr(node, "items", [])]
        guards += getattr(node, "decorator_list", [])
        text = " ".join(ast.unparse(guard) for guard in guards)
        if "no_grad" in text or "inference_mode" in text:
            protected |= {id(inner) for inner in ast.walk(node)}
    found = calls.own_calls(tree, name)
    return bool(found) and all(id(call) in protected for call in found)


@check(4, seconds=120, modules=("diffusion",))
def sampling_result(subject):
    """Sampling with a network that knows a photo ends at that photo."""
    states, _, photo = ideal_sampling(subject)
    if isinstance(states, torch.Tensor) and states.dim() < 5:
        states = [states]
    if getattr(states[-1], "shape", [])[1:] != photo.shape[1:]:
        raise NotExamined("the states are no tensors of images")
    if has_reverse_faults(subject):
        raise NotExamined("the reverse step is wrong, or its noise is")
    # The result may be scaled to [0, 1].
    errors = [
        [
            (state - goal).square().mean().sqrt().item()
            for goal in (photo, photo / 2 + 0.5)
        ]
        for state in (states[0], states[-1])
    ]
    # The last state is examined; the first one shows a reversed list.
    if min(errors[1]) < 0.1:
        return
    if len(states) > 1 and min(errors[0]) < 0.1:
        yield Finding(
            "sample_states",
            "the first state is the finished image",
            "states from pure noise to the result",
        )
        return
    yield Finding(
        "sampling_misses_photo",
        f"with a network that knows the photo, the result differs from it by "
        f"{min(errors[1]):.2g} (root mean square)",
        "the photo itself, to within 0.1",
    )


def has_reverse_faults(subject):
    """Tell whether p_theta_sampling has faults; False where it is not examined."""
    try:
        return process_of(subject).form == DDPM and bool(reverse_faults(subject))
    except NotExamined:
        return False


@check(4, seconds=120, modules=("diffusion",))
def reverse_step(subject):
    """p_theta_sampling draws from the posterior of a known photo (R14)."""
    # A flow has no posterior: its sampler is examined by its result.
    process = process_of(subject)
    if process.form == FLOW:
        return
    if not process.discrete:
        raise NotExamined("the times are continuous: the steps have no posterior")
    yield from reverse_faults(subject)

"""Part 4: the import, the kit's calls, the learning-rate schedule, the saved file."""

import ast
import contextlib
from pathlib import Path

import torch

from ..checks import Finding, NotExamined, check
from . import calls
from .denoisers import (
    TrainsAtImport,
    denoiser_of,
    import_diffusion,
    make_denoiser,
    reported_by,
)

SAVED = Path("doctor_saved") / "part_4.pkl"  # below the scratch folder
# Classes whose objects have to be called, or stepped, to have an effect.
SCHEDULES = ("exponential_decay", "LambdaLR", "StepLR", "CosineAnnealingLR")
SCHEDULES += ("ExponentialLR", "MultiStepLR", "OneCycleLR", "LinearLR", "SequentialLR")
KIT_CALLS = {  # function of diffusion.py -> number of arguments in the kit's calls
    "Diffuser": 2,
    "forward": 2,
    "sample": 2,
    "save": 1,
    "diffusion_loss_fn": 2,
}


@check(4, seconds=60, modules=("diffusion",))
def diffusion_import(subject):
    """diffusion.py trains nothing when it is imported (T24)."""
    try:
        with reported_by("import_diffusion"):
            import_diffusion(subject)
    except TrainsAtImport:
        yield Finding(
            "trains_at_import",
            "gradients were computed while diffusion.py was imported",
            "an import that only defines names and noise tables",
        )


@check(4, modules=("diffusion",))
def diffuser_made(subject):
    """The Diffuser can be made with the starter kit's arguments (R21)."""
    with reported_by("import_diffusion"), contextlib.suppress(TrainsAtImport):
        import_diffusion(subject)
    make_denoiser(subject)
    yield from ()


@check(4, modules=("diffusion",))
def diffusion_calls(subject):
    """The kit's calls need no argument that its callers do not give (R19)."""
    denoiser = denoiser_of(subject)
    # What is missing is reported by other checks.
    for name, known in KIT_CALLS.items():
        owner = denoiser.module if name[0] in "Dd" else denoiser.model
        function = getattr(owner, name, None)
        if function is None:
            continue
        if lacking := missing_argument(denoiser.tree, function, name, known):
            yield Finding(
                "extra_required_argument",
                f"{name} requires {lacking}",
                f"{name} works with the arguments of the starter kit's call",
            )


def missing_argument(tree, function, name, known):
    """Return the name of a required argument that some caller does not give."""
    # Callers of `forward` call the model, under any name.
    found = [] if name == "forward" else calls.own_calls(tree, name)
    order = [p.name for p in calls.parameters(function)]
    # A caller in the file that gives the argument shows that it is meant.
    for parameter in calls.extra_required(function, known):
        position = order.index(parameter.name)
        lacking = found and not any(
            calls.supplies(call, position, parameter.name) for call in found
        )
        # Labels may be required by a completion that is conditional on them.
        unknown = not found and name != "forward" and not calls.is_label(parameter.name)
        if lacking or unknown:
            return parameter.name
    return None


# The learning-rate schedule ------------------------------------------------------


@check(4, modules=("diffusion",))
def diffusion_schedule(subject):
    """A learning-rate schedule that is built is also applied (R12)."""
    # By the text: the training itself is not run.
    tree = calls.syntax_tree(subject.folder / "diffusion.py")
    for node in ast.walk(tree):
        # Calls such as `scheduler = exponential_decay(...)`.
        built = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if not built or calls.called_name(node.value) not in SCHEDULES:
            continue
        # A name that is read anywhere later may well be applied.
        names = {ast.unparse(target) for target in node.targets}
        if not names & loaded(tree):
            yield Finding(
                "schedule_not_applied",
                f"line {node.lineno} builds {min(names)}, and no line uses it",
                "the learning rate of each epoch is set by the schedule",
            )


def loaded(tree):
    """Return the texts of all names and attributes that are read."""
    nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Name | ast.Attribute))
    return {ast.unparse(n) for n in nodes if isinstance(n.ctx, ast.Load)}


# The saved file --------------------------------------------------------------------


@check(4, modules=("diffusion",))
def diffusion_save(subject):
    """save() writes a bare state_dict that is loaded safely on a CPU (R28)."""
    denoiser = denoiser_of(subject)
    function = getattr(denoiser.model, "save", None)
    if function is None:
        raise NotExamined("Diffuser has no save")
    if calls.extra_required(function, 1):
        raise NotExamined("save requires more than a path")
    # The folder does not exist yet; save() makes it.
    function(str(SAVED))
    # The completion may choose another extension.
    written = [p for p in SAVED.parent.glob("*") if p.is_file()]
    if not written:
        yield Finding("save_writes_nothing", f"no file {SAVED}", "a file of weights")
        return
    yield from contents_findings(denoiser, written[0])


def contents_findings(denoiser, path):
    """Yield what is wrong with a file of weights."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        yield Finding(
            "save_not_safe",
            f"torch.load with weights_only=True ends in {type(error).__name__}",
            "a file of tensors, without pickled classes",
        )
        return
    # The names must be those of the model, and the shapes must fit.
    keys = list(weights) if isinstance(weights, dict) else [type(weights).__name__]
    if set(keys) == set(denoiser.model.state_dict()):
        with contextlib.suppress(NotExamined):
            denoiser.build().load_state_dict(weights)
        return
    yield Finding(
        "save_not_bare",
        f"the file holds {', '.join(map(str, keys[:3]))}",
        "the state_dict itself, with the names of the model's own weights",
    )

"""Imports point down: one rule per layer, and no permission that nothing uses."""

import ast
from graphlib import TopologicalSorter

from tests.helpers.project import PROJECT

LAYERS = {  # layer -> its modules and packages
    "cli": ["utils.cli"],
    "config": ["utils.config"],
    "base": ["utils.files", "utils.device", "utils.checkpoint", "utils.scheduler"],
    "figures": ["utils.figures"],
    "packages": ["utils.data", "utils.optim", "utils.diffusion", "utils.latents"],
    "loop": ["utils.train", "utils.data_processor"],
    "experiment": ["utils.experiment", "utils.evaluation"],
    "models": ["MLPAutoencoder", "Autoencoder", "VarAutoencoder"],
    "part 4": ["diffusion"],
    "registry": ["utils.registry"],
    "commands": ["train_script", "visualization", "random_generation", "tools"],
}
BOTTOM = {"cli", "config", "base"}
RULES = {  # layer -> other layers that it imports from
    "cli": set(),
    "config": {"cli"},
    "base": {"cli"},
    "figures": set(),
    "packages": BOTTOM,
    "loop": {"cli", "base", "figures", "packages"},
    "experiment": BOTTOM | {"packages", "loop"},
    "models": set(),
    "part 4": BOTTOM | {"packages", "loop", "experiment", "figures"},
    "registry": BOTTOM | {"models", "part 4"},
    "commands": set(LAYERS) - {"commands", "models"},
}


def layer_of(module):
    """Return the layer of a dotted name, or None for a foreign one."""
    for layer, members in LAYERS.items():
        if any(module == m or module.startswith(m + ".") for m in members):
            return layer
    return None


def imports():
    """Return {module: the modules of ours that it imports, anywhere in its file}."""
    found = {}
    for pattern in ("*.py", "utils/**/*.py", "tools/**/*.py"):
        for path in PROJECT.glob(pattern):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            names = set()
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names |= {f"{node.module}.{a.name}" for a in node.names}
            found[".".join(parts)] = {name for name in names if layer_of(name)}
    return found


def test_every_rule_is_kept_and_used():
    used = {layer: set() for layer in LAYERS}
    for module, names in imports().items():
        if layer := layer_of(module):
            used[layer] |= {layer_of(name) for name in names} - {layer}
    assert used == RULES


def test_layers_have_no_cycle():
    assert list(TopologicalSorter(RULES).static_order())

"""Imports point down: one rule per layer, and no permission that nothing uses."""

from graphlib import TopologicalSorter

from tests.helpers.sources import imports

LAYERS = {  # layer -> its modules and packages
    "cli": ["utils.cli"],
    "config": ["utils.config"],
    "base": ["utils.files", "utils.device", "utils.checkpoint", "utils.scheduler"],
    "figures": ["utils.figures", "utils.tensorboard"],
    "packages": ["utils.data", "utils.optim", "utils.diffusion", "utils.latents"],
    "loop": ["utils.train", "utils.data_processor"],
    "distributed": ["utils.distributed"],
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
    "figures": {"cli", "base"},
    "packages": BOTTOM,
    "loop": {"cli", "base", "figures", "packages"},
    "distributed": {"cli", "base", "loop"},
    "experiment": BOTTOM | {"packages", "loop"},
    "models": set(),
    "part 4": BOTTOM | {"packages", "distributed", "experiment", "figures"},
    "registry": BOTTOM | {"models", "part 4"},
    "commands": set(LAYERS) - {"commands", "models"},
}


def layer_of(module):
    """Return the layer of a module."""
    for layer, members in LAYERS.items():
        if any(module == m or module.startswith(m + ".") for m in members):
            return layer
    assert module == "utils", module  # a package without content


def test_every_rule_is_kept_and_used():
    used = {layer: set() for layer in LAYERS}
    for module, names in imports().items():
        if layer := layer_of(module):
            used[layer] |= {layer_of(name) for name in names} - {layer, None}
    assert used == RULES


def test_no_module_is_in_a_cycle():
    assert list(TopologicalSorter(imports()).static_order())

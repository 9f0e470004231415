"""Each module of a completion can be imported, without training or leaving anything.

The scripts of the starter kit run when they are imported; they are never examined here.
"""

from .checks import CHECKS, Check

MODULES = {  # module -> part of the assignment that it belongs to
    "MLPAutoencoder": 1,
    "utils.scheduler": 1,
    "utils.train": 1,
    "Autoencoder": 2,
    "VarAutoencoder": 3,
    "diffusion": 4,
}


def importing(module):
    """Return a check that imports a module; what goes wrong is the runner's finding."""

    def run(subject):
        subject.module(module)
        return iter(())

    return run


for module, part in MODULES.items():
    row = Check(f"import_{module}", part, 20.0, importing(module), (module,))
    CHECKS[row.name] = row

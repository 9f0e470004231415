"""File names of weights and of the states of trainings."""

from itertools import product
from pathlib import Path

from utils.cli import UserError
from utils.cli.arguments import training_command

FOLDERS = ("models", "model")  # ours, then the starter kit's
NAMES = {
    "MLPAE": "Best_MLPAE.pkl",
    "diffusion": "Best_diffusion.pkl",
    "features": "features.pt",
    "features_b": "features_b.pt",
}
KIT_NAMES = {"diffusion": "Bestmodel_diffusion.pkl"}


def weights_name(name):
    """Return the file name of a model's best weights."""
    if name.startswith("prior_"):
        return f"Prior_{name.removeprefix('prior_')}.pth"
    if name.startswith("guide_"):
        return f"Guide_{name.removeprefix('guide_')}.pkl"
    if name.startswith("diffusion_"):
        return f"Best_{name}.pkl"
    return NAMES.get(name, f"Best_{name}.pth")


def last_name(name):
    """Return the file name of the state of a model's latest training."""
    return f"Last_{name}.pth"


def find_weights(name, *roots):
    """Return the first file of trained weights of this model below these folders."""
    # Raises UserError if there is none.
    stem = Path(weights_name(name)).stem
    names = [weights_name(name), f"{stem}.pth", f"{stem}.pkl", KIT_NAMES.get(name)]
    for root, folder, candidate in product(roots, FOLDERS, filter(None, names)):
        path = Path(root, folder, candidate)
        if path.exists():
            return path
    missing = Path(roots[0], FOLDERS[0], weights_name(name))
    command = training_command(name)
    raise UserError(f"{missing} is not there; train first: python {command}")

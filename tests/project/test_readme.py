"""What the README says of commands, files and defaults is true of the code (R6)."""

import re

import pytest

from tests.helpers.project import PROJECT
from utils.cli.arguments import FLAGS, MODELS
from utils.config import DIFFUSION_MODELS, OPTIMIZERS, PRESETS, DiffusionSettings

README = (PROJECT / "README.md").read_text("utf-8")


def test_the_two_commands_are_the_ones_of_ci():
    """The install and test commands stand in the README as .ci/run runs them."""
    script = (PROJECT / ".ci" / "run").read_text("utf-8")
    assert "pip install -e '.[dev]' && pytest -q" in README
    assert "pip install -q -e '.[dev]'" in script and "\npytest -q\n" in script
    assert "pip install -r requirements.txt && python train_script.py" in README


def test_files_named_are_there():
    for path in re.findall(r"\]\(((?:vis|docs)/[^)]+)\)", README):
        assert (PROJECT / path).is_file(), path
    for path in re.findall(r"python (\w+\.py)", README):
        assert (PROJECT / path).is_file(), path
    for module in re.findall(r"python -m (tools\.\w+)", README):
        assert (PROJECT / f"{module.replace('.', '/')}.py").is_file(), module


def test_flags_named_exist():
    """Every --flag of the README belongs to some command."""
    tools = "".join(p.read_text("utf-8") for p in (PROJECT / "tools").glob("*.py"))
    known = {*FLAGS, "--no-hflip", "--help", "--debug"}
    known |= set(re.findall(r'"(--[\w-]+)"', tools))
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", README)) <= known


def test_requirements_are_ranges():
    """Core packages by the user's choice, none of them pinned; torch 2.10 or later."""
    lines = (PROJECT / "requirements.txt").read_text("utf-8").split()
    names = [re.split("[<>=]", line)[0] for line in lines]
    assert names == ["torch", "torchvision", "numpy", "matplotlib", "tqdm"]
    assert "torch>=2.10" in lines and not any("==" in line for line in lines)


@pytest.mark.parametrize("name", MODELS)
def test_each_setting_trains_within_the_assignment(name):
    """M12, M19, M22, M33: the rows' epochs are the assignment's."""
    epochs = {row.optimizer: row.epochs for row in PRESETS[name]}
    expected = {
        "MLPAE": {"sgd": 100, "adamw": 60},
        "AE": {"muon": 15, "adamw": 15, "sgd": 60},
        "VAE": {"muon": 20, "adamw": 20},
    }
    assert epochs == expected[name]


@pytest.mark.parametrize("name", sorted(set(PRESETS) - set(MODELS)))
def test_each_setting_of_a_diffusion_model_is_whole(name):
    """A name of diffusion.py's own; one row per optimizer, and it has that one."""
    assert name in DIFFUSION_MODELS and "diffusion" in PRESETS
    optimizers = [row.optimizer for row in PRESETS[name]]
    assert set(optimizers) <= set(OPTIMIZERS) and optimizers
    assert len(optimizers) == len(set(optimizers))
    assert all(isinstance(row, DiffusionSettings) for row in PRESETS[name])

"""What the README says of commands, files and defaults is true of the code (R6)."""

import re
from dataclasses import fields

import pytest

from tests.helpers.project import PROJECT
from utils.cli.arguments import FLAGS, flag_of
from utils.config import AUTOENCODERS, PRESETS, AutoencoderSettings, DiffusionSettings

README = (PROJECT / "README.md").read_text("utf-8")


def test_the_two_commands_are_the_ones_of_ci():
    """The install and test commands stand in the README as .ci/run runs them."""
    script = (PROJECT / ".ci" / "run").read_text("utf-8")
    assert "pip install -e '.[dev]' && pytest -q" in README
    assert "pip install -q -e '.[dev]'" in script and "\npytest -q\n" in script
    assert "pip install -r requirements.txt && python train_script.py" in README


def test_it_is_short():
    assert len(README.splitlines()) <= 130 and len(README.encode()) <= 9000


# Flags of other programs that docs/scale.md names.
TORCHRUN = {"--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_id"}
TORCHRUN |= {"--rdzv_endpoint", "--rdzv_conf", "--local_addr", "--max_restarts"}
SLURM = {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task"}
DOCUMENTS = [p for p in PROJECT.glob("docs/*.md") if ".template" not in p.name]


@pytest.mark.parametrize("path", [PROJECT / "README.md", *DOCUMENTS])
def test_files_and_flags_named_exist(path):
    """In the README and the documents: links, commands and every --flag."""
    text = path.read_text("utf-8")
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
        assert (path.parent / link).is_file(), link
    for name in re.findall(r"python (\w+\.py)", text):
        assert (PROJECT / name).is_file(), name
    for module in re.findall(r"python -m (tools\.\w+)", text):
        place = PROJECT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
    tools = "".join(p.read_text("utf-8") for p in PROJECT.glob("tools/**/*.py"))
    known = {*FLAGS, "--no-hflip", "--help", "--debug"}
    for settings in (AutoencoderSettings, DiffusionSettings):
        known |= {flag_of(field.name) for field in fields(settings)}
    known |= set(re.findall(r'"(--[\w-]+)"', tools))
    known |= {"--index-url", "--logdir"}  # of pip and of tensorboard
    known |= TORCHRUN | SLURM
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) <= known


def test_its_python_lines_run():
    """At most five lines load a model and sample."""
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in block.splitlines() if line]
    assert len(lines) <= 5
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    images = names["images"]
    assert images.shape == (8, 3, 24, 24) and 0 <= images.min() < images.max() <= 1


def test_requirements_are_ranges():
    """Core packages by the user's choice, none of them pinned; torch 2.10 or later."""
    lines = (PROJECT / "requirements.txt").read_text("utf-8").split()
    names = [re.split("[<>=]", line)[0] for line in lines]
    assert names == ["torch", "torchvision", "numpy", "matplotlib", "tqdm"]
    assert "torch>=2.10" in lines and not any("==" in line for line in lines)


def test_each_setting_trains_within_the_assignment():
    """M12, M19, M22, M33: the rows' epochs are the assignment's."""
    epochs = {n: {r.optimizer: r.epochs for r in PRESETS[n]} for n in AUTOENCODERS}
    assert epochs == {
        "MLPAE": {"sgd": 100, "adamw": 60},
        "AE": {"muon": 15, "adamw": 15, "sgd": 60},
        "VAE": {"muon": 20, "adamw": 20},
    }

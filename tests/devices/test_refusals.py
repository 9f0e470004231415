"""--device on every command: who has it, and what a machine without the device says."""

import ast
import importlib
import sys

import pytest

from tests.helpers.commands import HARMLESS
from tests.helpers.sources import module_of, named_imports, sources
from utils.cli import run
from utils.device import choose_device

COMMANDS = {  # module of a command that runs a model -> the least that it is given
    **{name: "" for name in ("train_script", "visualization")},
    **{name: "" for name in ("random_generation", "diffusion")},
    "tools.ablations": "table.toml",
    "tools.benchmark": "",
    "tools.compare_samplers": "",
    "tools.evaluate": "weights.pth",
    "tools.ladder": "weights.pth",
    "tools.nearest_neighbours": "",
    "tools.playground.epochs": "",
    "tools.reflow": "",
    "tools.scaling": "",
    "tools.train_features": "",
    "tools.visualize.__main__": "",
}
RUNS_A_MODEL = {  # what a command imports that runs one
    *("utils.registry.load_model", "utils.registry.load_diffusion"),
    *("utils.device.prepare_device", "utils.experiment.start_training"),
    *("utils.device.choose_device", "utils.evaluation.features.load_features"),
}


def test_every_command_that_runs_a_model_has_the_flag():
    found = set()
    for path in sources():
        tree = ast.parse(path.read_text("utf-8"))
        functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        if "main" in functions and RUNS_A_MODEL & {n for _, n in named_imports(tree)}:
            found.add(module_of(path))
    assert found == COMMANDS.keys()


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_device_that_is_not_there_is_refused(
    name, kind, monkeypatch, tmp_path, capsys
):
    """Before any work, in one line, with exit code 1; weights and tables are missing.

    Results on stdout: none but the lines of a training that has not begun.
    """
    for check in ("torch.cuda.is_available", "torch.backends.mps.is_available"):
        monkeypatch.setattr(check, lambda: False)
    for function, value in HARMLESS.items():
        monkeypatch.setattr(function, value)
    words = [*COMMANDS[name].split(), "--device", kind]
    words += [] if name == "tools.evaluate" else ["--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as end:
        run(importlib.import_module(name).main)
    out, err = capsys.readouterr()
    line = f"{name}: error: --device {kind} is not on this machine; use --device cpu\n"
    assert (end.value.code, out, err) == (1, "", line)


@pytest.mark.parametrize(
    "cuda, mps, expected",
    [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")],
)
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(cuda))
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: bool(mps))
    assert choose_device("auto").type == expected
    assert choose_device("cpu").type == "cpu"

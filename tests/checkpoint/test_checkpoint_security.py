"""Opening a file of weights never runs code from it."""

import ast
import os
import re
import shutil

import pytest
import torch
from torch import nn

from tests.helpers.commands import error_line
from tests.helpers.damage import NAMES, WRITERS, as_torch_file, refusal, trap
from tests.helpers.project import PROJECT, run_command
from tests.helpers.sources import named_imports, sources
from utils.checkpoint import load_checkpoint, loading
from utils.checkpoint.resume import keep_previous

# Payloads ---------------------------------------------------------------------


@pytest.fixture(params=["0", "1"], ids=["", "forced"])
def forced(request, monkeypatch):
    """With and without the environment's order to trust every file."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", request.param)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", NAMES)
def test_payload_is_refused_and_does_not_run(tmp_path, forced, name, write):
    """P7, L07-L10: nor in a training, which looks at the weights it will replace."""
    path, canary = trap(tmp_path, name, write)
    assert str(path) in refusal(load_checkpoint, path)
    keep_previous(path, {"source": "drawn flowers"})
    assert not canary.exists()


@pytest.mark.parametrize("name", NAMES)
def test_payload_is_live(tmp_path, monkeypatch, name):
    """The mutant: with both defences dropped each payload makes its canary."""
    path, canary = trap(tmp_path, name, as_torch_file)
    load = torch.load
    monkeypatch.setattr(loading, "refuse_code", lambda *_: None)
    monkeypatch.setattr(
        loading.torch, "load", lambda file, **_: load(file, weights_only=False)
    )
    refusal(load_checkpoint, path)  # what it returns is no tensor
    assert canary.exists()


def test_refusal_of_a_payload_is_one_line(tmp_path):
    """P7, L07, L10 in a process: exit 1, one line, nothing but the reason."""
    path, canary = trap(tmp_path, "os.system", as_torch_file)
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    done = run_command("random_generation.py", "--weights", path, env=environment)
    assert done.returncode == 1 and done.stdout == "" and not canary.exists()
    assert error_line(done.stderr, "random_generation.py")
    assert f"{path} holds code, not weights" in done.stderr
    assert "weights_only" not in done.stderr


def test_whole_module_is_refused(tmp_path):
    """L11: torch.save(model) holds the names of classes."""
    torch.save(nn.Linear(2, 2), tmp_path / "Best_AE.pth")
    message = refusal(load_checkpoint, tmp_path / "Best_AE.pth")
    assert "holds code, not weights" in message


# The source code --------------------------------------------------------------

FORBIDDEN = re.compile(
    r"(pickle|marshal|shelve|dill|cloudpickle|joblib)\.\w*(load|Unpickler)\w*"
    r"|(builtins\.)?(eval|exec)|os\.(system|popen)|yaml\.\w*load\w*|torch\.hub(\..*)?"
    r"|torch\.(jit|package)\.\w*(load|Importer)\w*"
)


def is_danger(node, full_name):
    """Tell whether the node of a syntax tree could run what it reads."""
    if isinstance(node, (ast.Attribute, ast.Name)):
        return FORBIDDEN.fullmatch(full_name(node))
    if not isinstance(node, ast.Call):
        return False
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if full_name(node.func) == "torch.load":
        return given.get("weights_only") != "True" or "mmap" in given
    return given.get("shell", "False") != "False" or "allow_pickle" in given


def dangers(source):
    """Return the line numbers where the source could run what it reads."""
    tree = ast.parse(source)
    names = dict(named_imports(tree))

    def full_name(node):
        first, *rest = ast.unparse(node).split(".")
        return ".".join([names.get(first, first), *rest])

    return [n.lineno for n in ast.walk(tree) if is_danger(n, full_name)]


def dangerous_files(root):
    """Return {file: lines of dangerous calls} of the code below a folder."""
    found = {
        path.relative_to(root).as_posix(): dangers(path.read_text("utf-8"))
        for path in sources(root)
    }
    assert {"diffusion.py", "utils/checkpoint/loading.py"} <= set(found)
    return {name: lines for name, lines in found.items() if lines}


def test_no_source_runs_what_it_reads(tmp_path):
    """P7: on the syntax tree of every file; a call planted in a package is caught."""
    assert dangerous_files(PROJECT) == {}
    for name in ("diffusion.py", "utils", "tools"):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, tmp_path / name)
    planted = tmp_path / "utils" / "diffusion" / "samplers.py"
    planted.write_text(planted.read_text("utf-8") + "\n\neval(x)\n")
    assert list(dangerous_files(tmp_path)) == ["utils/diffusion/samplers.py"]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "import pickle as p\np.loads(b)",
        "from pickle import loads as read\nread(b)",
        "import pickle\npickle.Unpickler(f).load()",
        "x = 1\neval(x)",
        "import builtins\nbuiltins.exec(x)",
        "import os\nos.system(x)",
        "from os import system\nsystem(x)",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import numpy\nnumpy.load(f, allow_pickle=True)",
        "import yaml\nyaml.load(f)",
        "import joblib\njoblib.load(f)",
        "import torch\ntorch.hub.load(x, y)",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import torch\ntorch.load(f, weights_only=safe)",
        "import torch\ntorch.load(f, weights_only=True, mmap=True)",
        "from torch import load\nload(f)",
    ],
)
def test_scan_sees_each_danger(source):
    assert 2 in dangers(source)


def test_scan_lets_harmless_code_pass():
    source = (
        "import torch, pickle, subprocess\n"
        "model.eval()\n"
        "torch.load(f, weights_only=True)\n"
        "pickle.UnpicklingError\n"
        "subprocess.run(['ls'])\n"
    )
    assert dangers(source) == []

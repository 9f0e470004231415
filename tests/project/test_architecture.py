"""The shape of the code is a promise too: arrows of import, sizes, what must not be."""

import ast
import re
import subprocess
import sys

import pytest

from tests.helpers.project import PROJECT

MODELS = ("MLPAutoencoder", "Autoencoder", "VarAutoencoder", "diffusion")
SCRIPTS = ("train_script", "visualization", "random_generation")
OURS = {*MODELS, *SCRIPTS, "utils", "tools", "tests"}
ARROWS = {  # module of utils -> modules of utils that it may import
    "cli": set(),
    "flag_types": set(),
    "flags": {"cli", "flag_types"},
    "hardware": set(),
    "scheduler": set(),
    "ema": set(),
    "latent": set(),
    "optimizers": {"muon", "scheduler"},
    "yardsticks": {"metrics"},
    "priors": {"cli", "checkpoint"},
    "metrics": set(),
    "features": {"cli", "checkpoint"},
    "arrays": {"cli", "checkpoint"},
    "muon": {"hardware"},
    "drawn_flowers": set(),
    "unet": {"hardware"},
    "noise": set(),
    "denoiser": {"noise", "unet"},
    "samplers": set(),
    "sampling": {"cli", "samplers", "train"},
    "pace": {"cli", "train"},
    "figures": set(),
    "template": {"cli", "checkpoint"},
    "editing": {"latent", "samplers", "sampling"},
    "exhibits": {
        *("cli", "data_processor", "editing", "figures", "film", "metrics"),
        *("photos", "runtime", "sampling", "straightness", "train"),
    },
    "film": {"figures", "sampling"},
    "straightness": {"samplers", "sampling"},
    "reflow": {"denoiser", "noise", "sampling", "train"},
    "trials": {
        "cli",
        "data_processor",
        "features",
        "metrics",
        "runtime",
        "sampling",
        "train",
        "yardsticks",
    },
    "photos": {"cli"},
    "checkpoint": {"cli"},
    "data_processor": {"cli", "figures", "photos", "drawn_flowers"},
    "train": {"cli", "checkpoint"},
    "registry": {"cli", "checkpoint", "flags"},
    "runtime": {"cli", "checkpoint", "data_processor", "hardware"},
}
LONGEST_FILE, LONGEST_FUNCTION = 300, 50  # lines


def sources(*patterns):
    """Return the project's Python files, as git would see them."""
    return sorted(path for pattern in patterns for path in PROJECT.glob(pattern))


def imports(path, top_level=False):
    """Return the dotted names that a file imports, at all or at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(names):
    """Return the parts of our own that are among these imports: `utils.cli`, ..."""
    parts = (name.split(".") for name in names)
    return {
        ".".join(p[:2]) if p[0] in ("utils", "tools") else p[0]
        for p in parts
        if p[0] in OURS
    }


@pytest.mark.parametrize("name", MODELS)
def test_models_import_torch_alone(name):
    """STYLE 3: at top level nothing of ours; diffusion also its denoiser."""
    allowed = {"utils.denoiser"} if name == "diffusion" else set()
    path = PROJECT / f"{name}.py"
    assert ours(imports(path, top_level=True)) == allowed
    foreign = {n.split(".")[0] for n in imports(path, top_level=True)} - {"utils"}
    assert foreign <= {"torch"} | sys.stdlib_module_names


@pytest.mark.parametrize("path", sources("utils/[a-z]*.py"), ids=lambda p: p.stem)
def test_parts_import_downwards(path):
    """STYLE 3: utils knows no script and no model; the registry alone builds models."""
    allowed = {f"utils.{name}" for name in ARROWS[path.stem]}
    if path.stem == "registry":
        allowed |= set(MODELS)
    assert ours(imports(path)) <= allowed


def test_the_registry_loads_without_torch_and_without_models():
    found = ours(imports(PROJECT / "utils/registry.py", top_level=True))
    assert found == {"utils.cli", "utils.flags"}
    paths = [PROJECT / f"utils/{name}.py" for name in ("cli", "flags", "flag_types")]
    foreign = {n.split(".")[0] for path in paths for n in imports(path)}
    assert foreign <= {"utils"} | sys.stdlib_module_names


@pytest.mark.parametrize("path", sources("tools/[a-z]*.py"), ids=lambda p: p.stem)
def test_tools_are_imported_by_nothing(path):
    importers = sources("*.py", "utils/*.py", "tools/*.py")
    assert not [p for p in importers if f"tools.{path.stem}" in ours(imports(p))]


def test_commands_are_imported_by_nothing():
    importers = sources("*.py", "utils/*.py", "tools/*.py")
    assert not [p for p in importers if ours(imports(p)) & set(SCRIPTS)]


@pytest.mark.parametrize(
    "path",
    sources("*.py", "utils/*.py", "tools/*.py", "tests/*.py"),
    ids=lambda p: p.stem,
)
def test_files_and_functions_are_short(path):
    """No file over 300 lines, no function over 50."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def test_no_absolute_path_and_no_photo_is_committed():
    """M46, R1, R10: everything is kept but the photos."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("needs git and a checkout")
    names = listed.stdout.split()
    assert not [n for n in names if re.match(r"flowers/.*\.(jpe?g|png|webp|bmp)$", n)]
    code = [
        n for n in names if n.endswith((".py", ".toml", ".md")) and "tests/" not in n
    ]
    pattern = re.compile(r"(?<![\w.])/(home|root|Users|work|tmp)/\w|[A-Z]:\\\\")
    assert not [n for n in code if pattern.search((PROJECT / n).read_text("utf-8"))]

"""The notebook, in two languages: it runs, and is committed with its outputs."""

import ast
import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.project import GUARD, PROJECT

ENGLISH, CHINESE = PROJECT / "docs" / "tour.ipynb", PROJECT / "docs/zh/tour.ipynb"


def cells(path, kind):
    """Return the cells of a kind: code or markdown."""
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if cell.cell_type == kind]


def kinds_of_output(cell):
    """Return the kinds of a cell's outputs; a busy kernel sends a text in parts."""
    kinds = {o.get("name", o.output_type) for o in cell.get("outputs", [])}
    return kinds - {"stderr"}


@pytest.mark.parametrize("path", [ENGLISH, CHINESE])
def test_it_is_committed_with_its_outputs(path):
    """Every cell of code shows something; small, and without a path of a machine."""
    code = cells(path, "code")
    assert len(code) >= 5 and all(cell.outputs for cell in code)
    assert path.stat().st_size < 1_000_000
    assert "/home/" not in path.read_text("utf-8")


def test_both_languages_run_the_same_code():
    """The cells of text stand at the same places, and are Chinese in one."""
    both = [nbformat.read(p, as_version=4).cells for p in (ENGLISH, CHINESE)]
    for one, other in zip(*both, strict=True):
        assert one.cell_type == other.cell_type
        if one.cell_type == "code":
            assert one.source == other.source
        else:
            assert re.search("[\u4e00-\u9fff]{4}", other.source), other.source


def test_its_code_runs(monkeypatch):
    """In this process, with fewer images: every cell but the first shows a picture."""
    monkeypatch.chdir(ENGLISH.parent)
    monkeypatch.setattr("sys.path", sys.path.copy())
    monkeypatch.setattr("utils.data.dataset.SYNTHETIC_PER_SPECIES", 40)
    names = {}
    for cell in cells(ENGLISH, "code"):
        *body, last = ast.parse(
            cell.source.replace("metadata, 24,", "metadata, 3,")
        ).body
        exec(compile(ast.Module(body, []), str(ENGLISH), "exec"), names)
        shown = eval(compile(ast.Expression(last.value), str(ENGLISH), "eval"), names)
        assert min(shown.size) >= 48


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's transport
@pytest.mark.parametrize("path", [ENGLISH, CHINESE])
def test_it_runs_on_drawn_flowers(monkeypatch, path):
    """In its folder, without photos; what showed a picture shows one again."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    expected = [kinds_of_output(cell) for cell in notebook.cells]
    resources = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=GUARD, resources=resources).execute()
    pictures = 0
    for cell, before in zip(notebook.cells, expected, strict=True):
        assert kinds_of_output(cell) == before
        outputs = cell.get("outputs", [])
        pictures += sum("image/png" in o.get("data", {}) for o in outputs)
    assert pictures >= 6

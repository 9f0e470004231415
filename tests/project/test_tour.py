"""The notebook runs from start to end, and is committed with its outputs."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.project import PROJECT

PATH = PROJECT / "docs" / "tour.ipynb"


def read():
    return nbformat.read(PATH, as_version=4)


def test_it_is_committed_with_its_outputs():
    """Every cell of code shows something; small, and without a path of a machine."""
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert len(cells) >= 5 and all(cell.outputs for cell in cells)
    assert PATH.stat().st_size < 1_000_000
    assert "/home/" not in PATH.read_text("utf-8")


@pytest.mark.filterwarnings("ignore")  # of the kernel's transport
def test_it_runs_on_drawn_flowers(monkeypatch):
    """Without photos in flowers/; each cell that showed a picture shows one again."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read()
    expected = [len(cell.get("outputs", [])) for cell in notebook.cells]
    resources = {"metadata": {"path": PROJECT / "docs"}}
    NotebookClient(notebook, timeout=120, resources=resources).execute()
    pictures = 0
    for cell, before in zip(notebook.cells, expected, strict=True):
        outputs = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        assert len(outputs) == before
        pictures += sum("image/png" in o.get("data", {}) for o in outputs)
    assert pictures >= 6

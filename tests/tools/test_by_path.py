"""Tools that are run by their file name, from any folder."""

import pytest

from tests.helpers.project import PROJECT, python

TOOLS = sorted(
    path.stem
    for path in (PROJECT / "tools").glob("*.py")
    if "__main__" in path.read_text("utf-8")
)


def test_all_tools_are_among_them():
    assert len(TOOLS) >= 10 and "evaluate" in TOOLS and "utils" not in TOOLS


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_runs_by_its_file_name_from_another_folder(tmp_path, name):
    """It imports the project's package `utils`, and finds the project's files."""
    done = python(PROJECT / "tools" / f"{name}.py", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: {name}.py" in done.stdout and "--debug" in done.stdout
    # A wrong command is refused as by `python -m`.
    done = python(PROJECT / "tools" / f"{name}.py", "--colour", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{name}.py: error: ")


def test_the_rest_of_a_tool_imports_too(tmp_path):
    """Torch, other tools, and the modules of parts 1 to 4."""
    wrong = tmp_path / "missing.pkl"
    done = python(PROJECT / "tools" / "ladder.py", wrong, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("ladder.py: error: ")
    assert str(wrong) in line


def test_a_folder_without_that_file_fails(tmp_path):
    """What the file mends: the same tool without it cannot import anything."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "utils").symlink_to(PROJECT / "utils")
    text = (PROJECT / "tools" / "get_flowers.py").read_text("utf-8")
    (tmp_path / "tools" / "get_flowers.py").write_text(text, "utf-8")
    done = python(tmp_path / "tools" / "get_flowers.py", "--help", cwd=tmp_path)
    assert done.returncode == 1 and "No module named 'utils'" in done.stderr

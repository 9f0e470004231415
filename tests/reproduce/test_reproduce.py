"""Steps run in order, are skipped where nothing has changed, and are recorded."""

import hashlib
import os
import platform

import pytest
import torch

from tests.helpers.reproduce import edit, make, manifest_of, write_project
from tools.reproduce import __main__ as reproduce
from utils.checkpoint.resume import locked
from utils.cli import UsageError, UserError

ALL = ["a", "b", "end"]


@pytest.fixture
def root(tmp_path):
    """A project of three steps for the parts, and one more."""
    return write_project(tmp_path / "a project")


def test_steps_run_in_order_and_a_second_call_does_nothing(root, capsys):
    assert make(root) == ALL
    assert (root / "end.txt").read_text() == "end end end end"
    assert (root / "log" / "a.out").read_text() == "made a.txt\n"
    manifest = (root / "log" / "manifest.json").read_bytes()
    capsys.readouterr()
    assert make(root) == []
    assert capsys.readouterr().out.startswith("nothing to do: all 3 steps are up to")
    assert (root / "log" / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize(
    "args, names",
    [
        (["--parts", 1], ["a"]),
        (["--parts", 2, 1], ["a", "b"]),
        (["--parts", 1, 2, 3, 4], ALL),
        (["--all"], ["a", "b", "extra", "end"]),
    ],
)
def test_parts(root, args, names):
    """A step of several parts needs all of them."""
    assert make(root, *args) == names


def test_force_makes_the_chosen_parts_anew(root):
    make(root)
    assert make(root, "--force", "--parts", 2) == ["b"]
    assert make(root, "--force") == ALL
    assert make(root, "--force") == ALL


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("work.py", '"""Join files."""', '"""Another docstring."""\n# A comment.\n'),
        ("lib/words.py", "# Here is a comment.", "# Here is another one."),
        ("lib/words.py", "them in one line", "all of them"),
        ("train.py", "import os", "import os, re"),  # of another step
    ],
)
def test_a_comment_is_no_change(root, file, old, new):
    make(root)
    edit(root / file, old, new)
    assert make(root) == []


@pytest.mark.parametrize(
    "file, old, new, names",
    [
        ("lib/words.py", '["end"]', '["END"]', ALL),  # of a module
        ("lib/__init__.py", "", "VALUE = 1", ALL),  # of a package on the way
        ("lib/end.py", '"made"', '"Made"', ["end"]),  # by `from .words` too
        ("steps.toml", '"b.txt", "a.txt"]\nneeds', '"b.txt"]\nneeds', ["b", "end"]),
        ("flowers/astilbe/1.jpg", "photo", "another photo", ["a"]),
    ],
)
def test_a_change_is_made_anew(root, file, old, new, names):
    """Of code, settings or photos; what then equals the old is not read anew."""
    make(root)
    edit(root / file, old, new)
    assert make(root) == names
    assert make(root) == []


def test_more_photos_are_a_change(root):
    make(root)
    (root / "flowers" / "astilbe" / "2.jpg").write_bytes(b"photo")
    assert make(root) == ["a"]


def test_artefacts_that_are_gone_or_changed_are_made_anew(root):
    """And those that were read when they were different."""
    make(root)
    (root / "a.txt").unlink()
    (root / "end.txt").write_text("something else")
    assert make(root) == ["a", "end"]


def test_other_photos_and_another_folder(root, tmp_path):
    """--data and --out: the steps run in --out, with the modules of the project."""
    edit(root / "steps.toml", 'photos = "flowers"', 'photos = "flowers"\ntakes = []')
    out, photos = tmp_path / "out", tmp_path / "photos" / "rose"
    photos.mkdir(parents=True)
    (photos / "1.png").write_bytes(b"1")
    for step in ("b", "extra", "end"):
        edit(root / "steps.toml", f'name = "{step}"', f'name = "{step}"\ntakes = []')
    words = ["--out", str(out), "--data", str(photos.parent)]
    reproduce.main(words, project=root, table=root / "steps.toml")
    assert (out / "end.txt").read_text() == "end end end end"
    assert not (root / "a.txt").exists()
    (photos / "2.png").write_bytes(b"2")
    (out / "runs.txt").unlink()
    reproduce.main(words, project=root, table=root / "steps.toml")
    assert (out / "runs.txt").read_text() == "a "


def test_the_manifest_says_what_was_made_and_from_what(root):
    make(root)
    found = manifest_of(root)
    assert str(torch.__version__).startswith(found["versions"]["torch"])
    assert found["versions"]["python"] == platform.python_version()
    assert found["threads"] == torch.get_num_threads()
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["seeds"] == {"a": 0, "b": 0, "end": 0}
    step = found["steps"]["b"]
    digest = hashlib.sha256((root / "b.txt").read_bytes()).hexdigest()
    assert step["artefacts"] == {"b.txt": digest}
    source = hashlib.sha256((root / "a.txt").read_bytes()).hexdigest()
    assert step["inputs"]["files"] == {"a.txt": source}
    assert step["command"] == "python work.py b.txt a.txt"
    assert step["state"] == "done" and step["seconds"] >= 0
    assert found["steps"]["a"]["command"] == "python work.py a.txt > log/a.out"
    assert set(found["steps"]["a"]["artefacts"]) == {"a.txt", "log/a.out"}


def test_the_list_shows_what_would_run(root, capsys):
    """And runs nothing."""
    make(root, "--parts", 1)
    capsys.readouterr()
    assert make(root, "--list") == []
    *rows, last = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[2] for row in rows[2:]] == [
        *("up to date", "not made yet", "not made yet")
    ]
    assert last.startswith("2 of 3 steps to run, about ")
    # A step that reads what another one will make follows it.
    make(root)
    edit(root / "flowers" / "astilbe" / "1.jpg", "photo", "another photo")
    capsys.readouterr()
    make(root, "--list")
    states = [row.split(" | ")[2] for row in capsys.readouterr().out.splitlines()[2:5]]
    assert states == ["other photos", "after a", "after a"]


# Refused -----------------------------------------------------------------------------


def test_a_failed_step_names_its_command_and_the_log(root, capsys):
    """Its reason is the last line on stderr; the same call tries it again."""
    lines = 'if name == "b.txt":\n    sys.exit("work.py: error: bad")\nprint'
    edit(root / "work.py", "print", lines)
    with pytest.raises(UserError) as found:
        make(root)
    for words in (
        "step b failed: `python work.py b.txt a.txt` ended with exit code 1",
        f"{root / 'log' / 'reproduce.log'}: work.py: error: bad",
    ):
        assert words in str(found.value)
    streams = capsys.readouterr()
    assert "| MLPAE, SGD |" in streams.out
    assert ": error: " not in streams.err  # one line, that of the exception
    log = (root / "log" / "reproduce.log").read_text().splitlines()
    assert log[-2:] == ["$ python work.py b.txt a.txt", "work.py: error: bad"]
    edit(root / "work.py", 'sys.exit("work.py: error: bad")', "pass")
    assert make(root) == ["a", "b", "end"]


def test_a_step_that_makes_too_little_has_failed(root):
    edit(root / "steps.toml", '["b.txt"]', '["b.txt", "c.txt"]')
    with pytest.raises(UserError, match="step b ended without making c.txt"):
        make(root)
    assert manifest_of(root)["steps"]["b"]["state"] == "started"


def test_missing_photos_and_files_are_refused_before_anything_runs(root):
    """With the command that makes them."""
    (root / "flowers" / "astilbe" / "1.jpg").unlink()
    how = "holds no photos; get them: python -m tools.get_flowers$"
    with pytest.raises(UserError, match=how):
        make(root)
    with pytest.raises(UserError, match=how):
        make(root, "--force")
    assert not (root / "log" / "manifest.json").exists()
    with pytest.raises(UserError, match="holds no photos; name a folder .* --data"):
        make(root, "--data", root / "flowers")
    with pytest.raises(UserError, match="step b needs .*a.txt; run .* --parts 1$"):
        make(root, "--parts", 2)
    edit(root / "steps.toml", 'needs = ["a.txt"]', 'needs = ["extra.txt"]')
    with pytest.raises(UserError, match="needs .*extra.txt; run python .* --all$"):
        make(root, "--parts", 2)
    edit(root / "steps.toml", 'needs = ["extra.txt"]', 'needs = ["other.txt"]')
    with pytest.raises(UserError, match="needs .*other.txt; restore it"):
        make(root, "--parts", 2)
    assert not (root / "runs.txt").exists()


def test_only_one_call_at_a_time(root):
    with (
        locked(root / "log" / "manifest.json"),
        pytest.raises(UserError, match="another training is writing .*manifest.json"),
    ):
        make(root)


def test_a_damaged_manifest_is_named(root):
    (root / "log").mkdir()
    for content in ("{", '{"steps": 1}', "[]", '{"steps": {"a": {"state": "done"}}}'):
        (root / "log" / "manifest.json").write_text(content)
        with pytest.raises(UserError, match="manifest.json"):
            make(root)


@pytest.mark.parametrize("args", [["--parts", "5"], ["--parts", "1", "--all"]])
def test_a_wrong_command_line_is_refused(args):
    with pytest.raises(SystemExit) as end:
        reproduce.parse(args)
    assert end.value.code == 2


def test_a_folder_of_photos_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="is not a folder; name one with --data"):
        reproduce.parse(["--data", str(tmp_path / "nothing")])

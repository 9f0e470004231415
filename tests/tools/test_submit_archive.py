"""The archive: its names and contents, equal bytes, and what it never replaces."""

import os
import subprocess
import zipfile

import pytest
import torch

from tests.helpers.project import PROJECT
from tools.submit.__main__ import main
from tools.submit.archive import COMMENT, is_packed, members
from tools.submit.tree import KIT_FILES, PHOTOS, Tree
from utils.cli import UserError
from utils.registry import load_model

MODELS = [f"model/Best_{name}.pkl" for name in ("MLPAE", "AE", "VAE", "diffusion")]
KEPT = (
    *("README.md", "docs/assignment.md", ".ci/run", "notes/photo.jpg"),
    *("models/features.pt", "models/Best_diffusion_64.pkl", "log/AE.csv"),
    *("vis/loss_AE.png", "数据.txt", "tests/flowers/x.txt", "flowers.txt"),
)
LEFT_OUT = (
    *("flowers/astilbe/1.jpg", "flowers/README.md", "flowers_16/rose/1.jpg"),
    *("flowers.incomplete-7/astilbe/1.jpg", "trial/models/Best_AE.pth"),
    *(".git/config", ".gitignore", ".DS_Store", ".venv/x.py", "mine/pyvenv.cfg"),
    *("mine/lib/x.py", "__pycache__/x.pyc", "utils/__pycache__/x.cpython-311.pyc"),
    *(".pytest_cache/x", "nn_lab.egg-info/PKG-INFO", "build/x.py"),
    *("models/Last_AE.pth", "models/Previous_Best_AE.pth", "models/Best_AE.pth.lock"),
    *("models/Best_AE.pth.tmp", "flowers.zip.part", "flowers-3.zip"),
    *("model/Best_AE.pkl", "models/Best_VAE.pkl", "model/Bestmodel_diffusion.pkl"),
)


def pack(submission, *flags):
    """Run the command in the tree -> the archive in it."""
    main(["--data", str(submission.data), "--out", str(submission.folder), *flags])
    return submission.path("submission.zip")


def fill(submission, names):
    """Write a file of each of these names into the tree."""
    for name in names:
        submission.path(name).parent.mkdir(parents=True, exist_ok=True)
        submission.write(name, b"?")


def test_it_has_the_names_of_the_submission_list(submission):
    """M46 to M49: four weights in model/, nine pictures, five logs, code, report."""
    fill(submission, KEPT)
    made = {str(p.relative_to(submission.folder)) for p in files(submission)}
    weights = {n for n in made if n.startswith("models/Best_") and "64" not in n}
    fill(submission, LEFT_OUT)
    with zipfile.ZipFile(pack(submission)) as archive:
        names = archive.namelist()
        assert names == sorted({*made - weights, *MODELS})
        assert {*KIT_FILES, *KEPT, *MODELS, "diffusion_report.md"} <= {*names}
        # Every content is that of the file, of the weights that were checked.
        for name in names:
            source = name
            if name in MODELS:
                (source,) = (w for w in weights if w[:-3] == f"models{name[5:-3]}")
            assert archive.read(name) == submission.path(source).read_bytes()
        assert archive.testzip() is None


def files(submission):
    return [path for path in submission.folder.rglob("*") if path.is_file()]


def test_what_belongs_to_the_weights_moves_along(submission):
    """A guide and priors are read from beside the weights."""
    names = ("Guide_diffusion.pkl", "Prior_AE.pth", "Guide_diffusion_64.pkl")
    fill(submission, [f"models/{name}" for name in names])
    found = members(Tree(submission.folder, submission.data))
    assert {"model/Guide_diffusion.pkl", "model/Prior_AE.pth"} <= {*found}
    assert [name for name in found if name.startswith("models/")] == [
        "models/Guide_diffusion_64.pkl"
    ]


def test_the_unpacked_archive_passes_and_loads(submission, tmp_path, capsys):
    """With the same lines; and what is packed from it has the same bytes."""
    path = pack(submission)
    first = capsys.readouterr().out
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    packed, submission.folder = path.read_bytes(), tmp_path / "unpacked"
    assert pack(submission).read_bytes() == packed
    assert capsys.readouterr().out == first
    # As in the starter kit.
    for name in MODELS:
        torch.load(submission.path(name), map_location="cpu", weights_only=True)
    assert load_model("VAE", submission.path("model/Best_VAE.pkl"))[0].name == "VAE"


def test_equal_files_give_equal_bytes(submission):
    """Whatever their times, modes and order; and the archive is not packed."""
    first = pack(submission).read_bytes()
    for path in files(submission):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        path.chmod(0o600)
        os.utime(path, (1, 1))
    assert pack(submission).read_bytes() == first
    submission.replace("diffusion_report.md", "Report", "report")
    assert pack(submission).read_bytes() != first


def test_code_comes_from_the_project_where_the_tree_has_none(submission):
    """As after trainings with --out: only what commands made is in that folder."""
    for name in KIT_FILES:
        submission.remove(name)
    fill(submission, ["notes.txt"])
    found = members(Tree(submission.folder, submission.data))
    assert found["utils/train.py"] == PROJECT / "utils" / "train.py"
    assert found["docs/assignment.md"] == PROJECT / "docs" / "assignment.md"
    for name in ("log/train_AE.out", "vis/train_AE.png", "diffusion_report.md"):
        assert found[name] == submission.path(name)
    assert "log/ladder.json" not in found and "notes.txt" not in found
    assert [name for name in found if name.startswith("model/Best")] == sorted(MODELS)


def test_everything_of_the_project_is_packed():
    """M46, R10: all that is committed, but for photos and version control."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("needs git and a checkout")
    found = members(Tree(PROJECT, PHOTOS))
    contents = {path.relative_to(PROJECT).as_posix() for path in found.values()}
    committed = set(listed.stdout.split())
    assert committed - contents == {".gitattributes", ".gitignore", "flowers/README.md"}
    names = [name for name in found if name.startswith(("flowers", ".git", "trial"))]
    assert names == [] and set(MODELS) <= set(found)


@pytest.mark.parametrize("name", KEPT)
def test_names_of_code_are_kept(name):
    assert is_packed(name)


def test_photos_are_left_out_by_whatever_name(submission):
    """Those of --data, inside the tree."""
    fill(submission, ["mine/photos/rose/1.jpg", "mine/notes.txt"])
    found = members(Tree(submission.folder, submission.path("mine/photos")))
    assert [name for name in found if name.startswith("mine")] == ["mine/notes.txt"]


# What it does to files ---------------------------------------------------------------


def test_nothing_is_packed_where_something_is_missing(submission, capsys):
    """Unless asked for; an older archive stays."""
    submission.remove("models/Best_VAE.pth")
    with pytest.raises(UserError, match="or pack what there is with --force"):
        pack(submission)
    assert not submission.path("submission.zip").exists()
    with pytest.raises(UserError, match=r"1 of 14 requirements not met \(M47\)"):
        pack(submission, "--force")
    with zipfile.ZipFile(submission.path("submission.zip")) as archive:
        held = [name for name in archive.namelist() if name.startswith("model/")]
    assert held == sorted({*MODELS} - {"model/Best_VAE.pkl"})


@pytest.mark.parametrize("kind", ["text", "zip", "folder"])
def test_a_file_of_somebody_else_is_not_replaced(submission, capsys, kind):
    """It is refused before anything is checked."""
    path = submission.folder.parent / "mine.zip"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("mine")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("homework.txt", "mine")
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError, match="did not write it; move it away, or name an"):
        pack(submission, "--archive", str(path))
    assert capsys.readouterr().out == "" and path.is_dir() == (kind == "folder")
    assert before is None or path.read_bytes() == before


def test_the_archive_may_stand_elsewhere(submission, tmp_path):
    path = tmp_path / "new" / "my submission.zip"
    assert not pack(submission, "--archive", str(path)).exists()
    with zipfile.ZipFile(path) as archive:
        assert archive.comment == COMMENT

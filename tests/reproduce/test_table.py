"""The table of steps: real commands, and every committed artefact."""

import importlib
import subprocess
from pathlib import Path

import pytest

from tests.helpers.project import PROJECT
from tools.reproduce import PARTS
from tools.reproduce.hashes import code_hash, command_files
from tools.reproduce.steps import GET_PHOTOS, Place, chosen_steps, read_steps

STEPS = read_steps()
NAMES = [step.name for step in STEPS]
# Files in log/ that no step makes: it makes itself while they run.
EXCEPTIONS = {"log/manifest.json", "vis/playground.png"}  # a record, a screenshot
SUBMISSION = {  # M47 to M50; weights as C1 names them
    *(f"vis/{s}_{n}.png" for s in ("train", "valid") for n in ("MLPAE", "AE", "VAE")),
    *(f"vis/random_images_{name}.png" for name in ("AE", "VAE", "diffusion")),
    *(f"log/train_{n}.out" for n in ("MLPAE", "AE_SGD", "AE", "VAE", "diffusion")),
    *("models/Best_MLPAE.pkl", "models/Best_AE.pth", "models/Best_VAE.pth"),
    *("models/Best_diffusion.pkl", "diffusion_report.md", "vis/denoise_diffusion.png"),
}


def parser_of(argv):
    """Return (the module that a command runs, the words that it parses)."""
    if argv[0] == "-m":
        name, words = argv[1], argv[2:]
        package = (PROJECT / name.replace(".", "/")).is_dir()
        name += ".__main__" if package else ""
    else:
        name, words = Path(argv[0]).stem, argv[1:]
    return importlib.import_module(name), list(words)


def needs_submit(step):
    """Skip a test of a tool that is not there."""
    if "tools.submit" in step.argv and not list(PROJECT.glob("tools/submit*")):
        pytest.skip("needs tools.submit")


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_the_real_command_takes_the_line(step, monkeypatch, tmp_path):
    """As it is typed, and with the --data and --out that it takes."""
    needs_submit(step)
    monkeypatch.chdir(PROJECT)  # a folder of photos must be there
    for place in (
        Place(PROJECT, PROJECT),
        Place(PROJECT, tmp_path, tmp_path),
    ):
        words = place.words(step, resume=bool(step.trains))
        module, words = parser_of(words)
        module.parse(words)


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_the_code_is_found(step):
    """Of the command, and of what it imports."""
    needs_submit(step)
    files = command_files(PROJECT, step.argv)
    assert files and all(path.is_file() for path in files)
    assert all((PROJECT / name).is_file() for name in step.code)
    assert len(code_hash(PROJECT, files)) == 64


def test_every_file_is_made_by_one_step():
    files = [name for step in STEPS for name in step.makes]
    assert len(files) == len(set(files)) and len(NAMES) == len(set(NAMES))


def test_every_committed_artefact_is_made():
    """By exactly one step of --all, or it is an exception."""
    listed = subprocess.run(
        ["git", "ls-files", "models", "log", "vis"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("needs git and a checkout")
    made = {name for step in STEPS for name in step.makes}
    assert {*listed.stdout.split()} - made <= EXCEPTIONS


def test_the_submission_list_is_made_by_the_four_parts():
    """Without any step of --all, and in the order of the last part of each."""
    chosen = chosen_steps(STEPS, PARTS)
    made = {name for step in chosen for name in step.makes}
    assert made >= SUBMISSION and chosen[-1].name == "submit"
    assert {*chosen[-1].needs} == SUBMISSION
    parts = [step.parts[-1] for step in chosen[:-1]]
    assert parts == sorted(parts)


@pytest.mark.parametrize("parts", [(1,), (2,), (3,), (4,), PARTS, None])
def test_what_a_step_needs_is_made_before_it(parts):
    """By a step of the same choice; the extractors are made by --all alone."""
    made = set() if parts is None else {"models/features.pt", "models/features_b.pt"}
    for step in chosen_steps(STEPS, parts or (), everything=parts is None):
        assert {*step.needs} <= made, step.name
        made |= {*step.makes}


def test_the_ae_that_counts_is_trained_last():
    """M25: each training of the AE replaces the weights of the one before."""
    trained = [s.name for s in STEPS if s.trains == "models/Best_AE.pth"]
    assert trained == ["train_AE_SGD_kit", "train_AE_SGD", "train_AE"]


def test_weights_in_a_command_are_needed():
    """Those that are named, and those of the models that are shown."""
    for step in STEPS:
        words = [w for w in step.argv if Path(w).suffix in (".pkl", ".pth", ".pt")]
        assert {*words} <= {*step.needs}, step.name
        if step.argv[0] in ("visualization.py", "random_generation.py"):
            name = step.argv[step.argv.index("--model") + 1]
            assert [n for n in step.needs if Path(n).stem == f"Best_{name}"]


def test_photos_and_trainings_are_declared():
    """A folder that --data names is read, and a training can be resumed."""
    for step in STEPS:
        assert step.photos in ("", *GET_PHOTOS)
        if "--data" in step.argv:
            assert step.argv[step.argv.index("--data") + 1] == step.photos
        trains = step.argv[0] in ("train_script.py", "diffusion.py")
        assert bool(step.trains) == trains, step.name


def test_scratch_folders_are_ignored_and_their_own():
    """`trial` is that of the README's first command."""
    ignored = (PROJECT / ".gitignore").read_text("utf-8").split()
    folders = {s.argv[s.argv.index("--out") + 1] for s in STEPS if "--out" in s.argv}
    assert folders and "trial" not in folders
    assert {f"{folder}/" for folder in folders} <= {*ignored}

"""Faults planted in this project's own files: each is found, and nothing else.

The rows stand in mutants_*.toml: name, file, find (a text that occurs once), replace,
and expect (the names of the findings). The full run: pytest -m slow tests/doctor.
"""

import tomllib

import pytest

from tests.doctor import variants_diffusion, variants_models
from tests.helpers.doctor import (
    findings_of,
    mutate,
    write_completion,
    write_files,
)
from tests.helpers.project import PROJECT
from tools.doctor.examination import POINTS, examine, validation_images
from tools.doctor.sandbox.child import load_checks
from tools.doctor.static import FILES

TABLES = sorted((PROJECT / "tests" / "doctor").glob("mutants_*.toml"))
MUTANTS = [
    mutant
    for path in TABLES
    for mutant in tomllib.loads(path.read_text("utf-8"))["mutant"]
]
EVERY = pytest.mark.parametrize("mutant", MUTANTS, ids=[m["name"] for m in MUTANTS])
# Completions of all parts: a variant of parts 1 to 3 or of part 4, and the first of the
# other table beside it.
FIRST_MODELS = next(iter(variants_models.VARIANTS.values()))
FIRST_DIFFUSION = next(iter(variants_diffusion.VARIANTS.values()))
VARIANTS = {
    **{
        n: (FIRST_DIFFUSION | v, (1, 2, 3)) for n, v in variants_models.VARIANTS.items()
    },
    **{n: (FIRST_MODELS | v, (4,)) for n, v in variants_diffusion.VARIANTS.items()},
}


def checks_of(*parts):
    """Return the names of the checks of parts of the assignment."""
    return [name for name, row in load_checks().items() if row.part in parts]


def parts_with(file):
    """Return the parts whose checks import a file of ours."""
    # diffusion.py imports most of utils/.
    return {FILES.get(file, 4), *([4] if file.startswith("utils/") else [])}


# The tables --------------------------------------------------------------------


def test_there_are_enough_mutants_each_with_its_own_name():
    names = [mutant["name"] for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 36
    assert {FILES.get(mutant["file"], 4) for mutant in MUTANTS} == set(POINTS)


@EVERY
def test_each_text_occurs_once_and_is_replaced(mutant):
    text = (PROJECT / mutant["file"]).read_text("utf-8")
    assert text.count(mutant["find"]) == 1
    assert mutant["replace"] != mutant["find"] and mutant["expect"]
    compile(text.replace(mutant["find"], mutant["replace"]), mutant["file"], "exec")


def test_one_mutant_is_found_in_the_real_process(tmp_path):
    """The quickest one; `test_each_mutant_is_found_by_name` has all."""
    folder = write_completion(tmp_path / "completion")
    mutate(folder, "MLPAutoencoder.py", 'return "MLPAE"', 'return "MLP"')
    names = ["import_MLPAutoencoder", "outputs_MLPAE"]
    assert findings_of(folder, names) == {"wrong_name"}


# All of them -------------------------------------------------------------------


@pytest.mark.slow
@EVERY
def test_each_mutant_is_found_by_name(mutant, tmp_path):
    folder = write_completion(tmp_path / "completion")
    mutate(folder, *(mutant[key] for key in ("file", "find", "replace")))
    names = checks_of(*parts_with(mutant["file"]))
    assert findings_of(folder, names) == set(mutant["expect"])


@pytest.mark.slow
def test_this_project_is_all_right(tmp_path):
    """Its artefacts included; only the photos are not there."""
    found = examine(write_completion(tmp_path / "completion", artefacts=True))
    assert found.names() == set()
    assert found.score() == sum(POINTS.values())
    reasons = {reason for part in found.parts.values() for reason in part.unexamined()}
    assert reasons == {"no photos were given"}


@pytest.mark.slow
def test_this_project_is_all_right_with_photos(tmp_path, real_photos):
    """Its weights reach what its logs say, and nothing is left unexamined."""
    folder = write_completion(tmp_path / "completion", artefacts=True)
    names = checks_of(1, 2, 3)
    found = examine(folder, validation_images(real_photos), names=names)
    assert found.names() == set()
    assert not any(part.unexamined() for part in found.parts.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_completions_in_other_styles_are_all_right(name, tmp_path):
    files, parts = VARIANTS[name]
    found = examine(write_files(tmp_path / name, files), names=checks_of(*parts))
    assert found.names() == set(), [part.findings() for part in found.parts.values()]

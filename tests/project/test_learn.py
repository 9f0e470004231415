"""What the pages for learners say is true: commands, outputs, settings, languages."""

import contextlib
import importlib
import io
import re
import shutil

import pytest

from tests.helpers.pages import (
    FORMULA,
    LINK,
    NAMES,
    blocks,
    command_words,
    commands,
    exercises,
    expected_outputs,
    formulas,
    numbers,
    page,
    prose,
    sections,
    settings_table,
)
from tests.helpers.project import PROJECT, python, write_photos
from utils.config import PRESETS

LANGUAGES = ("learn", "zh")
SETTINGS = {  # page -> rows of PRESETS that its columns of values show
    "part1.md": [PRESETS["MLPAE"][0]],
    "part2.md": [PRESETS["AE"][0], PRESETS["AE"][2]],
    "part3.md": [PRESETS["VAE"][0]],
    "part4.md": [PRESETS["diffusion"][0], PRESETS["diffusion_ddpm"][0]],
}
OPTIONAL = {"tools.doctor", "tools.submit"}  # the pages say that it need not be there
MEASURED = [  # page, exercise, numbers of our photos in its answer
    ("part1.md", 2, ["0.194", "0.054"]),
    ("part1.md", 3, ["0.80", "0.30"]),
    ("part2.md", 3, ["14", "8.5"]),
]
NOT_RUN = {"tools.get_flowers", *OPTIONAL}  # downloads; examines other files
COMMANDS = list(
    dict.fromkeys(c for name in NAMES for c in commands(page("learn", name)))
)
OUTPUTS = [pair for name in NAMES for pair in expected_outputs(page("learn", name))]
CHINESE = re.compile("[\u4e00-\u9fff]")


def module_of(words):
    """Return the module that a command runs, or None for `python -c`."""
    if words[0] == "-c":
        return None
    return words[1] if words[0] == "-m" else words[0].removesuffix(".py")


# Commands -----------------------------------------------------------------------------


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_parses(line):
    """By the parser of the command itself, which exits with 2 where it refuses."""
    words, _ = command_words(line)
    module = module_of(words)
    if module is None:
        assert compile(words[1], line, "exec") and len(words) == 2
        return
    # A package is run by its __main__.
    path = PROJECT / module.replace(".", "/")
    if module in OPTIONAL and not path.exists():
        pytest.skip(f"{module} is not there")
    main = f"{module}.__main__" if path.is_dir() else module
    parse = importlib.import_module(main).parse
    parse(words[2:] if words[0] == "-m" else words[1:])


def test_a_wrong_command_is_found():
    """The check above can fail: a flag that does not exist."""
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        test_the_command_parses("python train_script.py --model VAE --betta 4")
    assert COMMANDS and OUTPUTS


@pytest.mark.parametrize("line, output", OUTPUTS)
def test_the_output_is_the_stated_one(line, output, monkeypatch):
    """Of `python -c`, run here; none of these needs photos or a training."""
    words, _ = command_words(line)
    assert words[0] == "-c"
    monkeypatch.chdir(PROJECT)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(words[1], line, "exec"), {})
    assert said.getvalue() == output


@pytest.mark.parametrize("name", [f"part{i}.md" for i in range(1, 5)])
def test_three_exercises_have_a_command_and_an_answer(name):
    for language in LANGUAGES:
        parts = exercises(page(language, name))
        assert [part[:2] for part in parts] == ["1.", "2.", "3."]
        for part in parts:
            assert commands(part) and part.count("<details>") == 1
            assert part.index("```sh") < part.index("<details>")


# Settings -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_settings_are_those_of_the_code(language, name):
    table = settings_table(page(language, name))
    flags = {flag for flag, _ in table}
    assert {"--epochs", "--batch-size", "--optimizer", "--lr", "--scheduler"} <= flags
    for flag, cells in table:
        for cell, row in zip(cells, SETTINGS[name], strict=True):
            value = getattr(row, flag.strip("-").replace("-", "_"))
            value = ",".join(map(str, value)) if isinstance(value, tuple) else value
            assert cell == str(value), flag


# Both languages -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_commands_numbers_and_formulas(name):
    english, chinese = (page(language, name) for language in LANGUAGES)
    assert commands(english) == commands(chinese)
    assert expected_outputs(english) == expected_outputs(chinese)
    # Section by section; a text inside a formula is in the page's language.
    pairs = list(zip(sections(english), sections(chinese), strict=True))
    for one, other in pairs:
        assert numbers(one) == numbers(other), one[:60]
        assert formulas(one) == formulas(other), one[:60]
    maths = [
        [re.sub(r"\\text\{.*?\}", "", b) for kind, b in blocks(text) if kind == "math"]
        for text in (english, chinese)
    ]
    assert maths[0] == maths[1]


def test_a_changed_number_is_found():
    """The comparison above can fail: one digit in prose."""
    text = page("zh", "part3.md")
    assert numbers(text) != numbers(text.replace("51.6", "51.5"))


@pytest.mark.parametrize("name", NAMES)
def test_each_page_is_in_its_language(name):
    """And links to the other."""
    assert f"(../zh/{name})" in page("learn", name)
    assert f"(../learn/{name})" in page("zh", name)
    text = prose(page("learn", name)).replace("[中文]", "")
    assert not CHINESE.search(text)
    # Every paragraph of prose of the Chinese page has Chinese words.
    for paragraph in re.split(r"\n\s*\n", prose(page("zh", name))):
        if len(re.findall("[A-Za-z]{3,}", paragraph)) > 8:
            assert CHINESE.search(paragraph), paragraph


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_links_pictures_and_files_exist(language, name):
    text, folder = page(language, name), PROJECT / "docs" / language
    links = LINK.findall(text)
    assert links
    for link in links:
        assert (folder / link).is_file(), link
    for path in re.findall(r"`((?:vis|log|models|utils)/[\w/.]+\.\w+)`", text):
        # Pictures of exercises are made by their commands.
        assert (PROJECT / path).is_file(), path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_formulas_are_delimited_as_github_wants(language, name):
    """White space, an opening bracket or nothing before; white space or ASCII after."""
    for line in prose(page(language, name)).splitlines():
        assert line.count("$") % 2 == 0, line
        for found in FORMULA.finditer(line):
            before = line[: found.start()][-1:]
            after = line[found.end() :][:1]
            assert before in ("", " ", "("), line
            assert after in ("", *" .,;:)?!-"), line
            assert found[1] == found[1].strip(), line
            # Markdown would take the backslash for an escape.
            assert not re.search(r"\\[^A-Za-z]", found[1]), line


# Running ------------------------------------------------------------------------------


def copy_of_project(root):
    """Copy the project, without photos and pictures -> root."""
    names = (".*", "tests", "flowers*", "vis", "trial", "__pycache__", "*_64.pkl")
    return shutil.copytree(PROJECT, root, ignore=shutil.ignore_patterns(*names))


@pytest.mark.slow
@pytest.mark.parametrize("name, number, stated", MEASURED)
def test_numbers_of_our_photos(real_photos, tmp_path, name, number, stated):
    """Numbers in an answer are those that the exercise's commands print, about."""
    exercise = exercises(page("learn", name))[number - 1]
    root = copy_of_project(tmp_path / "project")
    shutil.copytree(real_photos, root / "flowers")
    for line in commands(exercise):
        words, _ = command_words(line)
        done = python(*words, cwd=root, timeout=1200)
        assert done.returncode == 0, done.stderr
        if words[0] == "-c":
            found = [float(text) for text in re.findall(r"\d+\.\d+", done.stdout)]
    assert found == pytest.approx([float(text) for text in stated], rel=0.1)
    assert all(text in exercise for text in stated)


@pytest.mark.slow
def test_every_command_runs(tmp_path):
    """In order, on drawn flowers with one epoch; what the pages show is made."""
    project = copy_of_project(tmp_path / "project")
    write_photos(project / "flowers", 40)
    for line in COMMANDS:
        words, target = command_words(line)
        module = module_of(words)
        if module in NOT_RUN:
            continue
        if module in ("train_script", "diffusion"):
            if "--epochs" in words:
                words[words.index("--epochs") + 1] = "1"
            else:
                words += ["--epochs", "1"]
        done = python(*words, cwd=project, timeout=1200)
        assert done.returncode == 0, (line, done.stderr)
        if target:
            (project / target).write_text(done.stdout)
            assert "Train Loss" in done.stdout
        elif module is None or module == "tools.linear_baselines":
            assert done.stdout.strip(), line
    # What the pages show and name.
    assert len(list((project / "vis").glob("*.png"))) >= 15
    assert (project / "trial/mine/vis/random_images_diffusion_bellflower.png").is_file()
    assert (project / "trial/gmm/vis/random_images_AE.png").is_file()

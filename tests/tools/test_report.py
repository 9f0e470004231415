"""The reports' prose comes from templates, and what was not made is left out."""

import importlib
import json
import re
import shlex
import subprocess

import pytest

from tests.helpers.project import PROJECT
from tests.helpers.report import cells, linked, made_up, make_finished
from tools.report import __main__ as tool
from utils.cli import UserError

REQUIRED = ("log/diffusion.csv", "models/Best_diffusion.pkl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a folder with every file that the reports need, small and made up."""
    return make_finished(tmp_path_factory.mktemp("project"))


def text_of(root, language="en"):
    """Return the report of the files below a folder."""
    return tool.report(root, language)[0]


# The committed reports ----------------------------------------------------


@pytest.mark.parametrize("language", tool.TEMPLATES)
def test_a_committed_report_agrees_with_the_committed_files(language):
    """A number that was changed by hand, or comes from an older log, fails here."""
    text = text_of(PROJECT, language)
    name = tool.report_name(language)
    assert (PROJECT / name).read_text("utf-8").splitlines() == text.splitlines()
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        used = {name, *(link for _, _, link in tool.LINK.findall(text))}
        assert sorted(used - set(listed.stdout.splitlines())) == []


def test_no_row_is_called_by_a_path():
    """Rows have names that a reader knows; no text has IDs of requirements."""
    for language in tool.TEMPLATES:
        text = text_of(PROJECT, language).split("| `log/")[0]
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len(rows) > 100
        assert [row for row in rows if re.search(r"\.pkl|\.pth|\bour\b", row)] == []
        assert re.findall(r"\b[MCTR]\d{1,2}\b", text) == []


# What the command writes ---------------------------------------------------------


def test_tables_contain_the_values_of_the_files(finished):
    """Rounded to three digits; quotients as computed by hand."""
    text = text_of(finished)
    assert "$" not in text and "<!-- needs" not in text and " nan" not in text
    distances = text.split("## Distance of")[1].split("Recall is")[0]
    assert cells(distances, r"VAE (part 3)") == [
        "2,000",
        "0.00457 [0.00400, 0.00500]",
        "34.0 [33.0, 35.0]",
        "31.5 [31.0, 32.0]",
        "33.0 [32.8, 33.2]",
        "16.5",
        "0.0123 [0.0100, 0.0200]",
    ]
    assert "is 16.5 times that of the default model" in text
    ddpm = text.split("## DDPM and flow matching")[1]
    assert cells(ddpm, "`--preset short`")[4:6] == ["2.00 [1.75, 2.25]", "0.250"]
    copies = text.split("## Memorization")[1]
    assert cells(copies, "default model")[0] == "0.05 % [0.00, 0.10]"
    assert cells(copies, "training photos, mirrored")[1:] == ["-"] * 3
    species = text.split("## Samples by species")[1].split("## Rectified")[0]
    assert cells(species, "default model") == ["90.0 % [85.0, 95.0]"]
    assert cells(species, "VAE (part 3)") == ["-"]
    variety = text.split("Recall is")[1].split("The Frechet")[0]
    own = ["50.0 % [40.0, 60.0]", "75.0 % [70.0, 80.0]"]
    assert cells(variety, "default model") == cells(variety, "VAE (part 3)") == own
    sixteen = text.split("## Sixteen species")[1].split("Then the")[0]
    assert cells(sixteen, "VAE at 64 x 64, 6 epochs")[0] == "2,000"


def test_prose_contains_the_values_of_the_files(finished):
    text = " ".join(text_of(finished).split())
    assert cells(text_of(finished), "`channels`") == ["16"] * 2
    assert "`hflip` | yes | yes |" in text and "`patience`" not in text
    assert "| rest | 75.0 % |" in text
    machine = "Abacus, with bfloat16 units; cores: 2; threads: 2; torch 2.14"
    assert text.count(machine) == 4
    assert "2 epochs took 1.5 min" in text
    assert "training loss per photo was 0.250" in text
    assert "of epoch 1: 0.600 per photo" in text  # epoch 0 in the metadata
    assert " 41.0 photos per second" in text  # 2 x (2321 - 465) / 90.5 s
    assert "is 104.0 % of that of the validation photos by pixels" in text
    assert "20,000 couplings" in text and "1,500 million operations" in text
    words = "dpm++3m, 16 steps, NFE 32, autoguidance 1.75, "
    assert words + "classifier-free guidance 1.5 at sigma 0.2 and above." in text


def test_the_best_sampler_within_each_nfe_is_compared_with_the_reference(finished):
    text = text_of(finished)
    assert cells(text, "at most 4")[:3] == ["euler", "3", "3"]
    assert cells(text, "at most 8")[0] == "ipndm"  # lower than heun's 5.5
    expected = ["dpm++3m", "16", "16", "4.10 [3.60, 4.60]", "+2.5 %", "30.0", "20.0"]
    assert cells(text, "at most 16") == expected
    assert "at most 40" not in text  # nothing better in more
    assert cells(text, "reference")[-3:] == ["+0.0 %", "600", "1.0"]
    assert cells(text, "whole schedule")[-3:] == ["+25.0 %", "750", "0.8"]


def test_the_second_extractor_gives_a_ratio_of_its_own(finished):
    text = text_of(finished)
    assert "is 17.5 times that of" in text  # 35 / 2
    assert cells(text, "`other`") == ["35.0 [34.9, 35.1]", "17.5"]


def test_the_ladder_starts_with_the_shortest_training(finished):
    text = text_of(finished).split("## Quality and training time")[1].split("###")[0]
    vae, own = cells(text, "VAE (part 3)"), cells(text, "default model")
    assert text.index("| VAE (part 3) |") < text.index("| default model |")
    assert vae[:3] == ["3.2", "1", "0.00457 [0.00400, 0.00500]"]
    assert own[:2] == ["60.0", "32"] and own[4] == "50.0 % [40.0, 60.0]"


def test_the_manifest_tells_what_was_run(finished):
    """The report's own step and the archive's are still to come when it is written."""
    section = text_of(finished).split("## How this was made")[1].split("##")[0]
    rows = re.findall(r"^\| `(\w+)` \| 1.5 min \|$", section, re.MULTILINE)
    assert rows == ["train_VAE", "benchmark"]
    assert "`report`" not in section and "`old`" not in section
    assert "python 3.11.9, numpy 2.4.1" in section and "steps: 0." in section


def test_one_call_writes_both_reports(finished):
    tool.main(["--out", str(finished)])
    for language in tool.TEMPLATES:
        path = finished / tool.report_name(language)
        assert path.read_text("utf-8") == text_of(finished, language)
    assert not list(finished.glob("*.html"))


# Files that are missing or damaged ----------------------------------------------


def test_a_damaged_file_is_one_line(finished):
    path = finished / "log" / "reflow_diffusion.json"
    before = path.read_text()
    refused = {**json.loads(before), "after": [{"nfe": 1, "frechet": "too few"}]}
    for content, reason in (
        ("{", "is no JSON: .*; make it again"),
        ("[" * 100_000, "is no JSON: .*; make it again"),
        ("{}", r"incomplete \(.*\); make it"),
        ("[]", r"incomplete \(.*\); make it"),
        (json.dumps(refused), r"incomplete \(too few\); make it"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=reason):
            text_of(finished)
    path.write_text(before)


@pytest.mark.parametrize("name", REQUIRED)
def test_what_the_submission_needs_is_required(finished, name):
    (finished / name).rename(finished / "away")
    with pytest.raises(UserError, match=f"{name} is not there; .* python diffusion.py"):
        text_of(finished)
    (finished / "away").rename(finished / name)


def test_a_section_without_its_file_is_left_out_and_named(finished):
    """Each file in turn; every other section stays."""
    whole = text_of(finished)
    headings = re.findall(r"^#+ .*$", whole, re.MULTILINE)
    files = {f"log/{name}.json" for name in made_up()} | {*linked()}
    files |= {"models/Best_diffusion_64.pkl", "models/Best_diffusion_fast.pkl"}
    files |= {"log/diffusion_ddpm.csv", "log/diffusion_64.csv"}
    files = {name for name in files if not name.startswith("docs/")} - {*REQUIRED}
    assert len(files) > 25
    for name in sorted(files):
        (finished / name).rename(finished / "away")
        text, missing = tool.report(finished)
        (finished / "away").rename(finished / name)
        assert missing and all(names == [name] for names in missing.values())
        # The list names the sections that are gone; their `###` go with them.
        sentence = re.search(r"^Left out.*$", text, re.MULTILINE)[0]
        assert all(f"{title} (needs `{name}`)" in sentence for title in missing)
        gone = [h for h in headings if h not in re.findall("^#+ .*$", text, re.M)]
        assert gone and {h.strip("# ") for h in gone if h[:3] == "## "} <= {*missing}
        assert "$" not in text


def test_a_new_students_folder_has_a_report(finished, tmp_path, caplog):
    """After the default training alone; documents elsewhere are named, not linked."""
    for name in (*REQUIRED, "vis/random_images_diffusion.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    tool.main(["--out", str(tmp_path), "--html"])
    assert "which needs log/ladder.json" in caplog.text
    for language in tool.TEMPLATES:
        text = (tmp_path / tool.report_name(language)).read_text("utf-8")
        pictures = re.findall(r"!\[.*\]\((.*)\)", text)
        assert pictures == ["vis/random_images_diffusion.png"] * 2
        assert "](docs/" not in text and "docs/diffusion_ablations.md" in text
        assert "41.0" in text and "$" not in text and "\n\n\n" not in text


def test_the_report_names_the_command_of_each_record():
    """Each command of the table is accepted by the parser of its tool."""
    found = []
    for language, heading in (("en", "Commands"), ("zh", "命令")):
        text = tool.TEMPLATES[language].read_text("utf-8")
        rows = "\n".join(
            line
            for line in text.split(f"\n## {heading}\n")[1].splitlines()
            if line.startswith("|")
        )
        found.append(re.findall(r"`python (?:-m )?(tools\.\w+|\w+\.py)([^>`]*)", rows))
        records = {*made_up()} - {"manifest"}  # which tools.reproduce keeps
        assert [name for name in records if f"`log/{name}.json`" not in rows] == []
    assert found[0] == found[1] and len(found[0]) > 10
    for command, arguments in found[0]:
        name = command.removesuffix(".py")
        if name == "tools.visualize":
            name += ".__main__"
        arguments = arguments.replace("NAME", "diffusion")
        importlib.import_module(name).parse(shlex.split(arguments))

"""The report's prose comes from a template, and its every number from a file."""

import importlib
import json
import re
import shlex
import subprocess

import pytest

from diffusion import Diffuser
from tests.helpers.project import PROJECT
from tests.helpers.training import DATA
from tools import report as tool
from utils.checkpoint import save_checkpoint
from utils.cli import UserError

MACHINE = {"processor": "Abacus", "cores": 2, "threads": 2, "torch": "2.14"}
LOSSES = "epoch,train_per_photo,valid_per_photo,seconds\n0,0.5,0.6,30\n1,0.25,,60.5\n"
CONFIG = {"sampler": "dpm++3m", "steps": 16, "guidance": 1.5}
CONFIG |= {"autoguidance": 1.75, "guidance_interval": [0.2, None], "nfe": 32}
ALLOWED = (  # digits that are no results
    r"`[^`]*`",  # commands and names of files
    r"https?://\S+",
    r"\barXiv:\d{4}\.\d{4,5}\b",
    r"\b(19|20)\d\d,",  # of a paper
    r"\b(24 x 24|64 x 64|2 x 2|3 x 3|N\(0, I\)|M44|M50)(?!\w)",
    r"\[-1, 1\]",
    r"\b95 % confidence",
    r"diffusion_64\b",
    r"\b(bfloat16|float32)\b",
)


def measured(frechet, images=2000, **more):
    """Return the metrics of one set of images of tools.evaluate."""
    return {
        "images": images,
        "Frechet distance": [frechet, frechet - 0.25, frechet + 0.25],
        "- to validation photos": [frechet + 1.0, frechet, frechet + 2.0],
        "- extrapolated": [frechet - 1.5, frechet - 2.0, frechet - 1.0],
        "kernel distance to validation photos": [0.0045678, 0.004, 0.005],
        "kernel distance": [0.0123456, 0.01, 0.02],
        "precision at equal number": [0.75, 0.7, 0.8],
        "recall at equal number": [0.5, 0.4, 0.6],
        "copies by pixels": [0.0005, 0.0, 0.001],
        "copies by features": [0.0, 0.0, 0.002],
        "nearest by pixels": [6.5, 6.4, 6.6],
        "nearest by features": [3.25, 3.2, 3.3],
        "classified as requested": "no species was requested",
        **more,
    }


def evaluation(name):
    """Return what tools.evaluate writes for a model, made up."""
    named = {"classified as requested": [0.9, 0.85, 0.95]}
    held_out = {"- to validation photos": "-", "nearest by pixels": [6.25, 6.0, 6.5]}
    return {
        f"models/Best_{name}.pkl": measured(2.0, **CONFIG, **named),
        "validation photos": measured(1.5, 465, **held_out, **named),
        "our AE": measured(36.0),
        "our VAE": measured(33.0),
    }


def point(sampler, steps, frechet, seconds):
    """Return a point of tools.compare_samplers."""
    interval = [frechet, frechet - 0.5, frechet + 0.5]
    counts = {"sampler": sampler, "steps": steps, "nfe": steps}
    return {**counts, "seconds_per_image": seconds, "frechet": interval}


def made_up():
    """Return {name of a JSON file: its content}."""
    points = [point("ddpm", 300, 4.0, 0.6), point("ddpm", 16, 40.0, 0.03)]
    points += [point("heun", 8, 5.5, 0.02), point("ipndm", 8, 4.8, 0.016)]
    points += [point("dpm++3m", 16, 4.1, 0.03), point("euler", 3, 50.0, 0.006)]
    points += [point("ddpm", 400, 5.0, 0.75)]
    compared = {"facts": {"machine": MACHINE}, "points": points}
    return {
        "evaluate_diffusion": evaluation("diffusion"),
        "evaluate_diffusion_ddpm": {
            "models/Best_diffusion_ddpm.pkl": measured(8.0, **CONFIG),
            "models/Best_diffusion_short.pkl": measured(2.0, **CONFIG),
        },
        "evaluate_diffusion_64": evaluation("diffusion_64"),
        "evaluate_diffusion_64_at_24": evaluation("diffusion_64"),
        "features_b_diffusion": {
            path: {"Frechet distance": [value, value - 0.1, value + 0.1]}
            for path, value in (("a.pkl", 2.0), ("vae.pth", 35.0))
        },
        "ladder": {
            "machine": MACHINE,
            "models": {
                "diffusion": measured(2.0, minutes=60.0, **CONFIG),
                "VAE": measured(33.0, minutes=3.25),
            },
        },
        "compare_samplers_diffusion_short": compared,
        "reflow_diffusion": {
            "reflow": {"couplings": 20000},
            "data": {"count": 7},
            "before": [point("flow", 1, 170.0, 0.002)],
            "after": [point("flow", 1, 14.0, 0.002)],
        },
        "throughput_diffusion": {
            "machine": MACHINE,
            "settings": {"batch_size": 64},
            "seconds_per_step": 0.3125,
            "photos_per_second": 204.8,
            "operations_per_photo": 1.5e9,
            "teraflops": 0.307,
            "plain_convolution_teraflops": {"bf16": 3.3, "fp32": 0.44},
            "proportions": {"activation": 0.25, "rest": 0.75},
        },
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a folder with every file that the report needs, small and made up."""
    root = tmp_path_factory.mktemp("project")
    for folder in ("log", "models", "vis", "docs"):
        (root / folder).mkdir()
    for name, content in made_up().items():
        (root / "log" / f"{name}.json").write_text(json.dumps(content))
    for name in ("diffusion", "diffusion_ddpm", "diffusion_64"):
        (root / "log" / f"{name}.csv").write_text(LOSSES)
    settings = {"lr": 0.002, "channels": (16,), "patience": 1, "ema": 0.998}
    metadata = {"settings": settings, "data": DATA, "seed": 0}
    for name in ("diffusion", "diffusion_64", "diffusion_fast"):
        model = Diffuser(2, name=name, channels=(16,))
        save_checkpoint(root / "models" / f"Best_{name}.pkl", model, metadata)
    for name in tool.LINK.findall(tool.TEMPLATE.read_text("utf-8")):
        (root / name).touch()
    return root


def text_of(root):
    """Return the report of the files below a folder."""
    return tool.report(root)


def cells(text, start):
    """Return the cells of the table row whose first cell is `start`."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# The committed report ----------------------------------------------------


def test_the_committed_report_agrees_with_the_committed_files():
    """A number that was changed by hand, or comes from an older log, fails here."""
    text = text_of(PROJECT)
    path = PROJECT / tool.REPORT
    assert path.read_text("utf-8").splitlines() == text.splitlines()
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        used = {tool.REPORT, *tool.LINK.findall(text)}
        assert sorted(used - set(listed.stdout.splitlines())) == []


def typed_numbers(template):
    """Return the lines of its prose that contain a number that is not allowed."""
    prose = re.sub(r"\$\w+", "", template)
    for pattern in (tool.LINK.pattern, *ALLOWED):
        prose = re.sub(pattern, "", prose)
    return [line for line in prose.splitlines() if re.search(r"\d", line)]


def test_the_prose_holds_no_number():
    """Except in names, sizes and references: all others must come from files."""
    template = tool.TEMPLATE.read_text("utf-8")
    assert typed_numbers(template) == []
    planted = "The distance at 24 x 24 is 2.1, in 2020."
    assert typed_numbers(f"{template}\n{planted}\n") != []


# What the command writes ---------------------------------------------------------


def test_tables_contain_the_values_of_the_files(finished):
    """Rounded to three digits; quotients as computed by hand."""
    text = text_of(finished)
    assert "$" not in text and "nan" not in text
    distances = text.split("## Distance of")[1].split("Recall is")[0]
    assert cells(distances, "VAE of part 3") == [
        "2,000",
        "0.00457 [0.00400, 0.00500]",
        "34.0 [33.0, 35.0]",
        "31.5 [31.0, 32.0]",
        "33.0 [32.8, 33.2]",
        "16.5",
        "0.0123 [0.0100, 0.0200]",
    ]
    assert "is 16.5 times that of this model" in text
    ddpm = text.split("## The assignment's DDPM")[1]
    assert cells(ddpm, "`--preset short`")[4:6] == ["2.00 [1.75, 2.25]", "0.250"]
    copies = text.split("## Memorization")[1]
    assert cells(copies, "this model")[0] == "0.05 % [0.00, 0.10]"
    species = text.split("## Samples by species")[1].split("## Rectified")[0]
    assert cells(species, "this model") == ["90.0 % [85.0, 95.0]"]
    assert cells(species, "VAE of part 3") == ["-"]
    variety = text.split("Recall is")[1].split("The Frechet")[0]
    own = ["50.0 % [40.0, 60.0]", "75.0 % [70.0, 80.0]"]
    assert cells(variety, "this model") == cells(variety, "VAE of part 3") == own
    assert cells(text, "channels") == ["16"] * 2 and cells(text, "ema")[0] == "0.998"
    assert "| patience |" not in text  # a setting of other models
    assert cells(text, "rest") == ["75.0 %"] and "Abacus; cores: 2; threads: 2" in text
    assert "2 epochs took 1.5 min" in text and "loss was 0.250" in text
    assert " 41.0 photos per second" in text  # 2 x (2321 - 465) / 90.5 s
    assert "is 104.0 % of that of the\nvalidation photos by pixels" in text
    assert "20,000 couplings" in text and "1,500 million operations" in text
    words = "dpm++3m, 16 steps, NFE 32, autoguidance 1.75, "
    assert words + "classifier-free guidance 1.5 at sigma 0.2 and above." in text


def test_the_best_sampler_within_each_nfe_is_compared_with_the_reference(finished):
    text = text_of(finished)
    assert cells(text, "at most 4")[:3] == ["euler", "3", "3"]
    assert cells(text, "at most 8")[0] == "ipndm"  # lower than heun's 5.5
    expected = ["dpm++3m", "16", "16", "4.10 [3.60, 4.60]", "+2.5 %", "30.0", "20.0"]
    assert cells(text, "at most 16") == expected
    assert cells(text, "at most 40") == expected  # nothing better in more
    assert cells(text, "reference")[-3:] == ["+0.0 %", "600", "1.0"]
    assert cells(text, "whole schedule")[-3:] == ["+25.0 %", "750", "0.8"]


def test_the_second_extractor_gives_a_ratio_of_its_own(finished):
    text = text_of(finished)
    assert "it is 17.5 times:" in text  # 35 / 2
    assert cells(text, "vae.pth") == ["35.0 [34.9, 35.1]", "17.5"]


def test_the_ladder_starts_with_the_shortest_training(finished):
    text = text_of(finished).split("## Quality and training time")[1]
    vae, own = cells(text, "`VAE`"), cells(text, "`diffusion`")
    assert text.index("| `VAE` |") < text.index("| `diffusion` |")
    assert vae[:3] == ["3.2", "1", "0.00457 [0.00400, 0.00500]"]
    assert own[:2] == ["60.0", "32"] and own[4] == "50.0 % [40.0, 60.0]"


def test_the_command_writes_the_report(finished):
    tool.main(["--out", str(finished)])
    assert (finished / tool.REPORT).read_text("utf-8") == text_of(finished)


def test_a_damaged_file_is_one_line(finished):
    path = finished / "log" / "reflow_diffusion.json"
    before = path.read_text()
    refused = {**json.loads(before), "after": [{"nfe": 1, "frechet": "too few"}]}
    for content, reason in (
        ("{", "is no JSON: .*; make it again"),
        ("[" * 100_000, "is no JSON: .*; make it again"),
        ("{}", r"incomplete \(.*\); make it"),
        (json.dumps(refused), r"incomplete \(too few\); make it"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=reason):
            text_of(finished)
    path.write_text(before)


def test_a_missing_file_is_named(finished):
    """In one line; without a number or a picture there is no report."""
    logs = {path.relative_to(finished) for path in (finished / "log").iterdir()}
    for name in {*map(str, logs), *tool.LINK.findall(text_of(finished))}:
        (finished / name).rename(finished / "away")
        with pytest.raises(UserError, match=f"{name} is not there; .*template.md says"):
            text_of(finished)
        (finished / "away").rename(finished / name)


def test_the_report_names_the_command_of_each_record():
    """Each command is accepted by the parser of its tool."""
    section = tool.TEMPLATE.read_text("utf-8").split("\n## Commands\n")[1]
    commands = re.findall(r"`python (?:-m )?(tools\.\w+|\w+\.py)([^>`]*)", section)
    assert len(commands) > 10
    assert [name for name in made_up() if f"`log/{name}.json`" not in section] == []
    for command, arguments in commands:
        name = command.removesuffix(".py")
        if name == "tools.visualize":
            name += ".__main__"
        arguments = arguments.replace("NAME", "diffusion")
        importlib.import_module(name).parse(shlex.split(arguments))

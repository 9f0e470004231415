"""Files that tools.report needs, small and made up, and the numbers in a report."""

import json
import re

from diffusion import Diffuser
from tests.helpers.training import DATA
from tools.report import __main__ as tool
from utils.checkpoint import save_checkpoint

MACHINE = {"processor": "Abacus, with bfloat16 units", "cores": 2, "threads": 2}
MACHINE |= {"torch": "2.14"}
LOSSES = "epoch,train_per_photo,valid_per_photo,seconds\n0,0.5,0.6,30\n1,0.25,,60.5\n"
CONFIG = {"sampler": "dpm++3m", "steps": 16, "guidance": 1.5}
CONFIG |= {"autoguidance": 1.75, "guidance_interval": [0.2, None], "nfe": 32}
OPTIONAL_LOGS = ("diffusion_ddpm", "diffusion_64")

# Digits of the prose that are no results.
ALLOWED = (
    r"`[^`]*`",  # commands and names of files
    r"\]\([^)]*\)",  # targets of links
    r"arXiv:\d{4}\.\d{4,5}",
    r"\b(19|20)\d\d,",  # of a paper
    r"\b(24 x 24|64 x 64|2 x 2|3 x 3|N\(0, I\)|part \d)(?!\w)",
    r"第 \d 部分",
    r"\[-1, 1\]",
    r"\b95 %",  # of the intervals
    r"\bcounted\s+from 1\b|从 1 开始数",
    r"\bat the same seed 0\b|随机种子都是 0",
    r"\b6 epochs|6 轮",  # the name of a VAE, whose command has --epochs 6
    r"\bc_\w+|\b(bfloat16|float32)\b|\bdpm\+\+\dm\b",
    # Versions, which are text in their files.
    r"\b(python|torch|torchvision|numpy|matplotlib)\s+\d[\d.]*(\+\w+)?",
)
# A number: not in a word, thousands with commas, perhaps with an exponent.
NUMBER = re.compile(
    r"(?<![\w.])[+-]?\d(?:[\d,]*\d)?(?:\.\d+)?(?:e-?\d+)?(?![\w])", re.ASCII
)


def without_names(text):
    """Return the text without the digits that are no results."""
    for pattern in ALLOWED:
        text = re.sub(pattern, "", text)
    return text


def sections(text):
    """Return [(heading, its text)] of a report or a template, comments left out."""
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    parts = re.split(r"^#+ (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


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
        "trial/models/Best_VAE.pth": measured(35.0),
        "validation photos": measured(1.5, 465, **held_out, **named),
        "our AE": measured(36.0),
        "our VAE": measured(33.0),
        "training photos, mirrored": {"images": 465, "copies by pixels": [1.0, 0.9, 1]},
    }


def point(sampler, steps, frechet, seconds):
    """Return a point of tools.compare_samplers."""
    interval = [frechet, frechet - 0.5, frechet + 0.5]
    counts = {"sampler": sampler, "steps": steps, "nfe": steps}
    return {**counts, "seconds_per_image": seconds, "frechet": interval}


def manifest():
    """Return what tools.reproduce writes before the report, made up."""
    # The report's own record is unfinished, or that of the report before.
    done = {"state": "done", "seconds": 90.0, "artefacts": {"log/VAE.csv": "0"}}
    own = {"state": "started", "seconds": 7.5}
    old = {"state": "done", "seconds": 4.5, "artefacts": {"diffusion_report.md": "0"}}
    return {
        "machine": MACHINE | {"system": "Linux"},
        "versions": {"python": "3.11.9", "numpy": "2.4.1"},
        "threads": 2,
        "seeds": {"train_VAE": 0, "benchmark": None, "report": 7, "old": 8},
        "steps": {"train_VAE": done, "benchmark": done, "report": own, "old": old},
    }


def made_up():
    """Return {name of a JSON file: its content}."""
    points = [point("ddpm", 300, 4.0, 0.6), point("ddpm", 16, 40.0, 0.03)]
    points += [point("heun", 8, 5.5, 0.02), point("ipndm", 8, 4.8, 0.016)]
    points += [point("dpm++3m", 16, 4.1, 0.03), point("euler", 3, 50.0, 0.006)]
    points += [point("ddpm", 400, 5.0, 0.75)]
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
            for path, value in (("a/Best_diffusion.pkl", 2.0), ("b/other.pth", 35.0))
        },
        "ladder": {
            "machine": MACHINE,
            "models": {
                "diffusion": measured(2.0, minutes=60.0, **CONFIG),
                "VAE": measured(33.0, minutes=3.25),
            },
        },
        "compare_samplers_diffusion_short": {
            "facts": {"machine": MACHINE},
            "points": points,
        },
        "reflow_diffusion": {
            "reflow": {"couplings": 20000},
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
        "manifest": manifest(),
    }


def linked(language="en"):
    """Return the files of the project's folder that a template links to."""
    text = tool.TEMPLATES[language].read_text("utf-8")
    return [name for _, _, name in tool.LINK.findall(text)]


def make_finished(root):
    """Write every file that the reports need below a folder; return the folder."""
    for folder in ("log", "models", "vis", "docs"):
        (root / folder).mkdir()
    for name in linked():
        (root / name).touch()
    for name, content in made_up().items():
        (root / "log" / f"{name}.json").write_text(json.dumps(content))
    for name in ("diffusion", *OPTIONAL_LOGS):
        (root / "log" / f"{name}.csv").write_text(LOSSES)
    settings = {"lr": 0.002, "channels": (16,), "patience": 1, "hflip": True}
    metadata = {"settings": settings, "data": DATA, "seed": 0, "epoch": 0}
    for name in ("diffusion", "diffusion_64", "diffusion_fast"):
        model = Diffuser(2, name=name, channels=(16,))
        save_checkpoint(root / "models" / f"Best_{name}.pkl", model, metadata)
    return root


def cells(text, start):
    """Return the cells of the table row whose first cell is `start`."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]

"""The recipes of docs/extending.md: a toy sampler, objective and metric are added."""

import json
import shutil

import pytest

from tests.helpers.diffusion import save_small
from tests.helpers.project import PROJECT, python, write_photos

EDITS = {  # file -> [(text, what replaces it), ...]
    "utils/config.py": [
        ("SAMPLERS = (", 'SAMPLERS = ("toy",'),
        ('OBJECTIVES = ("flow"', 'OBJECTIVES = ("toy", "flow"'),
        ("METRICS = (", 'METRICS = ("toy",'),
    ],
    "utils/diffusion/samplers.py": [
        ("SAMPLERS = {", 'SAMPLERS = {"toy": Sampler(toy),'),
        (
            "# Properties --",
            "def toy(denoise, x, sigmas):\n"
            '    """Take the first estimate for the image."""\n'
            "    yield x\n"
            "    image = denoise(x, sigmas[0])\n"
            "    for _ in sigmas[1:]:\n"
            "        yield image\n\n\n"
            "# Properties --",
        ),
    ],
    "utils/diffusion/denoiser.py": [
        (
            "OBJECTIVES = {",
            'OBJECTIVES = {"toy": Objective(  # minus the noise\n'
            "    lambda s: (torch.ones_like(s), s), lambda x_0, noise, s: -noise),",
        ),
    ],
    "utils/evaluation/evaluate.py": [
        ("METRICS = {", 'METRICS = {"toy": lambda c: Estimate(len(c.images), 0, 1),'),
    ],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which the recipes were followed, with photos."""
    root = tmp_path_factory.mktemp("extended") / "project"
    ignored = shutil.ignore_patterns(".*", "vis", "log", "tests", "__pycache__")
    shutil.copytree(PROJECT, root, ignore=ignored)
    for name, edits in EDITS.items():
        text = (root / name).read_text("utf-8")
        for old, new in edits:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (root / name).write_text(text)
    write_photos(root / "photos", 40)
    save_small(root / "small.pkl")
    return root


RECIPES = """
import torch
import diffusion
import random_generation
from tools import evaluate
from utils.registry import load_model

# One evaluation makes the toy sampler's image.
line = "--model diffusion --weights small.pkl --out out --sampler toy --steps 3"
random_generation.main([*line.split(), "--count", "2"])

# The toy metric is reported beside the others.
line = "small.pkl --data photos --count 30 --extractor pixels --json --steps 1"
evaluate.main(line.split())

# Minus the noise is learned as the noise is; the file remembers it.
line = "--objective toy --epochs 1 --image-size 8 --channels 16 --data photos"
diffusion.main([*line.split(), "--out", "trained"])
model, metadata = load_model("diffusion", "trained/models/Best_diffusion.pkl")
for weight in ("toy", "eps"):
    torch.manual_seed(0)
    x_0, sigma = torch.rand(8, 3, 8, 8), torch.ones(8)
    loss = diffusion.diffusion_loss_fn(model, x_0, sigma=sigma, weight=weight)
    print(metadata["settings"]["objective"], model.objective, loss.item())
"""


def run(project, *command):
    """Run a command in the copy -> its stdout."""
    done = python(*command, cwd=project)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_toys_are_choices(project):
    """The flags offer them."""
    assert "{toy,dpm++3m," in run(project, "random_generation.py", "--help")
    assert "{toy,flow," in run(project, "diffusion.py", "--help")


def test_toys_are_used(project):
    """The sampler draws, the metric is reported, and the objective is trained."""
    (project / "recipes.py").write_text(RECIPES)
    report, trained = run(project, "recipes.py").split("using device cpu\n")
    assert (project / "out/vis/random_images_diffusion.png").is_file()
    assert json.loads(report)["small.pkl"]["toy"] == [30, 0, 1]
    epoch, *losses = map(str.split, trained.splitlines())
    assert epoch[:2] == ["Epoch:", "1/1,"]
    assert [words[:2] for words in losses] == 2 * [["toy", "toy"]]
    toy, eps = (float(words[2]) for words in losses)
    assert toy == pytest.approx(eps, rel=1e-4)

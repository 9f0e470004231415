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


def run(project, command):
    """Run a command in the copy -> its stdout."""
    done = python(*command.split(), cwd=project)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_toy_sampler_is_a_choice_and_samples(project):
    """The flag offers it; one evaluation makes its image."""
    line = "random_generation.py --model diffusion --weights small.pkl --out out"
    assert "{toy,dpm++3m," in run(project, "random_generation.py --help")
    run(project, f"{line} --sampler toy --steps 3 --count 2")
    assert (project / "out/vis/random_images_diffusion.png").is_file()


def test_a_toy_objective_is_trained(project):
    """Minus the noise is learned as the noise is; the file remembers it."""
    (project / "loss.py").write_text(
        "import torch\n"
        "from diffusion import diffusion_loss_fn, main\n"
        "from utils.registry import load_model\n"
        "line = '--objective toy --epochs 1 --image-size 8 --channels 16'\n"
        "main([*line.split(), '--data', 'photos', '--out', 'trained'])\n"
        "path = 'trained/models/Best_diffusion.pkl'\n"
        "model, metadata = load_model('diffusion', path)\n"
        "assert metadata['settings']['objective'] == model.objective == 'toy'\n"
        "losses = []\n"
        "for weight in ('toy', 'eps'):\n"
        "    torch.manual_seed(0)\n"
        "    x_0, sigma = torch.rand(8, 3, 8, 8), torch.ones(8)\n"
        "    loss = diffusion_loss_fn(model, x_0, sigma=sigma, weight=weight)\n"
        "    losses.append(loss.item())\n"
        "print(abs(losses[0] / losses[1] - 1) < 1e-4)\n"
    )
    *_, trained, same = run(project, "loss.py").splitlines()
    assert trained.startswith("Epoch: 1/1") and same == "True"


def test_a_toy_metric_is_reported(project):
    """Beside the others; its value is the number of images."""
    flags = "--data photos --count 30 --extractor pixels --json"
    line = f"-m tools.evaluate small.pkl {flags} --steps 1"
    found = json.loads(run(project, line))
    assert found["small.pkl"]["toy"] == [30, 0, 1]

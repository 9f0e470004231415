"""The command that compares samplers at equal numbers of network evaluations."""

import json

import pytest
import torch
from PIL import Image

from diffusion import Diffuser
from tests.helpers.project import write_photos
from tests.helpers.training import DATA
from tools import compare_samplers
from utils.checkpoint import save_checkpoint
from utils.cli import UsageError, UserError
from utils.device import machine_facts
from utils.diffusion.samplers import SAMPLERS, Sampler
from utils.diffusion.sampling import SIGMA_MIN
from utils.evaluation import evaluate
from VarAutoencoder import VarAutoencoder

MAX_STEPS = 5  # steps of the tiny model's schedule
LEVELS = 3  # of these, not below the default last noise level
METADATA = {
    "settings": {"image_size": 8},
    "class_proportions": [0.5, 0.3, 0.2],
    "data": DATA | {"count": 30},
    "epoch": 3,
    "seed": 1,
    "valid_loss": 0.5,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Write photos, and weights of a tiny model whose output is not zero."""
    folder = tmp_path_factory.mktemp("steps")
    write_photos(folder / "photos", 10)
    torch.manual_seed(0)
    model = Diffuser(MAX_STEPS, channels=(16, 32))
    for weights in model.network.conv_out.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    save_checkpoint(folder / "Best_tiny.pkl", model, METADATA)
    return folder


@pytest.fixture
def run(place, tmp_path, monkeypatch, capsys):
    """Run the command with 12 features -> (its JSON, lines of stdout)."""
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    monkeypatch.setattr(evaluate, "find_extractor", lambda *_: colours)

    def command(*arguments):
        line = [place / "Best_tiny.pkl", "--data", place / "photos", "--out", tmp_path]
        line += ["--count", 40, "--nfe", 2, 4, *arguments]
        compare_samplers.main(list(map(str, line)))
        found = json.loads(json_path(tmp_path).read_text())
        return found, capsys.readouterr().out.splitlines()

    return command


def json_path(folder):
    """Return where the command with `--out folder` writes its numbers."""
    return folder / "log" / "compare_samplers_tiny.json"


def by_sampler(found):
    """Return {(sampler, steps): point} of the command's JSON."""
    return {(point["sampler"], point["steps"]): point for point in found["points"]}


@pytest.mark.parametrize(
    "sampler, nfe, expected",
    [("heun", 1, 1), ("heun", 4, 2), ("heun", 5, 3), ("ddpm", 8, 5), ("ddim", 8, 8)],
)
def test_steps_are_the_most_within_the_number_of_evaluations(sampler, nfe, expected):
    assert compare_samplers.steps_within(sampler, nfe, MAX_STEPS) == expected


def test_every_sampler_is_counted_timed_and_compared(run, tmp_path):
    """DDIM without noise is Euler: both generate the same from the same noise."""
    # The reference first, then two points per sampler.
    found, lines = run()
    points = by_sampler(found)
    assert list(points)[0] == ("ddpm", LEVELS)
    assert list(points)[-1] == ("ddpm", MAX_STEPS)
    assert {name for name, _ in points} == set(SAMPLERS)
    # Of the reference, 4 evaluations are the 3 of its levels; then the whole schedule.
    assert len(points) == 1 + 2 * len(SAMPLERS)
    ends = [point["sigma_min"] for point in points.values()]
    assert set(ends[:-1]) == {SIGMA_MIN} and ends[-1] == 0
    for (sampler, steps), point in points.items():
        assert point["nfe"] == (2 * steps - 1 if sampler == "heun" else steps)
        assert point["seconds_per_image"] > 0
        value, low, high = point["frechet"]
        assert low < value < high
        assert point["frechet_to_validation"] == "needs more than 19 images, got 6"
        assert point["kernel_to_validation"] == "needs 10 images, got 6"
    for steps in (2, 4):
        ddim, euler, flow = (
            points[name, steps]["frechet"] for name in ("ddim", "euler", "flow")
        )
        assert ddim == pytest.approx(euler, rel=1e-3)
        assert ddim != pytest.approx(flow, rel=1e-3)
    # A line per point, and the figure.
    assert len(lines) == len(points)
    assert lines[0].startswith(f"ddpm, {LEVELS} steps, NFE {LEVELS}: Frechet ")
    with Image.open(tmp_path / "vis" / "compare_samplers_tiny.png") as image:
        image.load()
        assert image.width > image.height > 300


def test_the_facts_of_a_run_are_written(run):
    found, _ = run("--seed", "7")
    facts = found["facts"]
    assert found["command"].startswith("python -m tools.compare_samplers ")
    assert found["command"].endswith(" --seed 7")
    weights = facts["weights"]
    assert len(weights.pop("sha256")) == 16
    expected = {"model": "diffusion", "epoch": 3, "seed": 1, "valid_loss": 0.5}
    assert weights == expected
    assert (facts["count"], facts["seed"]) == (40, 7)
    assert facts["machine"] == machine_facts() and facts["data"]["count"] == 30


def test_evaluations_are_counted_not_assumed(run, monkeypatch):
    """With a sampler that evaluates the network three times per step."""

    def three_evaluations(denoise, x, sigmas):
        yield x
        for sigma in sigmas[:-1]:
            x = sum(denoise(x, sigma) for _ in range(3)) / 3
            yield x

    points = [("ddpm", LEVELS), ("ddim", 2)]
    monkeypatch.setattr(compare_samplers, "points_requested", lambda *_: points)
    monkeypatch.setitem(SAMPLERS, "ddim", Sampler(three_evaluations))
    found, _ = run()
    assert by_sampler(found)["ddim", 2]["nfe"] == 6


def test_an_interrupted_run_keeps_its_points(run, tmp_path, monkeypatch):
    """Each point is written before the next one begins."""
    measure, path = compare_samplers.measure, json_path(tmp_path)

    def third_fails(*arguments):
        if path.exists() and len(json.loads(path.read_text())["points"]) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(compare_samplers, "measure", third_fails)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(json.loads(path.read_text())["points"]) == 2


def test_what_cannot_be_compared_is_refused(run, tmp_path, place):
    """P25: fewer images than features; weights of another kind of model."""
    with pytest.raises(UsageError, match="--count: .* more than 12 images, got 12"):
        run("--count", "12")
    save_checkpoint(tmp_path / "x.pth", VarAutoencoder(4, 8, 8))
    with pytest.raises(UserError, match="holds a VAE; name weights that diffusion.py"):
        compare_samplers.main([str(tmp_path / "x.pth")])

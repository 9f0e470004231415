"""The command that compares samplers by their evaluations."""

import json

import pytest
import torch
from PIL import Image

from diffusion import Diffuser
from tests.helpers.project import write_photos
from tools import compare_samplers
from utils.checkpoint import save_checkpoint
from utils.cli import UsageError, UserError
from utils.device import machine_facts
from utils.diffusion.samplers import SAMPLERS, Sampler
from utils.evaluation import evaluate as trials
from VarAutoencoder import VarAutoencoder

LONGEST = 5  # steps of the tiny model's schedule
ABOUT = {
    "settings": {"image_size": 8},
    "class_proportions": [0.5, 0.3, 0.2],
    "data": {"source": "photos", "split": "?", "split_seed": 0, "count": 30},
    "epoch": 3,
    "seed": 1,
    "valid_loss": 0.5,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos, and tiny weights that see something in noise."""
    folder = tmp_path_factory.mktemp("steps")
    write_photos(folder / "photos", 10)
    torch.manual_seed(0)
    model = Diffuser(LONGEST, channels=(16, 32))
    for weights in model.network.conv_out.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    save_checkpoint(folder / "Best_tiny.pkl", model, ABOUT)
    return folder


@pytest.fixture
def run(place, tmp_path, monkeypatch, capsys):
    """Run the command on 12 colours -> (its JSON, the lines that it prints)."""
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    monkeypatch.setattr(trials, "find_extractor", lambda name: colours)

    def command(*arguments):
        where = ["--data", place / "photos", "--out", tmp_path]
        few = ["--count", 40, "--nfe", 2, 4]
        line = [place / "Best_tiny.pkl", *where, *few, *arguments]
        compare_samplers.main(list(map(str, line)))
        found = json.loads(
            (tmp_path / "log" / "compare_samplers_tiny.json").read_text()
        )
        return found, capsys.readouterr().out.splitlines()

    return command


def by_place(found):
    """Return {(sampler, steps): point}."""
    return {(point["sampler"], point["steps"]): point for point in found["points"]}


@pytest.mark.parametrize(
    "sampler, nfe, expected",
    [("heun", 1, 1), ("heun", 4, 2), ("heun", 5, 3), ("ddpm", 8, 5), ("ddim", 8, 8)],
)
def test_steps_are_the_most_within_the_evaluations(sampler, nfe, expected):
    assert compare_samplers.steps_within(sampler, nfe, LONGEST) == expected


def test_every_sampler_is_counted_timed_and_compared(run, tmp_path):
    """DDIM without noise is Euler, so that both draw the same from the same start."""
    found, lines = run()
    points = by_place(found)
    assert list(points)[0] == ("ddpm", LONGEST)
    assert {name for name, _ in points} == set(SAMPLERS)
    assert len(points) == 1 + 2 * len(SAMPLERS)
    for (sampler, count), point in points.items():
        assert point["nfe"] == (2 * count - 1 if sampler == "heun" else count)
        assert point["seconds_per_image"] > 0
        value, low, high = point["frechet"]
        assert low < value < high
        assert point["frechet_to_validation"] == "needs more than 12 images, got 6"
    for number in (2, 4):
        one, other = (points[name, number]["frechet"] for name in ("ddim", "euler"))
        assert one == pytest.approx(other, rel=1e-3)
        assert one != pytest.approx(points["flow", number]["frechet"], rel=1e-3)
    assert lines[0].split() == ["sampler", "2", "4"] and len(lines) == 2 + len(SAMPLERS)
    (heun,) = [line.split() for line in lines if line.startswith("heun")]
    assert heun[2] == "(1)" and heun[4] == "(3)"
    assert lines[-1].startswith(f"reference: ddpm, {LONGEST} evaluations, ")
    with Image.open(tmp_path / "vis" / "compare_samplers_tiny.png") as image:
        image.load()
        assert image.width > image.height > 300


def test_the_facts_are_told(run, place):
    found, _ = run("--seed", "7")
    facts = found["facts"]
    assert found["command"].startswith("python -m tools.compare_samplers ")
    assert found["command"].endswith(" --seed 7")
    weights = facts["weights"]
    assert len(weights.pop("sha256")) == 16
    told = {"model": "diffusion", "epoch": 3, "seed": 1, "valid_loss": 0.5}
    assert weights == told
    assert (facts["count"], facts["seed"]) == (40, 7)
    assert facts["machine"] == machine_facts() and facts["data"]["count"] == 30


def test_evaluations_are_counted_not_assumed(run, monkeypatch):
    """A sampler that asks three times a step."""

    def thrice(denoise, x, levels):
        yield x
        for level in levels[:-1]:
            x = sum(denoise(x, level) for _ in range(3)) / 3
            yield x

    monkeypatch.setattr(
        compare_samplers, "points_requested", lambda *_: [("ddpm", 5), ("ddim", 2)]
    )
    monkeypatch.setattr(compare_samplers, "table", lambda *_: [])
    monkeypatch.setitem(SAMPLERS, "ddim", Sampler(lambda *of: thrice(*of)))
    found, _ = run()
    assert by_place(found)["ddim", 2]["nfe"] == 6


def test_a_run_goes_on_where_it_ended(run, tmp_path, monkeypatch, caplog):
    """Points that are there are kept, others are drawn as before; not so, of others."""
    path = tmp_path / "log" / "compare_samplers_tiny.json"
    before = by_place(run()[0])
    found = json.loads(path.read_text())
    found["points"] = found["points"][:4]
    found["points"][1]["frechet"] = [7.0, 6.0, 8.0]
    path.write_text(json.dumps(found))
    drawn, measured = [], compare_samplers.measure
    monkeypatch.setattr(
        compare_samplers, "measure", lambda *of: drawn.append(of[1:3]) or measured(*of)
    )
    after = by_place(run()[0])
    assert (
        sorted(drawn) == sorted(list(before)[4:])
        and "compare_samplers_tiny" not in caplog.text
    )
    assert set(after) == set(before)
    assert after[list(before)[1]]["frechet"] == [7.0, 6.0, 8.0]
    for place in list(before)[4:]:
        assert after[place]["frechet"] == before[place]["frechet"]
    drawn.clear()
    found, _ = run("--seed", "1")
    assert len(drawn) == len(before) and "is of another run" in caplog.text
    path.write_text("{")
    drawn.clear()
    assert by_place(run("--seed", "1")[0]).keys() == before.keys()
    assert len(drawn) == len(before) and "is damaged" in caplog.text


def test_an_interrupted_run_keeps_its_points(run, tmp_path, monkeypatch):
    """What is measured is on disk before the next point begins."""
    measured, path = (
        compare_samplers.measure,
        tmp_path / "log" / "compare_samplers_tiny.json",
    )

    def third_fails(*of):
        if path.exists() and len(json.loads(path.read_text())["points"]) == 2:
            raise KeyboardInterrupt
        return measured(*of)

    monkeypatch.setattr(compare_samplers, "measure", third_fails)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(json.loads(path.read_text())["points"]) == 2


def test_what_cannot_be_compared_is_refused(run, tmp_path, place):
    """P25: too few images for the features; weights that are no diffusion model's."""
    with pytest.raises(UsageError, match="--count: .* more than 12 images, got 12"):
        run("--count", "12")
    save_checkpoint(tmp_path / "x.pth", VarAutoencoder(4, 8, 8))
    with pytest.raises(UserError, match="holds a VAE; name weights that diffusion.py"):
        compare_samplers.main([str(tmp_path / "x.pth")])

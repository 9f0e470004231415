"""What one run of diffusion.py prints, logs, draws and keeps."""

import re
from dataclasses import replace

import pytest
import torch

from diffusion import Diffuser
from tests.helpers.commands import command, error_line, files_below, train
from tests.helpers.diffusion import SPECIES, small
from tests.helpers.outputs import pixels, same_weights
from tests.helpers.project import write_photos
from tests.helpers.training import rows_of
from utils.checkpoint import load_checkpoint
from utils.config import PRESETS
from utils.optim.factory import prepare_training
from utils.registry import load_model

ASKED = {
    "objective": "v",
    "density": "cosine",
    "num_blocks": 2,
    "dropout": 0.125,
    "label_dropout": 0.25,
    "precision": "fp32",
    "batch_size": 16,
    "ema": 0.5,
    "epochs": 12,
    "guide_at": 0.2,
    "guidance": 1.5,
    "autoguidance": 2.0,
}
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in ASKED.items()]
BEST = "models/Best_diffusion.pkl"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos, a run of twelve epochs in out/, and of one in short/."""
    folder = tmp_path_factory.mktemp("run")
    write_photos(folder / "photos", 20)
    result = train("diffusion", folder / "out", folder / "photos", *FLAGS)
    assert (result.code, result.err) == (0, "")
    (folder / "printed").write_text(result.out)
    short = [*FLAGS, "--epochs=1"]
    assert train("diffusion", folder / "short", folder / "photos", *short).code == 0
    return folder


def test_it_prints_the_device_and_a_line_an_epoch(place):
    """B.7, rule 19: counted from 1, four decimals."""
    first, *lines = (place / "printed").read_text().splitlines()
    assert first == "using device cpu" and len(lines) == 12
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"Epoch: {number}/12, Train Loss: \d\.\d{{4}}", line)


def test_it_writes_weights_a_log_and_pictures(place):
    """B.7: a picture every tenth epoch and one at the end, of the best weights."""
    assert files_below(place / "out") == [
        "log/diffusion.csv",
        BEST,
        "models/Guide_diffusion.pkl",
        "models/Last_diffusion.pth",
        "vis/loss_diffusion.png",
        "vis/random_images_diffusion.png",
        "vis/random_images_diffusion_epoch_10.png",
    ]
    end, tenth = (
        pixels(place / "out" / "vis" / f"random_images_diffusion{which}.png")
        for which in ("", "_epoch_10")
    )
    assert end.shape == tenth.shape and (end != tenth).any()


def test_the_guide_is_the_average_of_early_weights(place):
    """After two of twelve epochs; generation takes it from beside the weights."""
    model, metadata = load_model("diffusion", place / "out" / BEST)
    weights, found = load_checkpoint(place / "out" / "models" / "Guide_diffusion.pkl")
    assert found["seed"] == 0 and found["settings"] == metadata["settings"]
    assert model.guide.state_dict().keys() == model.state_dict().keys()
    # A training of a single epoch has a guide too, its own weights.
    short, _ = load_model("diffusion", place / "short" / BEST)
    guides = short.guide.network.conv_out[2].weight
    assert torch.equal(guides, short.network.conv_out[2].weight.half().float())
    end = model.network.conv_out[2].weight
    early = model.guide.network.conv_out[2].weight
    assert 0 < early.abs().mean() < end.abs().mean()


def test_the_log_tells_errors_by_level_where_it_checks(place):
    """Epochs 0, 10 and the last; the printed loss is the log's."""
    rows = rows_of(place / "out" / "log" / "diffusion.csv")
    buckets = [name for name in rows[0] if name.startswith("valid_error_")]
    assert len(buckets) == 6 and len(rows) == 12
    for number, row in enumerate(rows):
        checked = number in (0, 10, 11)
        assert bool(row["valid_per_photo"]) == checked
        assert any(row[name] for name in buckets) == checked
    printed = re.findall(r"Loss: (\S+)", (place / "printed").read_text())
    assert printed == [f"{float(row['train_loss']):.4f}" for row in rows]


def test_the_file_rebuilds_its_model(place):
    """Rule 16: the constructor's arguments and the settings, as they were asked for."""
    path = place / "out" / BEST
    weights, metadata = load_checkpoint(path)
    settings = metadata["settings"]
    assert {name: settings[name] for name in ASKED} == ASKED
    assert settings["channels"] == (16, 32) and settings["image_size"] == 8
    assert sum(metadata["class_proportions"]) == pytest.approx(1)
    assert metadata["data"]["classes"] == SPECIES  # all of them by default
    assert len(weights["network.label_embedding.weight"]) == 4  # and the null label
    model, _ = load_model("diffusion", path)
    copy = Diffuser(**metadata["args"])
    copy.load_state_dict(weights, strict=True)
    assert not model.training and model.objective == copy.objective == "v"
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0, 3])
    assert torch.equal(model(x, t), copy.eval()(x, t))


def test_pictures_leave_the_training_alone(place, tmp_path, monkeypatch):
    """Drawn at other epochs or larger, from fixed noise: the same losses."""
    monkeypatch.setattr("tests.helpers.commands.QUICK", {"diffusion.num_steps": 4})
    monkeypatch.setattr("diffusion.PICTURE_EVERY", 6)
    monkeypatch.setattr("diffusion.PICTURE_IMAGES", 5)
    assert train("diffusion", tmp_path, place / "photos", *FLAGS).code == 0
    losses = [
        [row["train_loss"] for row in rows_of(out / "log" / "diffusion.csv")]
        for out in (tmp_path, place / "out")
    ]
    assert losses[0] == losses[1]
    assert "vis/random_images_diffusion_epoch_6.png" in files_below(tmp_path)


@pytest.mark.parametrize(
    "flags",
    [
        "--objective=eps",
        "--density=kit",
        "--label-dropout=0",
        "--dropout=0.5",
        "--patch=2",
        "--p-mean=1 --density=lognormal",
        "--p-std=2 --density=lognormal",
        "--precision=bf16",
    ],
)
def test_every_flag_of_training_matters(place, tmp_path, flags):
    """Another value, other weights, by the same seed."""
    flags = [*FLAGS, "--epochs=1", *flags.split()]
    assert train("diffusion", tmp_path, place / "photos", *flags).code == 0
    assert not same_weights(place / "short" / BEST, tmp_path / BEST)


def test_every_weight_is_trained_once():
    """Inner weights by Muon's orthogonal steps, all others by AdamW's; none is left."""
    model = small(channels=(16, 32))
    row = replace(PRESETS["diffusion"][0], optimizer="muon", scheduler="onecycle")
    optimizer, scheduler, ema = prepare_training(row, model, 10)
    inner, others = optimizer.param_groups
    assert inner["orthogonal"] and inner["batched"] and not others["orthogonal"]
    assert set(map(id, inner["params"])) == set(map(id, model.network.inner_weights()))
    trained = [*map(id, inner["params"]), *map(id, others["params"])]
    assert sorted(trained) == sorted(map(id, model.parameters()))
    assert scheduler.total_steps == 10 and bool(ema) == bool(row.ema)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--budget", "1m", "--epochs", "3"], "--budget: it sets the epochs"),
        (["--density", "kit", "--p-mean", "1"], "--p-mean: has no effect with .* kit"),
        (["--density", "cosine", "--p-std", "1"], "--p-std: has no effect"),
        # No row was measured for it.
        (["--optimizer", "sgd"], "'sgd' was not measured for diffusion.*--lr"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, flags, words):
    """P25: by name, before anything is made."""
    result = command("diffusion.py", *flags, "--out", tmp_path / "out")
    assert result.code == 2 and result.out == ""
    assert re.search(words, error_line(result.err, "diffusion.py"))
    assert not (tmp_path / "out").exists()

"""Truths about what the commands make of data folders, seeds and photos."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import (
    TRAININGS,
    error_line,
    files_below,
    refused,
    script_of,
    train,
    use,
)
from tests.helpers.outputs import (
    HOW_TO_GET_THEM,
    pixels,
    same_weights,
    small_picture,
    without_seconds,
)
from tests.helpers.project import write_photos
from utils.checkpoint import load_checkpoint, weights_name
from utils.data_processor import create_flower_dataloaders
from utils.figures import MARGIN, TITLE


def tile(picture, row, column, size):
    """One image of a grid whose images stand one pixel apart."""
    top, left = 1 + row * (size + 1), 1 + column * (size + 1)
    return picture[top : top + size, left : left + size]


# The data folder ---------------------------------------------------------------


@pytest.mark.parametrize("junk", [None, ".DS_Store", "README.md"])
@pytest.mark.parametrize("name", ["MLPAE", "diffusion"])
def test_without_photos_drawn_flowers_are_used_with_one_warning(tmp_path, name, junk):
    """I01, I02: ./flowers missing, or without a photo."""
    if junk:
        (tmp_path / "flowers").mkdir()
        (tmp_path / "flowers" / junk).write_bytes(b"x")
    result = train(name, tmp_path, None, project=tmp_path)
    assert result.code == 0
    (warning,) = result.err.splitlines()
    assert warning.startswith(f"{script_of(name)}: warning: ")
    assert str(tmp_path / "flowers") in warning and HOW_TO_GET_THEM in warning
    _, metadata = load_checkpoint(tmp_path / "models" / weights_name(name))
    assert metadata["data"]["source"] == "drawn flowers"


@pytest.mark.parametrize(
    "files, code, words",
    [
        (None, 2, "is not a folder"),  # I01
        ([], 1, "no class folder"),  # I02
        ([".DS_Store"], 1, "no class folder"),
        (["rose/", "tulip/"], 1, "no photos"),  # I03
        (["rose/notes.txt", "rose/._x.jpg"], 1, "no photos"),
        (["0.png", "1.png"], 1, "no class folder"),  # I05
        (["rose/0.png"], 1, "need at least 2"),  # T01
    ],
)
@pytest.mark.parametrize("name", ["AE", "diffusion"])
def test_a_named_folder_without_photos_is_refused(tmp_path, name, files, code, words):
    """Never drawn flowers in place of --data."""
    data = tmp_path / "data"
    if files is not None:
        data.mkdir()
    for file in files or []:
        (data / file).parent.mkdir(exist_ok=True)
        if file.endswith("/"):
            (data / file).mkdir()
        else:
            Image.new("RGB", (9, 9)).save(data / file, "PNG")
    result = train(name, tmp_path / "out", data)
    refused(result, script_of(name), str(data), words, code=code)
    assert files_below(tmp_path / "out") == []


def test_photos_straight_in_flowers_are_explained(tmp_path):
    """I05: no drawn flowers where the user did put photos."""
    (tmp_path / "flowers").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "flowers" / "x.png")
    result = train("AE", tmp_path, None, project=tmp_path)
    example = tmp_path / "flowers" / "astilbe" / "x.jpg"
    refused(result, "train_script.py", str(example))


def test_junk_and_an_empty_class_change_nothing(tmp_path, photo_folder):
    """I04, I06, P14: the same bits as without; only the empty class is mentioned."""
    assert train("AE", tmp_path / "1", photo_folder).err == ""
    junk = ".DS_Store", "astilbe/Thumbs.db", "desktop.ini", "bellflower/notes.txt"
    for name in junk:
        (photo_folder / name).write_bytes(b"x")
    (photo_folder / "zinnia").mkdir()
    result = train("AE", tmp_path / "2", photo_folder)
    (warning,) = result.err.splitlines()
    assert result.code == 0 and str(photo_folder / "zinnia") in warning
    best = [tmp_path / run / "models" / "Best_AE.pth" for run in "12"]
    assert same_weights(*best)


@pytest.mark.parametrize("bad, strict, code", [(1, 0, 0), (1, 1, 1), (6, 0, 1)])
def test_photos_that_cannot_be_read(tmp_path, photo_folder, bad, strict, code):
    """I09, I27, I28, P13: left out and named; strict or too many: exit 1."""
    broken = sorted(photo_folder.rglob("*.png"))[:bad]
    for path in broken:
        path.write_bytes(b"")
    flags = ["--strict-data"] if strict else []
    result = train("MLPAE", tmp_path / "out", photo_folder, *flags)
    assert result.code == code
    assert all(str(path) in result.err for path in broken)
    assert f"left out {bad} of 30" in result.err
    if code:
        line = error_line(result.err, "train_script.py")
        assert str(broken[0]) in line and ("20 %" in line) == (bad == 6)
    assert bool(files_below(tmp_path / "out")) == (code == 0)


# Weights and what they have seen -----------------------------------------------


def test_photos_and_drawn_flowers_are_not_confused(tmp_path, photo_folder):
    """Weights of photos: shown on drawings or on others, and replaced, with a word."""
    (tmp_path / "flowers").mkdir()
    weights = tmp_path / "models" / "Best_AE.pth"
    show = ("visualization.py", "AE", tmp_path)
    assert train("AE", tmp_path, photo_folder).err == ""
    assert use(*show, "--data", photo_folder).err == ""
    _, shown = use(*show, project=tmp_path).err.splitlines()
    assert "trained on photos" in shown and "drawn flowers" in shown
    others = write_photos(tmp_path / "others", 4)
    (shown,) = use(*show, "--data", others).err.splitlines()
    assert "split" in shown
    result = train("AE", tmp_path, None, project=tmp_path)
    _, replaced = result.err.splitlines()
    assert result.code == 0 and str(weights) in replaced and "photos" in replaced
    assert load_checkpoint(weights)[1]["data"]["source"] == "drawn flowers"
    assert len(train("AE", tmp_path, None, project=tmp_path).err.splitlines()) == 1


def test_originals_stand_above_reconstructions(tmp_path, photo_folder):
    """M13, M26, M34: 16 training photos, 6 of validation, enlarged 12 times."""
    assert train("VAE", tmp_path, photo_folder).code == 0
    result = use("visualization.py", "VAE", tmp_path, "--data", photo_folder)
    assert result == (0, "using device cpu\n", "")
    loaders = create_flower_dataloaders(16, photo_folder, 8, 8)
    for side, loader in zip(("train", "valid"), loaders, strict=True):
        photos = (next(iter(loader))[0] * 255).round().byte()
        picture = small_picture(tmp_path / "vis" / f"{side}_VAE.png", 12, left=9)
        assert picture.shape == (2 * 9 + 1, len(photos) * 9 + 1, 3)
        for column, photo in enumerate(photos):
            shown = tile(picture, 0, column, 8).astype(int)
            assert abs(shown - photo.permute(1, 2, 0).numpy()).max() <= 1
            assert abs(shown - tile(picture, 1, column, 8)).max() > 1


def test_a_smoothed_picture_would_be_noticed(tmp_path):
    """The mutant of small_picture's check: enlarged with interpolation."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 19, 3), dtype=np.uint8)
    framed = Image.new("RGB", (19 * 4 + 2 * MARGIN, 40 + TITLE + 2 * MARGIN))
    enlarged = Image.fromarray(noise).resize((19 * 4, 40), Image.Resampling.BILINEAR)
    framed.paste(enlarged, (MARGIN, MARGIN + TITLE))
    framed.save(tmp_path / "x.png")
    with pytest.raises(AssertionError):
        small_picture(tmp_path / "x.png", 4)


@pytest.mark.parametrize("name", ["AE", "VAE"])
def test_random_images_follow_the_seed(tmp_path, photo_folder, name):
    """M28, M35, T22, R9: ten pictures, all different; the same seed, the same ones."""
    assert train(name, tmp_path, photo_folder).code == 0
    pictures = []
    for run, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(run)
        here = ("--out", folder, "--seed", seed)
        assert use("random_generation.py", name, tmp_path, *here) == (0, "", "")
        assert files_below(folder) == [f"vis/random_images_{name}.png"]
        pictures.append(small_picture(folder / "vis" / f"random_images_{name}.png", 12))
    assert pictures[0].shape == (10, 91, 3)
    tiles = {tile(pictures[0], 0, column, 8).tobytes() for column in range(10)}
    assert len(tiles) == 10
    assert np.array_equal(*pictures[:2]) and not np.array_equal(*pictures[1:])


# Same command, same bits -------------------------------------------------------


@pytest.mark.parametrize("name", TRAININGS)
def test_same_command_same_bits_and_another_seed_others(tmp_path, photo_folder, name):
    """P20, T12, T13; M9, M18, M40: the loss falls, the weights are of that name."""
    for run, seed in (("1", 3), ("2", 3), ("3", 4)):
        flags = ("--seed", seed, "--epochs", 8)
        result = train(name, tmp_path / run, photo_folder, *flags)
        assert (result.code, result.err) == (0, "")
    made = [files_below(tmp_path / run) for run in "123"]
    assert made[0] == made[1] == made[2]
    assert {f"models/{weights_name(name)}", f"log/{name}.csv"} < set(made[0])
    first, second, third = (tmp_path / run / "models" for run in "123")
    assert same_weights(first / weights_name(name), second / weights_name(name))
    assert not same_weights(first / weights_name(name), third / weights_name(name))
    rows = [without_seconds(tmp_path / run / "log" / f"{name}.csv") for run in "123"]
    assert rows[0] == rows[1] != rows[2]
    losses = [float(row["train_loss"]) for row in rows[0]]
    assert len(losses) == 8 and losses[-1] < losses[0]
    for file in made[0]:
        if file.endswith(".png"):
            assert np.array_equal(
                pixels(tmp_path / "1" / file), pixels(tmp_path / "2" / file)
            )

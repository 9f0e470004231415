"""P11 to P15, P17: files in the folder of photos."""

import os
import random
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import ImageFile

from tests.helpers.bad_photos import BAD, PNG, left_out, put
from tests.helpers.photos import JUNK, load, names, photo
from tests.helpers.pictures import JPEG, MODES
from tests.helpers.project import PROJECT
from utils.data.photos import decode_all


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the unbound end of a socket
def test_bad_photos(photo_folder, caplog, monkeypatch, report):
    """P11, P13, I09 to I14, I18, I19, I23: each is named, the others are used."""
    wrong, folder = [], photo_folder / "bellflower"
    monkeypatch.chdir(folder)  # paths of sockets must be short
    for kind, content in BAD.items():
        caplog.clear()
        put(folder / "bad.jpg", content)
        sides = load(photo_folder, 8, 24, 24)
        if sum(len(side.dataset) for side in sides) != 30 or len(left_out(caplog)) != 2:
            wrong.append(kind)
        (folder / "bad.jpg").unlink()
    report.add("P13", "kinds of bad photo, named and left out", len(BAD), len(wrong))
    assert wrong == [] and len(BAD) >= 24


def test_mutated_photos(photo_folder, caplog, report):
    """P11, P13: random bytes overwritten; the photo is used or named, never more."""
    rng, path, wrong, used = random.Random(0), photo_folder / "astilbe" / "x.jpg", 0, 0
    for trial in range(300):
        content = bytearray([JPEG, PNG][trial % 2])
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        caplog.clear()
        count = sum(len(side.dataset) for side in load(photo_folder, 8, 8, 8))
        used += count == 31
        named = len(left_out(caplog)) == 2 and str(path) in left_out(caplog)[0]
        wrong += not (count == 31 or (count == 30 and named))
    report.add("P11", "photos with overwritten bytes", 300, wrong, f"{used} readable")
    assert wrong == 0 and 0 < used < 300


def test_mutant_truncated_photos(photo_folder, caplog, monkeypatch):
    put(photo_folder / "astilbe" / "bad.jpg", BAD["JPEG, half"])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    load(photo_folder, 8, 24, 24)
    assert left_out(caplog) == []


def test_colour_modes(tmp_path, report):
    """P15, I13, I15 to I17."""
    wrong = []
    for mode, (content, colours, allowed) in MODES.items():
        (tmp_path / "x.jpg").write_bytes(content)
        images, _ = decode_all([tmp_path / "x.jpg"], 40, 32)
        expected = colours if colours.ndim == 3 else colours[..., None].repeat(3, 2)
        error = images[0].permute(1, 2, 0).numpy() - expected.astype(float)
        wrong += [mode] if np.abs(error).mean() > allowed else []
    report.add("P15", "colour modes within their bounds", len(MODES), len(wrong))
    assert wrong == [] and len(MODES) >= 11


def test_junk(photo_folder, caplog, report):
    """P14, I06 to I08."""
    wrong, before = [], names(photo_folder)
    for junk in JUNK:
        photo(photo_folder / junk)
        wrong += [junk] if names(photo_folder) != before or caplog.messages else []
        shutil.rmtree(photo_folder / junk, ignore_errors=True)
    report.add("P14", "files of systems and tools, ignored", len(JUNK), len(wrong))
    assert wrong == [] and len(JUNK) >= 10


def test_orders_of_creation(photo_folder, tmp_path, report):
    """P17: the same files, created in 5 orders and with other times."""
    files = sorted(p.relative_to(photo_folder) for p in photo_folder.rglob("*.png"))
    sides, wrong = load(photo_folder, 8, 24, 24), 0
    for trial in range(5):
        root, rng = tmp_path / str(trial), random.Random(trial)
        rng.shuffle(files)
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo_folder / name, root / name)
            os.utime(root / name, (rng.randrange(10**9),) * 2)
        again = load(root, 8, 24, 24)
        wrong += not all(
            torch.equal(a.dataset.images, b.dataset.images)
            and torch.equal(a.dataset.labels, b.dataset.labels)
            for a, b in zip(sides, again, strict=True)
        )
    report.add("P17", "orders of creation: the same split and bits", 5, wrong)
    assert wrong == 0


WRITES = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "unlink", "rename", "mkdir")


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_no_command_touches_the_photos(few_photos, tmp_path, report):
    """P12: no call of the four commands writes below the folder of photos."""
    out, wrong = tmp_path / "out", []
    small = ["--image-size", "8", "--epochs", "1", "--data", str(few_photos)]
    weights = ["--out", str(out)]
    commands = {
        "train_script.py": [*small, "--model", "AE"],
        "diffusion.py": [*small, "--channels", "16,32"],
        "visualization.py": ["--model", "AE", "--data", str(few_photos)],
        "random_generation.py": ["--model", "AE"],
    }
    traced = "openat,open,creat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat"
    for script, args in commands.items():
        log = tmp_path / "trace"
        start = ["strace", "-f", "-e", f"trace={traced}", "-o", str(log), "python"]
        subprocess.run([*start, PROJECT / script, *args, *weights], check=True)
        wrong += [
            line
            for line in log.read_text(errors="replace").splitlines()
            if f'"{few_photos}' in line and any(word in line for word in WRITES)
        ]
    report.add("P12", "commands that write among the photos, by strace", 4, len(wrong))
    assert wrong == []

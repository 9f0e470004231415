"""What the tests share: folders of photos, and commands run as processes."""

import os
import signal
from pathlib import Path

# Tests run side by side, one thread each; threads that wait leave the cores to others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

from tests.helpers.project import write_photos

# A shell lets what it starts with `&` ignore Ctrl-C, and our commands keep to that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config):
    """Run the whole quick suite in two processes, and anything else in this one.

    The other suites measure times.
    """
    whole = config.args_source is config.ArgsSource.TESTPATHS
    return 2 if whole and config.option.markexpr.startswith("not slow") else 0


@pytest.fixture(autouse=True)
def exact_products():
    """Undo what a command in this process chose for all products of float32."""
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def photo_folder(tmp_path):
    """Ten drawn photos of each kind, 40 x 32, as PNG files: thirty good ones."""
    return write_photos(tmp_path / "photos", 10)


@pytest.fixture(scope="session")
def real_photos(tmp_path_factory):
    """The three kinds of real photos, imported once; skips where there are none."""
    from tools import get_flowers

    archive = Path(os.environ.get("FLOWERS_PHOTOS", "")) / "flowers-3.zip"
    if not archive.is_file():
        pytest.skip("needs FLOWERS_PHOTOS, a folder that holds flowers-3.zip")
    root = tmp_path_factory.mktemp("real") / "flowers"
    get_flowers.main(["--from", str(archive), "--to", str(root)])
    return root


@pytest.fixture(scope="session")
def few_photos(tmp_path_factory):
    """64 drawn photos of 40 x 32 pixels, in three class folders."""
    root = write_photos(tmp_path_factory.mktemp("few") / "photos", 22)
    for name in ("bellflower", "calendula"):
        (root / name / sorted(p.name for p in (root / name).iterdir())[-1]).unlink()
    return root

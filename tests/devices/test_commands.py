"""Every command from its start to its files, on a simulated GPU without float64."""

import importlib
import json

import pytest
import torch

from tests.helpers.commands import files_below, train
from tests.helpers.devices import on_device
from tests.helpers.diffusion import SPECIES, save_small, small
from tests.helpers.project import write_photos
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.checkpoint.guide import save_guide
from utils.evaluation.features import FlowerFeatures
from utils.registry import build_model

MPS = "mps"
VISUALIZE = "tools.visualize.__main__"
# {place}: the folder of photos and weights; {out}: that of --out.
PHOTOS = "--data {place}/photos"
VAE = "--model VAE --weights {place}/vae.pth"
DIFFUSION = "--model diffusion --weights {place}/Best_diffusion.pkl"
FIGURES = (
    *("one_level", "estimates", "one_step", "denoise", "species", "guidance"),
    *("straightness", "interpolation", "inpaint"),
    "init --init {place}/photos/astilbe/000.png",
)
QUICK = [  # command, flags: its files are those of the CPU, to the bit
    ("random_generation", f"{VAE} --count 3"),
    ("random_generation", f"{VAE} --count 3 --save {{out}}/x.npy"),
    ("random_generation", f"{DIFFUSION} --count 3 --steps 3 --guidance 2"),
    ("random_generation", f"{DIFFUSION} --count 3 --steps 3 --save {{out}}/x.npy"),
    ("visualization", f"{VAE} {PHOTOS}"),
    (VISUALIZE, f"{VAE} {PHOTOS}"),
]
SLOW = [
    *(
        (VISUALIZE, f"{DIFFUSION} {PHOTOS} --steps 2 --count 2 --show {figure}")
        for figure in FIGURES
    ),
    ("tools.nearest_neighbours", f"{DIFFUSION} {PHOTOS} --count 40 --steps 1"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder of photos, weights, and an extractor of 12 features."""
    folder = tmp_path_factory.mktemp("simulated")
    write_photos(folder / "photos", 10)
    torch.manual_seed(0)
    save_checkpoint(folder / "features.pt", FlowerFeatures(SPECIES).half())
    args = {"encoding_dim": 4, "img_width": 8, "img_height": 8}
    data = {"classes": SPECIES, "count": 30, "source": "photos", "split_seed": 0}
    metadata = {"settings": {"image_size": 8}, "data": data | {"split": "0"}}
    save_checkpoint(folder / "vae.pth", build_model("VAE", **args), metadata)
    # The guide stands beside the weights, and is of the same training.
    path = save_small(folder / "Best_diffusion.pkl", bfloat16=False)
    weights, metadata = load_checkpoint(path)
    metadata["settings"] |= {"guide_at": 0.25, "autoguidance": 1.5}
    model = small(bfloat16=False)
    model.load_state_dict(weights)
    save_checkpoint(path, model, metadata)
    save_guide(folder, model, metadata)
    return folder


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Make figures and timings short."""
    for name, value in {
        "tools.visualize.animation.MIN_STEPS": 3,
        "tools.visualize.diffusion.TRAJECTORIES": 2,
        "tools.visualize.diffusion.PLOTTED": 2,
        "tools.benchmark.PLAIN": (2, 3, 8),
        "tools.benchmark.REPEATS": 1,
        "utils.experiment.PROBE_STEPS": 3,
        "utils.diffusion.unet.has_bfloat16_units": lambda device: False,
    }.items():
        monkeypatch.setattr(name, value)


def run(name, flags, place, out, device):
    """Run a command on the CPU or on the simulated device -> its folder of --out."""
    out.mkdir(exist_ok=True)
    words = [word.format(place=place, out=out) for word in flags.split()]
    words += [] if name == "tools.evaluate" else ["--out", str(out)]
    with on_device(MPS, simulated=True):
        importlib.import_module(name).main([*words, "--device", device])
    return out


@pytest.mark.parametrize(
    "name, flags",
    [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)],
)
def test_files_are_those_of_the_cpu(place, tmp_path, name, flags):
    """A real GPU rounds otherwise, so that they are nearly those."""
    here, there = (
        run(name, flags, place, tmp_path / device, device) for device in ("cpu", MPS)
    )
    names = files_below(here)
    assert names and files_below(there) == names
    for file in names:
        assert (here / file).read_bytes() == (there / file).read_bytes(), file


def test_an_evaluation_is_that_of_the_cpu(place, tmp_path, capsys):
    """Of a guided model and of an autoencoder with its reconstructions."""
    found = []
    for device in ("cpu", MPS):
        weights = "{place}/vae.pth {place}/Best_diffusion.pkl --steps 2"
        flags = (
            f"{weights} {PHOTOS} --count 12 --json --extractor {{place}}/features.pt"
        )
        run("tools.evaluate", flags, place, tmp_path, device)
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert {"nfe", "copies by features"} <= found[0][
        f"{place}/Best_diffusion.pkl"
    ].keys()


@pytest.mark.slow
def test_samplers_are_compared(place, tmp_path, monkeypatch):
    """Distances are those of the CPU; times are not, and their device is named."""
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    monkeypatch.setattr(
        "utils.evaluation.evaluate.find_extractor", lambda _, device: colours.to(device)
    )
    tiny, found = save_small(tmp_path / "tiny.pkl", n_steps=6), []
    flags = f"{tiny} {PHOTOS} --count 20 --nfe 2"
    for device in ("cpu", MPS):
        out = run("tools.compare_samplers", flags, place, tmp_path / device, device)
        found.append(json.loads((out / "log/compare_samplers_tiny.json").read_text()))
    assert "accelerator" not in found[0]["facts"]["machine"]
    assert found[1]["facts"]["machine"]["accelerator"] == MPS
    for here, there in zip(*(f["points"] for f in found), strict=True):
        assert here.pop("seconds_per_image") > 0 < there.pop("seconds_per_image")
        assert here == there


@pytest.mark.slow
def test_a_model_is_straightened(place, tmp_path):
    weights = "--weights {place}/Best_diffusion.pkl --couplings 20 --epochs 1"
    out = run("tools.reflow", weights, place, tmp_path, MPS)
    assert {"models/Best_diffusion_fast.pkl", "vis/reflow_diffusion.png"} <= {
        *files_below(out)
    }


@pytest.mark.slow
def test_an_extractor_is_trained(place, tmp_path, capsys):
    flags = f"{PHOTOS} --epochs 1 --batch-size 16 --model features_b"
    out = run("tools.train_features", flags, place, tmp_path, MPS)
    weights, _ = load_checkpoint(out / "models" / "features_b.pt")
    assert {weight.device.type for weight in weights.values()} == {"cpu"}
    assert capsys.readouterr().out.startswith("Epoch: 0, Train Loss: ")


@pytest.mark.slow
def test_a_step_is_timed(place, tmp_path):
    flags = "--channels 16 --batch-size 2"
    out = run("tools.benchmark", flags, place, tmp_path, MPS)
    found = json.loads((out / "log" / "throughput_diffusion.json").read_text())
    assert found["machine"]["accelerator"] == MPS and found["seconds_per_step"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MLPAE", "AE", "VAE", "diffusion"])
def test_a_training_with_all_its_pictures(place, tmp_path, name):
    """Priors, guide, samples of the best weights: all that follows the epochs."""
    flags = ["--guide-at", "0.5"] if name == "diffusion" else []
    with on_device(MPS, simulated=True):
        result = train(name, tmp_path, place / "photos", *flags, "--device", MPS)
    assert result.code == 0, result.err
    assert result.err == ""

"""Scripts of the starter kit's form work with our modules beside them (B.6)."""

import shutil

import pytest

from tests.helpers.project import PROJECT, python, write_photos

HEAD = """
import argparse, os
import numpy as np
import torch
import torch.nn.functional as F
from Autoencoder import AE_ENCODING_DIM, Autoencoder
from MLPAutoencoder import MLPAE_ENCODING_DIM, MLPAutoencoder
from VarAutoencoder import VAE_ENCODING_DIM, VAE_loss_function, VarAutoencoder
from utils.data_processor import create_flower_dataloaders, show_recover_results
from utils.scheduler import exponential_decay
from utils.train import train

torch.manual_seed(0)
np.random.seed(0)
parser = argparse.ArgumentParser()
parser.add_argument("--model", choices=["VAE", "AE", "MLPAE"], default="AE")
name = parser.parse_args().model
device = torch.device("cpu")
size = 24, 24
if name == "MLPAE":
    model = MLPAutoencoder(MLPAE_ENCODING_DIM, *size)
elif name == "AE":
    model = Autoencoder(AE_ENCODING_DIM)
else:
    model = VarAutoencoder(VAE_ENCODING_DIM)
path = f"./models/Best_{name}." + ("pkl" if name == "MLPAE" else "pth")
"""
TRAIN = """
lr = 1e-4 if name == "VAE" else 1.0  # with the kit's 1.0 the VAE diverges
training, validation = create_flower_dataloaders(16, "./flowers", *size)
optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.0)
train(
    optimizer=optimizer,
    scheduler=exponential_decay(lr, 0.9, 10),
    model=model,
    training_dataloader=training,
    validation_dataloader=validation,
    num_epochs=2,
    early_stopping_patience=5,
    device=device,
    model_save_root="./models",
    loss_fn=VAE_loss_function if name == "VAE" else F.mse_loss,
)
"""
SHOW = """
print(f"using device {device}")
model.load_state_dict(torch.load(path))
model.eval()
os.makedirs("./vis", exist_ok=True)
loaders = create_flower_dataloaders(16, "./flowers", *size)
for side, loader in zip(("train", "valid"), loaders):
    images, _ = next(iter(loader))
    with torch.no_grad():
        outputs = model(images)
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    show_recover_results(images, outputs, f"./vis/{side}_{name}.png")
"""
GENERATE = """
model.load_state_dict(torch.load(path))
os.makedirs("./vis", exist_ok=True)
with torch.no_grad():
    random_images = model.decoder(torch.randn(10, 64))
assert random_images.shape == (10, 3, 24, 24)
assert 0 <= random_images.min() and random_images.max() <= 1
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A folder with the kit's scripts, our modules and utils/, and photos."""
    root = tmp_path_factory.mktemp("kit")
    for name in ("MLPAutoencoder.py", "Autoencoder.py", "VarAutoencoder.py"):
        shutil.copy(PROJECT / name, root)
    shutil.copytree(PROJECT / "utils", root / "utils")
    write_photos(root / "flowers", 10)
    (root / "train_script.py").write_text(HEAD + TRAIN)
    (root / "visualization.py").write_text(HEAD + SHOW)
    (root / "random_generation.py").write_text(HEAD + GENERATE)
    return root


DRIVER = """
import runpy, sys
for line in sys.argv[1:]:
    print(line)
    sys.argv = line.split()
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_kits_scripts_train_show_and_generate(kit):
    """B.4, B.5, B.6, C1: only the epoch lines are printed; files are where it looks."""
    printed = {}  # by a command: the beginnings of its lines
    for name in ("MLPAE", "AE", "VAE"):
        printed[f"train_script.py --model {name}"] = ["Epoch: 0", "Epoch: 1"]
        printed[f"visualization.py --model {name}"] = ["using device cpu"]
        if name != "MLPAE":  # the kit generates with two
            printed[f"random_generation.py --model {name}"] = []
    (kit / "driver.py").write_text(DRIVER)
    done = python("driver.py", *printed, cwd=kit)
    assert done.returncode == 0, done.stderr
    lines = [line.split(", Train Loss")[0] for line in done.stdout.splitlines()]
    assert lines == [text for line, said in printed.items() for text in (line, *said)]
    assert len(list((kit / "vis").glob("*.png"))) == 6

"""What decoding the photos once is worth (marked slow: about ten minutes)."""

import time

import pytest

from tests.helpers.project import PROJECT, run_command

pytestmark = pytest.mark.slow

FROM_DISK = """
import sys, torch, torch.nn.functional as F
from torchvision import datasets, transforms
sys.path.insert(0, sys.argv[1])
from MLPAutoencoder import MLPAutoencoder
from utils.scheduler import exponential_decay
torch.manual_seed(0)
steps = [transforms.Resize((24, 24)), transforms.ToTensor()]
photos = datasets.ImageFolder(sys.argv[2], transforms.Compose(steps))
cut = int(0.8 * len(photos))
sides = torch.utils.data.random_split(photos, [cut, len(photos) - cut])
training = torch.utils.data.DataLoader(sides[0], 16, shuffle=True)
validation = torch.utils.data.DataLoader(sides[1], 16)
model = MLPAutoencoder(64, 24, 24)
optimizer = torch.optim.SGD(model.parameters(), 1.0)
scheduler = exponential_decay(1.0, 0.9, 10)
for epoch in range(int(sys.argv[3])):
    for group in optimizer.param_groups:
        group["lr"] = scheduler(epoch)
    losses = []
    for images, _ in training:
        optimizer.zero_grad()
        loss = F.mse_loss(model(images), images)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if epoch % 3 == 0:
        with torch.no_grad():
            [F.mse_loss(model(images), images).item() for images, _ in validation]
    print(epoch, sum(losses) / len(losses), flush=True)
"""


def test_a_fifth_of_the_time(tmp_path, real_photos):
    """The whole MLPAE command against the same with photos read in every epoch."""
    out = tmp_path / "out"
    start = time.perf_counter()
    ours = run_command(
        "train_script.py", "--model", "MLPAE", "--data", real_photos, "--out", out
    )
    middle = time.perf_counter()
    epochs = len(ours.stdout.splitlines())
    program = tmp_path / "from_disk.py"
    program.write_text(FROM_DISK)
    theirs = run_command(str(program), PROJECT, real_photos, epochs, timeout=3000)
    end = time.perf_counter()
    assert ours.returncode == theirs.returncode == 0, ours.stderr + theirs.stderr
    assert len(theirs.stdout.splitlines()) == epochs
    print(f"{epochs} epochs: {middle - start:.1f} s against {end - middle:.1f} s")
    assert middle - start <= (end - middle) / 5

"""The picture of a latent space."""

import pytest
import torch
from PIL import Image

from tests.conftest import write_photos
from tools import explore
from utils.checkpoint import save_checkpoint
from utils.cli import UserError
from utils.registry import build_model


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("explore") / "photos", 12)


@pytest.mark.parametrize(
    "name, encoding_dim", [("MLPAE", 5), ("AE", 1), ("VAE", 1), ("VAE", 6)]
)
def test_every_autoencoder_gets_its_picture(photos, tmp_path, name, encoding_dim):
    model = build_model(name, encoding_dim=encoding_dim, img_width=24, img_height=24)
    save_checkpoint(tmp_path / "w.pth", model)
    where = f"--data {photos} --out {tmp_path} --weights {tmp_path / 'w.pth'}"
    explore.main(["--model", name, *where.split()])
    with Image.open(tmp_path / "vis" / f"latent_{name}.png") as picture:
        assert min(picture.size) > 500


def test_walks_lead_from_photo_to_photo():
    """Two rows a pair, line and arc, from one reconstruction to the other."""
    torch.manual_seed(0)
    model = build_model("AE", encoding_dim=8, img_width=24, img_height=24).eval()
    photos = torch.rand(4, 3, 24, 24)
    rows = explore.walks(model, photos).view(4, explore.STEPS, 3, 24, 24)
    with torch.no_grad():
        ends = model(photos)
    for row, pair in zip(rows, (0, 0, 2, 2), strict=True):
        torch.testing.assert_close(row[0], ends[pair], atol=1e-5, rtol=0)
        torch.testing.assert_close(row[-1], ends[pair + 1], atol=1e-5, rtol=0)
    assert not torch.allclose(rows[0], rows[1], atol=1e-4)


def test_dimensions_of_a_vae_are_its_kl(photos):
    """One bar a dimension, whose sum is the KL; of others the variance of the codes."""
    images = torch.rand(20, 3, 24, 24)
    vae = build_model("VAE", encoding_dim=6, img_width=24, img_height=24).eval()
    bars, what, title = explore.dimensions(vae, images, None)
    assert what == "KL (nats)" and len(bars) == 6 and "of 6" in title
    assert sum(bars) == pytest.approx(
        vae.details(images)["kl"].sum(1).mean().item(), rel=1e-4
    )
    codes = torch.randn(500, 3) * torch.tensor([1.0, 2.0, 3.0])
    ae = build_model("AE", encoding_dim=3, img_width=24, img_height=24)
    bars, what, _ = explore.dimensions(ae, images, codes)
    assert what == "variance" and sum(bars) == pytest.approx(
        codes.var(0).sum().item(), rel=1e-4
    )


def test_too_few_photos_are_refused(tmp_path):
    """One validation photo leads nowhere."""
    root = write_photos(tmp_path / "few", 1)
    save_checkpoint(tmp_path / "w.pth", build_model("AE", encoding_dim=2))
    options = f"--model AE --data {root} --weights {tmp_path / 'w.pth'}"
    with pytest.raises(UserError, match="two of validation, got 2 and 1"):
        explore.main([*options.split(), "--out", str(tmp_path)])

"""Pictures and codes of the page: encodings, axes, and what is left out."""

import base64

import pytest
import torch

from tools.playground import content
from utils.cli import UserError
from utils.data.synthetic import draw_flowers
from utils.evaluation.linear_baselines import fit_pca


def test_pixels_are_rows_of_rgb_bytes():
    image = torch.zeros(1, 3, 24, 24)
    image[0, :, 2, 5] = torch.tensor([1.0, 0.5, -3.0])  # row 2, column 5
    (text,) = content.pixels(image)
    found = base64.b64decode(text)
    start = 3 * (2 * 24 + 5)
    assert len(found) == 3 * 24 * 24
    assert tuple(found[start : start + 3]) == (255, 128, 0)
    assert sum(found) == 255 + 128


def test_rounded_keeps_significant_digits():
    values = torch.tensor([[1234.5678, -0.00012345]], dtype=torch.float64)
    assert content.rounded(values) == [[1235.0, -0.0001234]]


def test_drawn_flowers_take_the_species_in_turn():
    images, labels = content.drawn(7, seed=2)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    expected, _ = draw_flowers(3, 24, 24, seed=2)
    assert torch.equal(images[4], expected[4].float() / 255)  # the second bellflower


def test_axes_are_those_of_largest_variance_with_a_direction():
    torch.manual_seed(0)
    codes = torch.randn(400, 16) * torch.arange(16, 0, -1) + 3
    mean, axes, deviations = content.principal_axes(codes)
    assert torch.allclose(axes @ axes.T, torch.eye(content.AXES).double(), atol=1e-9)
    assert (deviations[:-1] >= deviations[1:]).all()
    values = torch.linalg.eigvalsh(torch.cov(codes.double().T)).flip(0)
    assert torch.allclose(deviations**2, values[: content.AXES], rtol=1e-6)
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()
    # The opposite codes have the same axes, with the same direction.
    _, mirrored, _ = content.principal_axes(-codes)
    assert torch.allclose(axes, mirrored, atol=1e-6)


def test_without_any_file_every_section_is_left_out_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "REFERENCE", 12)
    facts, left_out = content.content(tmp_path)
    sections = ("reconstruction", "latent", "history", "errors", "quality", "copies")
    assert not set(sections) & set(facts) and len(left_out) == len(sections) + 1
    assert any("models/Best_MLPAE.pkl" in line for line in left_out)
    assert facts["reference"] == {"count": 12, "source": "drawn"}
    assert facts["examples"]["kinds"] == ("drawn",) * 3


def test_a_damaged_model_is_refused(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "Best_AE.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="Best_AE"):
        content.load(tmp_path, "AE")


def test_the_control_is_the_best_linear_code(monkeypatch):
    """Errors fall with the components, and those of all of them vanish."""
    monkeypatch.setattr(content, "AUTOENCODERS", ())
    monkeypatch.setattr(content, "COMPONENTS", (1, 4, 20))
    fitted, _ = content.drawn(21, seed=1)
    found = content.control(fitted[:3], fitted)
    errors = torch.tensor([row["errors"] for row in found])
    assert (errors[:-1] > errors[1:]).all() and errors[-1].max() < 1e-9
    expected = fit_pca(fitted, 4).reconstruct(fitted[:3]) - fitted[:3]
    assert found[1]["errors"] == content.rounded(expected.square().mean(dim=(1, 2, 3)))

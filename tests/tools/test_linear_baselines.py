"""The command that prints what linear models reach."""

import re

import pytest
import torch

from tools import linear_baselines
from utils.data_processor import create_flower_dataloaders


def test_it_prints_the_residual_variance(place, capsys):
    """The error of PCA on training photos is the sum of the other eigenvalues."""
    root = place / "photos"
    line = f"--data {root} --encoding-dim 5 --image-size 8"
    linear_baselines.main(line.split())
    first, second = capsys.readouterr().out.splitlines()
    train, valid = map(float, re.findall(r"0\.\d{5}", first))
    training, _ = create_flower_dataloaders(16, root, 8, 8)
    flat = training.dataset.all_images().flatten(1).double()
    values = torch.linalg.eigvalsh(flat.T.cov(correction=0))  # ascending
    assert train == pytest.approx(values[:-5].sum().item() / 192, abs=1e-5)
    bounds = map(float, re.findall(r"\d+\.\d", second))
    assert valid > train > 0 and all(bound > 0 for bound in bounds)

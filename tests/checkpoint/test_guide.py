"""The guide of a diffusion model: an early copy of it, in a file beside its weights."""

from functools import partial

import pytest
import torch

from tests.helpers.diffusion import randomize_zeros, small
from tests.helpers.training import DATA
from utils.checkpoint import (
    load_checkpoint,
    load_guide,
    save_checkpoint,
    save_guide,
)
from utils.checkpoint.resume import keep_previous
from utils.cli import UserError
from utils.files import temporary

METADATA = {"seed": 0, "settings": {"guide_at": 0.25, "count": 0}, "data": DATA}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return randomize_zeros(small())


def test_a_guide_is_the_model_in_half_precision(model, tmp_path):
    """Its weights are half as large; the model itself stays as it is."""
    save_guide(tmp_path, model, METADATA, epoch=3)
    path = tmp_path / "Guide_diffusion.pkl"
    weights, metadata = load_checkpoint(path)
    assert metadata["epoch"] == 3 and model.network.conv_in.weight.dtype == torch.float
    assert {value.dtype for value in weights.values()} == {torch.float16}
    guide = load_guide(small, tmp_path / "Best_diffusion.pkl", metadata)
    for name, value in model.state_dict().items():
        found = guide.state_dict()[name]
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-4)
    assert not guide.training


def test_the_rest_of_a_killed_save_is_replaced(model, tmp_path):
    """P1, P5: a resumed run saves the guide where a killed one had begun to."""
    rest = temporary(tmp_path / "Guide_diffusion.pkl")
    rest.write_bytes(b"begun")
    save_guide(tmp_path, model, METADATA)
    assert not rest.exists() and load_checkpoint(tmp_path / "Guide_diffusion.pkl")


def test_a_copy_of_replaced_weights_has_a_guide(model, tmp_path):
    """Both are kept by a new training, which replaces them one after the other."""
    best, metadata = tmp_path / "Best_diffusion.pkl", METADATA | {"model": "diffusion"}
    save_checkpoint(best, model, METADATA)
    save_guide(tmp_path, model, METADATA)
    first = (tmp_path / "Guide_diffusion.pkl").read_bytes()
    temporary(tmp_path / "Previous_diffusion.pkl").write_bytes(b"begun")
    keep_previous(best, DATA)
    (tmp_path / "Guide_diffusion.pkl").write_bytes(b"of the new training")
    assert (tmp_path / "Previous_Guide_diffusion.pkl").read_bytes() == first
    assert load_guide(small, tmp_path / "Previous_diffusion.pkl", metadata)
    with pytest.raises(UserError, match="/Guide_diffusion.pkl"):
        load_guide(small, best, metadata)


def test_a_guide_follows_the_model(model):
    """To another device and another type."""
    model.set_guide(small())
    model.double()
    assert {p.dtype for p in model.guide.parameters()} == {torch.float64}
    model.to("meta")
    assert {p.device.type for p in model.guide.parameters()} == {"meta"}
    # A guide that is set later, as after a training.
    model.set_guide(small())
    assert {p.device.type for p in model.guide.parameters()} == {"meta"}


def test_a_run_of_a_constant_rate_keeps_its_guide_for_more_epochs(model, tmp_path):
    """Such a run can be resumed with another number; of a cycle it is another run."""
    for scheduler, kept in (("constant", True), ("onecycle", False)):
        settings = {"guide_at": 0.25, "scheduler": scheduler, "epochs": 40}
        metadata = METADATA | {"model": "diffusion", "settings": settings}
        save_guide(tmp_path, model, metadata)
        more = metadata | {"settings": settings | {"epochs": 80}}
        guide = load_guide(small, tmp_path / "Best_diffusion.pkl", more)
        assert (guide is not None) == kept


def test_a_guide_is_no_part_of_the_model(model):
    """Neither of its weights nor of its parameters; it can be removed."""
    names = list(model.state_dict())
    model.set_guide(small())
    assert list(model.state_dict()) == names == list(dict(model.named_parameters()))
    model.set_guide(None)
    assert model.guide is None


@pytest.mark.parametrize("key", ["seed", "settings", "data"])
def test_the_guide_of_another_training_is_not_used(model, tmp_path, caplog, key):
    """A warning names the file; so it does if there is none."""
    load = partial(load_guide, small, tmp_path / "Best_diffusion.pkl")
    metadata = METADATA | {"model": "diffusion"}
    assert load(metadata) is None
    assert "Guide_diffusion.pkl is missing: samples are not guided" in caplog.text
    save_guide(tmp_path, model, METADATA)
    other = metadata | {key: 7 if key == "seed" else metadata[key] | {"count": 1}}
    assert load(other) is None and "is of another training" in caplog.text
    # A setting that is newer than the guide's file says nothing.
    newer = metadata | {"settings": metadata["settings"] | {"patch": 1}}
    caplog.clear()
    assert load(metadata) is not None and load(newer) is not None
    assert not caplog.records


def test_weights_whose_training_saved_none_need_no_guide(tmp_path, caplog):
    metadata = {"settings": {"guide_at": 0.0}, "model": "diffusion"}
    assert load_guide(small, tmp_path / "Best_diffusion.pkl", metadata) is None
    assert not caplog.records


def test_a_guide_that_does_not_fit_is_refused(model, tmp_path):
    """P9: with the name of its file."""
    save_guide(tmp_path, model, METADATA)
    wider = partial(small, channels=(32, 64))
    with pytest.raises(UserError, match="Guide_diffusion.pkl"):
        load_guide(wider, tmp_path / "x", METADATA | {"model": "diffusion"})

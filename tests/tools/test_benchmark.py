"""The command that times a training step and tells where the time goes."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.project import run_command
from tools import benchmark
from utils.config import PRESETS

CPU = torch.device("cpu")
TINY = replace(PRESETS["diffusion"][0], channels=(16, 32), batch_size=4, image_size=8)


def test_operations_of_a_known_convolution_are_counted_right():
    """Two for each of B x H x W x C_in x C_out x 3 x 3; three times that in training.

    The first layer of a network has no gradient of its input to work out.
    """
    layer = torch.nn.Conv2d(5, 7, 3, padding=1)
    x = torch.randn(2, 5, 6, 4)
    forward = 2 * 2 * 6 * 4 * 5 * 7 * 9
    assert benchmark.count_flops(lambda: layer(x)) == forward
    assert benchmark.count_flops(lambda: layer(x).sum().backward()) == 2 * forward
    x.requires_grad_()
    assert benchmark.count_flops(lambda: layer(x).sum().backward()) == 3 * forward


def test_the_plain_convolution_has_a_speed_in_either_precision(monkeypatch):
    monkeypatch.setattr(benchmark, "PLAIN", (2, 3, 8))
    for precision in ("bf16", "fp32"):
        assert 0 < benchmark.plain_convolution(precision, CPU) < 1e15


@pytest.mark.parametrize(
    "name, above, group",
    [
        ("aten::mkldnn_convolution", None, "convolution, forward"),
        ("aten::convolution_backward", None, "convolution, backward"),
        ("ConvolutionBackward0", None, "convolution, backward"),
        ("aten::native_group_norm_backward", None, "normalization"),
        ("aten::silu", None, "activation"),
        ("aten::addmm", None, "attention and matrix products"),
        ("aten::_softmax", None, "attention and matrix products"),
        ("aten::_to_copy", None, "casts and copies"),
        ("aten::add_", None, "element-wise"),
        ("aten::embedding", None, "rest"),
        ("aten::mm", "Optimizer.step#Muon.step", benchmark.OPTIMIZER),
        ("aten::mm", "aten::linear", "attention and matrix products"),
    ],
)
def test_operations_have_a_group(name, above, group):
    parent = above and SimpleNamespace(name=above, cpu_parent=None)
    event = SimpleNamespace(name=name, cpu_parent=parent)
    assert benchmark.group_of(event) == group


def test_shares_are_of_the_whole_time():
    """1 + 3 of 8 microseconds in two groups, the rest in a third."""
    times = (("aten::conv2d", 1), ("aten::convolution", 3), ("aten::view", 4))
    found = benchmark.time_proportions(
        SimpleNamespace(name=name, cpu_parent=None, self_cpu_time_total=time)
        for name, time in times
    )
    assert found.pop("convolution, forward") == 0.5 and found.pop("rest") == 0.5
    assert set(found.values()) == {0.0}


def test_a_step_is_one_of_training(monkeypatch):
    """Every weight moves, and the running average after it."""
    torch.manual_seed(0)
    kept = []
    monkeypatch.setattr(
        "utils.optim.factory.AveragedModel.update_parameters",
        lambda averaged, model: kept.append(averaged.module),
    )
    model, optimizer, batch_loss, *batch = benchmark.prepare_step(
        TINY, "diffusion", CPU
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(3):  # the zeros at the end of the branches let gradients in late
        optimizer.zero_grad()
        batch_loss(model, *batch).backward()
        optimizer.step()
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == [] and len(kept) == 3 and kept[0] is not model


def test_facts_fit_together(monkeypatch):
    """Rates are the counts over the time; shares sum to 1; each group took time."""
    monkeypatch.setattr(benchmark, "PLAIN", (2, 3, 8))
    monkeypatch.setattr("tools.benchmark.seconds_per_step", lambda *_: 0.25)
    found = benchmark.measure(TINY, "diffusion", CPU)
    assert found["photos_per_second"] == 4 / 0.25
    in_a_step = 4 * found["operations_per_photo"]
    assert found["teraflops"] == pytest.approx(in_a_step / 0.25 / 1e12)
    assert found["operations_of_optimizer"] > 0  # Muon's matrix products
    assert sum(found["proportions"].values()) == pytest.approx(1)
    assert all(proportion > 0 for proportion in found["proportions"].values())
    assert {"processor", "cores", "threads", "torch"} <= found["machine"].keys()
    assert json.loads(json.dumps(found))["settings"]["channels"] == [16, 32]


def test_the_command_writes_what_it_tells(tmp_path):
    """stdout is the table of the file's numbers; stderr stays empty."""
    flags = ["--channels", "16", "--batch-size", "2", "--device", "cpu", "--out"]
    done = run_command("tools.benchmark", *flags, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "log" / "throughput_diffusion.json").read_text())
    assert done.stdout.splitlines() == benchmark.table(found)
    assert found["settings"]["batch_size"] == 2
    refused = run_command("tools.benchmark", "--precision", "fp8")
    assert refused.returncode == 2 and "fp8" in refused.stderr

"""The command that times a training step and shows where the time goes."""

import json
from dataclasses import replace

import pytest
import torch

from tests.helpers.project import run_command
from tools import benchmark
from utils.config import PRESETS

CPU = torch.device("cpu")
TINY = replace(PRESETS["diffusion"][0], channels=(16, 32), batch_size=4, image_size=8)
SMALL_LINE = ["--channels", "16", "--batch-size", "2", "--device", "cpu", "--out"]


@pytest.fixture
def small_convolution(monkeypatch):
    """Time a small plain convolution: bfloat16 is slow without units for it."""
    monkeypatch.setattr(benchmark, "PLAIN", (2, 3, 8))


def test_operations_of_a_known_convolution_are_counted():
    """Two for each of B x H x W x C_in x C_out x 3 x 3; three times that in training.

    The first layer of a network needs no gradient of its input.
    """
    layer = torch.nn.Conv2d(5, 7, 3, padding=1)
    x = torch.randn(2, 5, 6, 4)
    # Padding counts as pixels do, and the bias is not counted.
    forward = 2 * 2 * 6 * 4 * 5 * 7 * 9
    assert benchmark.count_flops(lambda: layer(x)) == forward
    # The gradient of the weights, then also that of the input.
    assert benchmark.count_flops(lambda: layer(x).sum().backward()) == 2 * forward
    x.requires_grad_()
    assert benchmark.count_flops(lambda: layer(x).sum().backward()) == 3 * forward


def test_the_step_is_one_of_training(monkeypatch):
    """Every weight changes, and the moving average is updated after each step."""
    torch.manual_seed(0)
    averaged = []
    monkeypatch.setattr(
        "utils.optim.factory.AveragedModel.update_parameters",
        lambda average, model: averaged.append(average.module),
    )
    step = benchmark.prepare_step(TINY, "diffusion", CPU)
    model, optimizer, batch_loss, *batch = step
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    # Weights before a layer of zeros have no gradient in the first steps.
    for _ in range(3):
        optimizer.zero_grad()
        batch_loss(model, *batch).backward()
        optimizer.step()
    same = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert same == [] and len(averaged) == 3 and averaged[0] is not model


def test_facts_are_consistent(small_convolution, monkeypatch):
    """Rates are counts over the time; proportions sum to 1, all above 0."""
    monkeypatch.setattr(benchmark, "seconds_per_step", lambda *_: 0.25)
    found = benchmark.measure(TINY, "diffusion", CPU)
    # 4 photos per step of 0.25 s.
    assert found["photos_per_second"] == 4 / 0.25
    per_step = 4 * found["operations_per_photo"]
    assert found["teraflops"] == pytest.approx(per_step / 0.25 / 1e12)
    assert found["operations_of_optimizer"] > 0  # Muon's matrix products
    assert sum(found["proportions"].values()) == pytest.approx(1)
    assert all(proportion > 0 for proportion in found["proportions"].values())
    assert any("convolution" in name for name in found["proportions"])
    # The plain convolution has a speed in either precision.
    plain = found["plain_convolution_teraflops"]
    assert plain.keys() == {"bf16", "fp32"} and 0 < min(plain.values()) < 1000
    # What the report reads.
    assert {"processor", "cores", "threads", "torch"} <= found["machine"].keys()
    assert json.loads(json.dumps(found))["settings"]["channels"] == [16, 32]


def test_the_command_prints_the_numbers_of_its_file(
    small_convolution, tmp_path, capsys
):
    benchmark.main([*SMALL_LINE, str(tmp_path)])
    found = json.loads((tmp_path / "log" / "throughput_diffusion.json").read_text())
    # stdout is the table of the file, and flags replace the preset.
    assert capsys.readouterr().out.splitlines() == benchmark.table(found)
    assert found["settings"]["batch_size"] == 2


@pytest.mark.slow  # by its plain convolution in bfloat16, without units for it
def test_the_profiler_prints_nothing(tmp_path):
    done = run_command("tools.benchmark", *SMALL_LINE, tmp_path)
    # On stderr the profiler would report its start and end; the file is named there.
    path = tmp_path / "log" / "throughput_diffusion.json"
    assert (done.returncode, done.stderr) == (0, f"tools.benchmark: wrote {path}\n")
    assert len(done.stdout.splitlines()) == 4 + benchmark.SHOWN + 1


def test_an_unknown_precision_is_refused():
    refused = run_command("tools.benchmark", "--precision", "fp8")
    assert refused.returncode == 2 and "fp8" in refused.stderr

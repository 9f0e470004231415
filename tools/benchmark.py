"""Time a training step of a diffusion model, and show where the time goes.

python -m tools.benchmark
python -m tools.benchmark --batch-size 32 --precision fp32

For comparison the speed of plain 3 x 3 convolutions on this machine. The step is that
of diffusion.py on drawn flowers: loss, gradients, optimizer, moving average. Also
writes log/throughput_NAME.json. Nothing else should run at the same time.
"""

import os
import time
from collections import Counter
from dataclasses import asdict, fields
from statistics import median

from utils.cli import guard, run
from utils.cli.arguments import command_line
from utils.config import (
    SPECIES,
    TRAINED_MODELS,
    DiffusionSettings,
    SamplerConfig,
    fields_named,
    settings_for,
)

FLAGS = "--model --device --out"
REPEATS = 3  # timings of a step, of which the median counts
PROFILED_STEPS = 4  # after one that is not profiled
PLAIN = (128, 64, 24)  # images, channels and pixels per side of the plain convolution
PLAIN_CALLS = 20  # of which the median time counts
TERA = 1e12
SHOWN = 12  # operations with the most time; the others are added up


def parse(argv=None):
    """Return (checked command line, settings of the training)."""
    line = command_line(
        __doc__,
        *FLAGS.split(),
        settings=fields_named(DiffusionSettings, "batch_size", "channels", "precision"),
        choices={"--model": TRAINED_MODELS},
        model="diffusion",
    )
    args = line.parse_args(argv)
    return args, settings_for(args, args.model)


if __name__ == "__main__":
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler prints on stderr
    guard(parse)

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from diffusion import build, training_loss
from utils.data.synthetic import draw_flowers
from utils.device import machine_facts, prepare_device, set_seeds, synchronize
from utils.experiment import seconds_per_step
from utils.files import prepare_folder, write_json
from utils.optim.factory import prepare_training


def prepare_step(settings, name, device):
    """Return (model, optimizer, loss, photos (B, 3, S, S), labels (B,)) of a step."""
    # Drawn flowers, equally many of each species, cut to a batch.
    count, size = settings.batch_size, settings.image_size
    images, labels = draw_flowers(-(-count // len(SPECIES)), size, size)
    # The average is updated after every step; the schedule's length does not matter.
    model = build(settings, len(SPECIES), name)
    model.to(device, memory_format=torch.channels_last).train()
    optimizer, _, ema = prepare_training(settings, model, 1000)
    if ema:
        optimizer.register_step_post_hook(lambda *_: ema.update_parameters(model))
    photos = images[:count].float().to(device) / 255
    return model, optimizer, training_loss(settings), photos, labels[:count]


def count_flops(call):
    """Return the floating-point operations of call(), two per multiply-add."""
    # Those of convolutions and matrix products: torch.utils.flop_counter.
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@torch.no_grad()
def plain_convolution(precision, device):
    """Return operations per second of a 3 x 3 convolution, forward, channels last."""
    # Weights and images have this precision, without autocast.
    count, channels, size = PLAIN
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(device, dtype)
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(count, channels, size, size, device=device, dtype=dtype)
    x, times = x.to(memory_format=torch.channels_last), []
    # The first calls, which choose a kernel, do not move the median.
    for _ in range(PLAIN_CALLS):
        start = time.perf_counter()
        layer(x)[0, 0, 0, 0].item()  # waits for an asynchronous device
        times.append(time.perf_counter() - start)
    return count_flops(lambda: layer(x)) / median(times)


def profile_step(step, device):
    """Return {operation: its proportion of the time of step() on a device}."""
    # On MPS, which the profiler does not measure, of the time of the processor.
    activities, measure = [ProfilerActivity.CPU], "self_cpu_time_total"
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        measure = "self_device_time_total"
    step()  # allocates memory
    with profile(activities=activities) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
        synchronize(device)
    # The time of an operation excludes that of the operations which it calls, and is
    # that of its kernels, which CUDA lists once more.
    events = [e for e in profiler.key_averages() if e.device_type == DeviceType.CPU]
    times = Counter({e.key: getattr(e, measure) for e in events})
    total = times.total()
    found = {name: time / total for name, time in times.most_common(SHOWN)}
    return found | {"rest": 1 - sum(found.values())}


def measure(settings, name, device):
    """Return all facts of the step and of the machine, in plain types."""
    # Time first, since the profiler slows steps down.
    model, optimizer, batch_loss, *batch = prepare_step(settings, name, device)
    seconds = median(
        seconds_per_step(model, optimizer, batch_loss, *batch) for _ in range(REPEATS)
    )

    # The two parts of a step, which are counted and profiled apart.
    def gradients():
        optimizer.zero_grad()
        batch_loss(model, *batch).backward()

    def step():
        gradients()
        optimizer.step()

    # No step depends on how images are sampled.
    sampling = {f.name for f in fields(SamplerConfig)}
    # Counted, not estimated; the optimizer is not part of the network.
    flops = count_flops(gradients)
    return {
        "machine": machine_facts(device),
        "model": name,
        "settings": {k: v for k, v in asdict(settings).items() if k not in sampling},
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_per_step": seconds,
        "photos_per_second": settings.batch_size / seconds,
        "operations_per_photo": flops / settings.batch_size,
        "operations_of_optimizer": count_flops(optimizer.step),
        "teraflops": flops / seconds / TERA,
        "plain_convolution_teraflops": {
            precision: plain_convolution(precision, device) / TERA
            for precision in ("bf16", "fp32")
        },
        "proportions": profile_step(step, device),
    }


def table(found):
    """Facts -> lines of text."""
    plain, parts = found["plain_convolution_teraflops"], found["proportions"]
    lines = [
        ("photos per second", f"{found['photos_per_second']:.1f}"),
        ("TFLOP/s of the network", f"{found['teraflops']:.3f}"),
        *((f"TFLOP/s of a convolution, {p}", f"{v:.3f}") for p, v in plain.items()),
        *((f"time: {name}", f"{v:.1%}") for name, v in parts.items()),
    ]
    return [f"{name:<48}{value:>8}" for name, value in lines]


def main(argv=None):
    args, settings = parse(argv)
    device = prepare_device(args.device)
    set_seeds(0)
    prepare_folder(args.out / "log")
    found = measure(settings, args.model, device)
    path = args.out / "log" / f"throughput_{args.model}.json"
    write_json(path, found)
    print("\n".join(table(found)))


if __name__ == "__main__":
    run(main)

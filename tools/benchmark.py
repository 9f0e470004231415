"""Time a training step of the diffusion model, and tell where the time goes.

python -m tools.benchmark
python -m tools.benchmark --batch-size 32 --precision fp32

Beside it stands how fast this machine does plain 3 x 3 convolutions. The step is that
of diffusion.py on drawn flowers: loss, gradients, optimizer, running average. Also
written to log/throughput_NAME.json. Let nothing else run meanwhile.
"""

import json
import os
import re
import time
from statistics import median

from utils.cli import run
from utils.cli.arguments import DIFFUSIONS, command_line
from utils.config import settings_for

FLAGS = "--model --batch-size --widths --precision --device --out"
REPEATS = 3  # timings of a step, of which the middle one counts
PROFILED = 4  # steps
PLAIN = (128, 64, 24)  # images, channels and pixels per side of the plain convolution
CALLS = 20  # of it
TERA = 1e12
GROUPS = (  # an operation belongs to the first whose pattern is in its name
    ("convolution, backward", r"conv.*backward"),
    ("convolution, forward", r"conv"),
    ("normalisation", r"(group|layer|batch)_?norm"),
    ("activation", r"silu|gelu|relu"),
    ("attention and matrix products", r"mm|matmul|linear|softmax|attention"),
    ("casts and copies", r"copy|::_?to|contiguous|clone|fill|zero|::cat"),
    ("element-wise", r"add|sub|mul|div|neg|pow|sqrt|square|sum|mean|mse|where|lerp"),
)
OPTIMIZER, REST = "optimizer and average", "rest"


def prepared(settings, name, device):
    """Return (model, optimizer, loss, photos (B, 3, S, S), labels (B,)) of a step."""
    import torch

    from diffusion import build
    from utils.data.synthetic import SPECIES, draw_flowers
    from utils.diffusion.denoiser import training_loss
    from utils.optim.factory import prepare_training

    count, size = settings.batch_size, settings.image_size
    images, labels = draw_flowers(-(-count // len(SPECIES)), size, size)
    model = build(settings, len(SPECIES), name)
    model.to(device, memory_format=torch.channels_last).train()
    averaged, optimizer, _ = prepare_training(settings, model, 1000)
    if averaged:
        optimizer.register_step_post_hook(lambda *_: averaged.update_parameters(model))
    photos = images[:count].float().to(device) / 255
    return model, optimizer, training_loss(settings), photos, labels[:count]


def operations(call):
    """Return the floating-point operations of call(), two to a multiply and add.

    Those of convolutions and matrix products: torch.utils.flop_counter.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def plain_convolution(precision, device):
    """Return operations per second of a 3 x 3 convolution, forward, channels last."""
    import torch

    count, channels, size = PLAIN
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(device, kind)
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(count, channels, size, size, device=device, dtype=kind)
    x, times = x.to(memory_format=torch.channels_last), []
    with torch.no_grad():
        for _ in range(CALLS):
            start = time.perf_counter()
            layer(x)[0, 0, 0, 0].item()  # waits for a device that works ahead
            times.append(time.perf_counter() - start)
        return operations(lambda: layer(x)) / median(times)


def group_of(event):
    """Return the group of a profiled operation: the optimizer's are its own."""
    above = event
    while above is not None:
        if above.name.startswith("Optimizer."):
            return OPTIMIZER
        above = above.cpu_parent
    word = event.name.lower()
    fitting = (name for name, pattern in GROUPS if re.search(pattern, word))
    return next(fitting, REST)


def shares(events):
    """Profiled operations -> {group: its share of their own processor time}."""
    times = dict.fromkeys([*(name for name, _ in GROUPS), OPTIMIZER, REST], 0.0)
    for event in events:
        times[group_of(event)] += event.self_cpu_time_total
    whole = sum(times.values())
    return {name: time / whole for name, time in times.items()}


def profile(step):
    """Return the shares of groups of operations in the time of step()."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    step()
    with profiler(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(PROFILED):
            step()
    return shares(seen.events())


def measure(settings, name, device):
    """Return all facts of the step and of the machine, of plain types."""
    from dataclasses import asdict

    from utils.experiment import machine_facts, seconds_per_step

    model, optimizer, batch_loss, *batch = prepared(settings, name, device)
    seconds = median(
        seconds_per_step(model, optimizer, batch_loss, *batch) for _ in range(REPEATS)
    )

    def gradients():
        optimizer.zero_grad()
        batch_loss(model, *batch).backward()

    def step():
        gradients()
        optimizer.step()

    network = operations(gradients)
    return {
        "machine": machine_facts(),
        "model": name,
        "settings": asdict(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_per_step": seconds,
        "photos_per_second": settings.batch_size / seconds,
        "operations_per_photo": network / settings.batch_size,
        "operations_of_optimizer": operations(optimizer.step),
        "teraflops": network / seconds / TERA,
        "plain_convolution_teraflops": {
            precision: plain_convolution(precision, device) / TERA
            for precision in ("bf16", "fp32")
        },
        "shares": profile(step),
    }


def table(found):
    """Facts -> lines of text."""
    plain = found["plain_convolution_teraflops"]
    lines = [
        ("photos per second", f"{found['photos_per_second']:.1f}"),
        ("TFLOP/s of the network", f"{found['teraflops']:.3f}"),
        *((f"TFLOP/s of a convolution, {p}", f"{v:.3f}") for p, v in plain.items()),
        *((f"share: {name}", f"{v:.1%}") for name, v in found["shares"].items()),
    ]
    return [f"{name:<38}{value:>8}" for name, value in lines]


def main(argv=None):
    line = command_line(__doc__, *FLAGS.split(), choices={"--model": DIFFUSIONS})
    line.set_defaults(model="diffusion")
    args = line.parse_args(argv)
    settings = settings_for(args, args.model)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks on stderr

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import prepare_folder
    from utils.device import prepare_device, set_seeds

    device = prepare_device(args.device)
    set_seeds(0)
    prepare_folder(args.out / "log")
    found = measure(settings, args.model, device)
    path = args.out / "log" / f"throughput_{args.model}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print("\n".join(table(found)))


if __name__ == "__main__":
    run(main)

"""Devices, random seeds, matrix precision, and facts about the processor."""

import ctypes
import logging
import os
import platform
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from utils.cli import UserError

log = logging.getLogger(__name__)

MAX_BFLOAT16_ERROR = 0.03  # relative, of a product; rounding gives less than 0.01
# Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def choose_device(name):
    """Return the torch.device of this name; auto takes CUDA, then MPS, then the CPU."""
    # Raises UserError if the machine has no such device.
    # In the order of preference.
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, present in available.items() if present)
    if not available[name]:
        raise UserError(f"--device {name} is not on this machine; use --device cpu")
    return torch.device(name)


def prepare_device(name):
    """Return the device of this name, prepared for training."""
    # Float32 products use bfloat16 units, with float32 sums, where the CPU has them.
    device = choose_device(name)
    keep_freed_memory()
    if has_bfloat16_units(device):
        torch.set_float32_matmul_precision("medium")
    return device


# Randomness --------------------------------------------------------------------


def set_seeds(seed):
    """Seed torch and numpy; ask CUDA for deterministic kernels."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def fork_rng(seed):
    """Draw from `seed` inside; the global random state is unchanged outside."""
    # fork_rng restores the CPU and one kind of accelerator.
    accelerator = torch.accelerator.current_accelerator()
    device_type = accelerator.type if accelerator else "cuda"
    with torch.random.fork_rng(device_type=device_type):
        torch.manual_seed(seed)
        yield


def random_state(generators):
    """Return the states of all random numbers: global ones and these generators'."""
    name, keys, *rest = np.random.get_state()
    accelerators = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        accelerators = [torch.mps.get_rng_state()]
    return {
        "torch": torch.get_rng_state(),
        "numpy": [name, keys.tolist(), *rest],
        "accelerators": accelerators,
        "generators": [generator.get_state() for generator in generators],
    }


def set_random_state(state, generators):
    """Restore what `random_state` returned; raises an error if it does not fit."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(tuple(state["numpy"]))
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["accelerators"])
    if torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["accelerators"][0])
    for generator, saved in zip(generators, state["generators"], strict=True):
        generator.set_state(saved)


# The processor -----------------------------------------------------------------


def has_bfloat16_units(device):
    """Return whether the device is a CPU that multiplies bfloat16 in hardware."""
    # Emulation on other CPUs is slow, and other devices were not measured. Always False
    # before torch 2.11, which does not report it.
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    return torch.cpu.get_capabilities().get("avx512_bf16", False)


@cache
@torch.inference_mode(False)
@torch.enable_grad()
def bfloat16_products_are_right():
    """Return whether a convolution in bfloat16 agrees with one in float32 on the CPU.

    Both directions are compared once in a process; there are processors on which
    libraries computed wrong products. Logs a warning if they differ.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=generator).requires_grad_()
        for shape in ((8, 32, 12, 12), (64, 32, 3, 3))
    )
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = F.conv2d(x.to(memory_format=torch.channels_last), weight)
        gradients = torch.autograd.grad(output.float().square().sum(), (x, weight))
        results.append([output.float(), *gradients])
    errors = [(a - b).norm() / a.norm() for a, b in zip(*results, strict=True)]
    if max(errors) < MAX_BFLOAT16_ERROR:
        return True
    log.warning(
        "convolutions in bfloat16 are wrong on this processor (relative error %.2g); "
        "float32 is used",
        max(errors),
    )
    return False


def keep_freed_memory():
    """Let glibc reuse freed blocks instead of returning them to the system."""
    # Otherwise each step maps and zeroes its large tensors anew.
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # bytes: never trim
    mallopt(M_TOP_PAD, 2**26)  # bytes added to each request to the system


def machine_facts():
    """Return what a run time depends on: processor, cores, threads, torch version."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def processor_name():
    """Return the processor's name, and whether it has units for bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
        found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    except OSError:  # not Linux
        found = None
    name = found[1] if found else platform.processor() or platform.machine()
    units = has_bfloat16_units(torch.device("cpu"))
    return f"{name}, {'with' if units else 'without'} bfloat16 units"

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
    if device.type == "cpu" and has_bfloat16_units(device):
        torch.set_float32_matmul_precision("medium")
    return device


def device_of(model):
    """Return the device of a module's weights; the CPU for one without, or a function.

    Functions that take images or codes move them there, and return results on the CPU,
    where random numbers are drawn and metrics are computed.
    """
    weights = model.parameters() if isinstance(model, torch.nn.Module) else ()
    return next((weight.device for weight in weights), torch.device("cpu"))


def synchronize(device):
    """Wait until a device has done its work, so that a time includes it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def accelerator():
    """Return the GPU of this machine, without its index, or None."""
    return torch.accelerator.current_accelerator(check_available=True)


# Randomness --------------------------------------------------------------------


def set_seeds(seed):
    """Seed torch and numpy; ask CUDA for deterministic kernels."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    if torch.cuda.is_available():
        # cuBLAS is deterministic with a workspace of fixed size only.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def fork_rng(seed):
    """Draw from `seed` inside; the global random state is unchanged outside."""
    # Of several GPUs this process uses the current one.
    found = accelerator()
    devices = [torch.accelerator.current_device_index()] if found else []
    kind = found.type if found else "cuda"
    with torch.random.fork_rng(devices, device_type=kind):
        torch.manual_seed(seed)
        yield


def random_state(generators):
    """Return the states of all random numbers: global ones and these generators'."""
    name, keys, *rest = np.random.get_state()
    found = accelerator()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [name, keys.tolist(), *rest],
        "accelerators": [torch.get_device_module(found).get_rng_state()]
        if found
        else [],
        "generators": [generator.get_state() for generator in generators],
    }


def set_random_state(state, generators):
    """Restore what `random_state` returned; raises an error if it does not fit."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(tuple(state["numpy"]))
    # A run that began on a machine without a GPU has no state of one.
    if (found := accelerator()) and state["accelerators"]:
        torch.get_device_module(found).set_rng_state(state["accelerators"][0])
    for generator, saved in zip(generators, state["generators"], strict=True):
        generator.set_state(saved)


# The processor -----------------------------------------------------------------


def has_bfloat16_units(device):
    """Return whether a device multiplies bfloat16 in hardware: a CPU or a CUDA GPU."""
    # Emulation is slow, and Apple's GPUs gain little. Of a CPU always False before
    # torch 2.11, which does not report it.
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    return torch.cpu.get_capabilities().get("avx512_bf16", False)


@cache
@torch.inference_mode(False)
@torch.enable_grad()
def bfloat16_products_are_right(device):
    """Return whether a convolution in bfloat16 agrees with one in float32 on a device.

    Both directions are compared once in a process; there are processors on which
    libraries computed wrong products. Logs a warning if they differ.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=generator).to(device).requires_grad_()
        for shape in ((8, 32, 12, 12), (64, 32, 3, 3))
    )
    results = []
    for enabled in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
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


def machine_facts(device=None):
    """Return what a run time depends on: processor, cores, threads, torch version.

    Of a device that is no CPU also its name, as `accelerator`.
    """
    facts = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
    if device is not None and device.type != "cpu":
        module = torch.get_device_module(device)
        name = getattr(module, "get_device_name", lambda _: device.type)(device)
        facts["accelerator"] = name
    return facts


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

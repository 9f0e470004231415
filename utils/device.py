"""What a command needs before its work: a device, seeds, folders, photos."""

import ctypes
import logging
from contextlib import contextmanager

import numpy as np
import torch

from utils.cli import UserError

log = logging.getLogger(__name__)


def choose_device(name):
    """Return the torch.device of this name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: if the machine has no such device.
    """
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, available in here.items() if available)
    if not here[name]:
        raise UserError(f"--device {name} is not on this machine; use --device cpu")
    return torch.device(name)


def prepare_device(name):
    """Return the device of this name, set to bfloat16 products where it has units."""
    device = choose_device(name)
    keep_freed_memory()
    if has_bfloat16_units(device):
        torch.set_float32_matmul_precision("medium")  # float32 sums
    return device


def set_seeds(seed):
    """Seed torch and numpy; ask CUDA for its repeatable kernels."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def fixed_noise(seed):
    """Draw from `seed` inside; the global random state is unchanged outside."""
    here = torch.accelerator.current_accelerator()
    with torch.random.fork_rng(device_type=here.type if here else "cuda"):
        torch.manual_seed(seed)
        yield


def has_bfloat16_units(device):
    """Tell whether the device is a CPU that multiplies bfloat16 in hardware.

    Other processors emulate it slowly, or are not tried; torch < 2.11 cannot say.
    """
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    return torch.cpu.get_capabilities().get("avx512_bf16", False)


def keep_freed_memory():
    """Let glibc reuse freed blocks, which it would map and zero anew in every step."""
    trim_threshold, top_pad, most_mapped = -1, -2, -4  # of mallopt(3)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(most_mapped, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**26)

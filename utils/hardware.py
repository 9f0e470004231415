"""What the processor is good at, and how to ask for it. Knows torch alone."""

import ctypes

import torch


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

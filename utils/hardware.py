"""What the processor is good at, and how to ask for it. Knows torch alone."""

import ctypes
import os
import platform
import re
from pathlib import Path

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


def machine_facts():
    """Return what a time depends on -> {"processor", "cores", "threads", "torch"}."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def processor_name():
    """The processor as Linux calls it, and whether it has units for bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
        found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    except OSError:
        found = None
    name = found[1] if found else platform.processor() or platform.machine()
    units = has_bfloat16_units(torch.device("cpu"))
    return f"{name}, {'with' if units else 'without'} bfloat16 units"

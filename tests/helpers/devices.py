"""GPUs for tests: those of this machine, and a simulated one."""

from contextlib import contextmanager

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from utils.device import accelerator

MISSING = {"special_ndtri"}  # functions that the project needs, and mps does not have
# Functions that may take tensors of two devices, as their result has that of the first.
COPIES = {"copy_", "__setitem__", "__set__", "_has_compatible_shallow_copy_type"}


def real(kind):
    """Return a parameter of tests: the GPU of this machine, or a skip."""
    found = accelerator()
    there = found is not None and found.type == kind
    mark = pytest.mark.skipif(not there, reason=f"needs a {kind} device")
    return pytest.param(kind, marks=mark)


@contextmanager
def on_device(kind, simulated):
    """Let commands run on a device of this kind: that of this machine, or simulated."""
    if not simulated:
        yield
        return
    with pytest.MonkeyPatch.context() as patch, SimulatedDevice(kind):
        name = {"cuda": "torch.cuda", "mps": "torch.backends.mps"}[kind]
        patch.setattr(f"{name}.is_available", lambda: True)
        patch.setattr("torch.accelerator.synchronize", lambda device: None)
        yield


class SimulatedDevice(TorchFunctionMode):
    """Gives this process a device of a kind, inside a `with` statement.

    Everything is computed on the CPU, so that values are right and no GPU is needed.
    But a tensor has the device that it would have, and what PyTorch refuses is refused:
    to mix devices, to read the memory of a GPU by `.numpy()`, and on mps float64 and
    MISSING functions.
    """

    # A storage has a device: that of its views, and of parameters whose `data` are
    # replaced. A weak reference frees the memory of a storage, and not its address,
    # which identifies it.

    def __init__(self, kind):
        super().__init__()
        self.device, self.storages = torch.device(kind), {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if func == torch.Tensor.device.__get__:
            return self.device_of(*args)
        if name == "numpy":
            self.refuse(self.is_here(args[0]), TypeError, "numpy of a GPU's tensor")
        missing = name in MISSING and self.device.type == "mps"
        self.refuse(
            missing and self.is_here(args[0]), NotImplementedError, f"no {name} on mps"
        )
        # Where the result is: where it is asked for, or where the inputs are.
        asked = self.asked(name, args, kwargs)
        here = self.common(name, args, kwargs) if asked is None else asked
        if asked is not None:
            args, kwargs = self.on_cpu(args), self.on_cpu(kwargs)
        result = func(*args, **kwargs)
        # A tensor on another device is a copy.
        if asked is not None and isinstance(result, torch.Tensor):
            moved = not result.is_meta and self.is_here(result) != here
            shared = any(result is tensor for tensor in tensors(args))
            result = result.clone() if moved and shared else result
        if here:
            for tensor in tensors(result):
                self.mark(tensor)
        return result

    def device_of(self, tensor):
        """Return the device that a tensor would have."""
        return self.device if self.is_here(tensor) else tensor.device

    def is_here(self, tensor):
        """Return whether a tensor is on the simulated device."""
        return tensor.untyped_storage()._cdata in self.storages

    def mark(self, tensor):
        """Put a tensor on the simulated device."""
        double = tensor.dtype == torch.float64 and self.device.type == "mps"
        self.refuse(double, TypeError, "mps has no float64")
        storage = tensor.untyped_storage()
        self.storages[storage._cdata] = StorageWeakRef(storage)

    def asked(self, name, args, kwargs):
        """Return whether a call asks for the simulated device; None for any device."""
        found = kwargs.get("device")
        if name == "cpu":
            found = "cpu"
        elif name == "to":
            for value in args[1:]:
                if isinstance(value, torch.Tensor):
                    return self.is_here(value)
                found = value if isinstance(value, str | torch.device) else found
        return None if found is None else torch.device(found).type == self.device.type

    def common(self, name, args, kwargs):
        """Return whether the inputs are on the simulated device; refuse a mixture."""
        found = tensors((args, kwargs))
        here = [tensor for tensor in found if self.is_here(tensor)]
        if name in COPIES:
            return self.is_here(found[0])
        # Single numbers on the CPU join any others, and indices on the CPU any tensor.
        others = [t for t in found if not self.is_here(t) and t.dim()]
        if name == "__getitem__" and self.is_here(args[0]):
            others = []
        words = "Expected all tensors to be on the same device"
        self.refuse(here and others, RuntimeError, f"{words}: {name}")
        return bool(here)

    def on_cpu(self, values):
        """Return the arguments of a call with the CPU in place of this device."""
        if isinstance(values, dict):
            return dict(zip(values, self.on_cpu(values.values()), strict=True))
        kind = self.device.type
        return tuple(
            "cpu"
            if isinstance(value, str | torch.device)
            and str(value).split(":")[0] == kind
            else value
            for value in values
        )

    def refuse(self, condition, kind, words):
        """Raise an error of this kind where a condition holds."""
        if condition:
            raise kind(f"{words} (simulated {self.device})")


def tensors(values):
    """Return all tensors in the arguments or the result of a call."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]

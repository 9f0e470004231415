"""The checks of part 4, the diffusion model."""

from . import (
    check_interface,
    check_network,
    check_noise,
    check_sampling,
    check_training,
)

__all__ = [
    "check_interface",
    "check_network",
    "check_noise",
    "check_sampling",
    "check_training",
]

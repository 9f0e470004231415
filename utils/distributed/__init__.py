"""Trainings of several processes, which torchrun starts on one machine or on many."""

from utils.distributed.group import lead, process_group, start_together
from utils.distributed.trainer import make_trainer

__all__ = ["lead", "make_trainer", "process_group", "start_together"]

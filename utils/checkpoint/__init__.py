"""Checkpoints: file names, atomic saving, and loading that never runs code."""

from utils.checkpoint.guide import load_guide, save_guide
from utils.checkpoint.loading import load_checkpoint, read, restore
from utils.checkpoint.names import find_weights, last_name, weights_name
from utils.checkpoint.saving import result_words, save_checkpoint, when, write

__all__ = [
    "find_weights",
    "last_name",
    "load_checkpoint",
    "load_guide",
    "read",
    "restore",
    "result_words",
    "save_checkpoint",
    "save_guide",
    "weights_name",
    "when",
    "write",
]

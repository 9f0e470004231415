"""The command line: parsing, exit codes, signals and one-line errors."""

from utils.cli.process import (
    PROJECT,
    UsageError,
    UserError,
    guard,
    memory_for,
    run,
)
from utils.cli.ranks import first_on_host, leads

__all__ = ["PROJECT", "UsageError", "UserError", "guard", "memory_for", "run"]
__all__ += ["first_on_host", "leads"]

"""Lets `python tools/NAME.py` work from any folder, as `python -m tools.NAME` does."""

# Python puts a script's own folder first on its path, so that a tool which is run by
# its file name finds this module in place of the package `utils`.

import importlib
import sys
from pathlib import Path

if __name__ == "utils":
    # The project's folder takes the place of tools/, and the package that of this file.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    del sys.modules["utils"]
    importlib.import_module("utils")

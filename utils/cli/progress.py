"""Progress bars on stderr."""

from tqdm import tqdm


def progress(loader, name):
    """Show a bar on stderr, and only on a terminal."""
    return tqdm(loader, desc=name, leave=False, disable=None)

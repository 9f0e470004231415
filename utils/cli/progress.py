"""Progress bars on stderr."""

from tqdm import tqdm


def progress(iterable, name):
    """Iterate with a bar on stderr, which is shown on a terminal only."""
    return tqdm(iterable, desc=name, leave=False, disable=None)

"""Progress of long work on stderr: a bar on a terminal, and the expected end."""

import logging
import time

from tqdm import tqdm

from utils.cli.ranks import leads

FIRST, EVERY = 10.0, 60.0  # seconds before the first estimate, and between estimates
LONG = 30.0  # seconds; shorter work needs no estimate
DAY = 86_400  # seconds

log = logging.getLogger(__name__)


class TimeEstimate:
    """Logs the expected end of work of `total` equal units, if it takes over LONG."""

    def __init__(self, name, total):
        self.name, self.total, self.done = name, total, 0
        self.start, self.next = time.monotonic(), FIRST

    def add(self, units=1):
        """Count finished units; log where an estimate is due."""
        self.done += units
        elapsed = time.monotonic() - self.start
        if elapsed < self.next:
            return
        # The rest takes as long per unit as the units before.
        rest = (self.total - self.done) * elapsed / self.done
        self.next = elapsed + EVERY
        if elapsed + rest > LONG:
            end, percent = time_of_day(rest), 100 * self.done / self.total
            log.info("%s: %.0f %% done, expected end %s", self.name, percent, end)


def time_of_day(seconds):
    """Return the time in so many seconds, as text; with the date if it is a day."""
    form = "%H:%M:%S" if seconds < DAY else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(time.time() + seconds))


def bar(iterable, name):
    """Iterate with a bar, which is shown on a terminal only, by one process."""
    return tqdm(iterable, desc=name, leave=False, disable=None if leads() else True)


def progress(iterable, name):
    """Iterate with a bar and estimates; the iterable has a length."""
    estimate = TimeEstimate(name, len(iterable))
    for item in bar(iterable, name):
        yield item
        estimate.add()

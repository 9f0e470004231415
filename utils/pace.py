"""How fast a training goes, when it will end, and how much fits into a budget."""

import sys
import time
from statistics import median

from utils.cli import UserError, program
from utils.train import fixed_noise

TELL_EVERY = 30.0  # seconds between lines, and the shortest rest worth one
PROBE_STEPS = 12  # of which the first third warms up
MARGIN = 0.94  # of a budget, for a machine whose speed drifts


class Pace:
    """Tells photos per second and the expected end on stderr, now and then."""

    def __init__(self, photos, settings):
        self.photos, self.epochs = photos, settings.epochs
        self.start = self.told = time.monotonic()

    def after(self, done):
        """Say how it goes after `done` epochs, if that has not been said just now."""
        now = time.monotonic()
        rest = (self.epochs - done) * (now - self.start) / done
        if rest < TELL_EVERY or now - self.told < TELL_EVERY:
            return
        self.told = now
        speed = done * self.photos / (now - self.start)
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + rest))
        print(
            f"{program()}: epoch {done}/{self.epochs}, {speed:.0f} photos/s, "
            f"expected end {end}",
            file=sys.stderr,
            flush=True,
        )


def seconds_per_step(model, optimizer, batch_loss, images, labels):
    """Median time of a training step; the global random state is as before.

    The first steps pay for memory and kernels, and are not counted.
    """
    device, times = next(model.parameters()).device, []
    with fixed_noise(0):
        for _ in range(PROBE_STEPS):
            start = time.perf_counter()
            optimizer.zero_grad()
            batch_loss(model, images.to(device), labels).backward()
            optimizer.step()
            times.append(time.perf_counter() - start)
    return median(times[PROBE_STEPS // 3 :])


def epochs_within(seconds, per_epoch):
    """Return how many epochs of `per_epoch` seconds fit into `seconds`.

    Raises:
        UserError: if not a single one does.
    """
    epochs = int(MARGIN * seconds / per_epoch)
    if epochs < 1:
        raise UserError(
            f"--budget leaves {max(0, seconds):.0f} s, and an epoch takes about "
            f"{per_epoch:.0f} s; give more, or fewer photos"
        )
    return epochs

"""TensorBoard: losses, learning rate and pictures of a training, on demand."""

from contextlib import contextmanager
from functools import partial

import numpy as np
from PIL import Image

from utils.cli import UserError, leads
from utils.figures import grid, scale_for
from utils.files import prepare_folder


class Board:
    """Writes the events that TensorBoard shows; epochs count from 1.

    make_writer: function of `purge_step` that returns a SummaryWriter. Without it
    nothing is written.
    """

    def __init__(self, make_writer=None):
        self.make_writer, self.writer = make_writer, None

    def scalars(self, epoch):
        """Write the losses per photo and the learning rate of an Epoch with its row."""
        if not self.make_writer or epoch.restored:
            return
        # Events of an earlier run from this epoch on are hidden: all of them, or where
        # a run is resumed those after its state.
        step = epoch.number + 1
        self.writer = self.writer or self.make_writer(purge_step=step)
        self.writer.add_scalar("lr", epoch.row["lr"], step)
        for side in ("train", "valid"):
            if (loss := epoch.row.get(f"{side}_per_photo")) is not None:
                self.writer.add_scalar(f"loss_per_photo/{side}", loss, step)
        self.writer.flush()

    def images(self, tag, images, columns, step):
        """Write a grid of images (B, 3, H, W) in [0, 1]."""
        self.add_picture(tag, grid(images, columns, scale_for(images)), step)

    def picture(self, tag, path, step):
        """Write the picture in a PNG file."""
        if self.writer:
            with Image.open(path) as picture:
                self.add_picture(tag, np.asarray(picture.convert("RGB")), step)

    def add_picture(self, tag, picture, step):
        """Write a picture (H, W, 3)."""
        if self.writer:
            self.writer.add_image(tag, picture, step, dataformats="HWC")
            self.writer.flush()

    def close(self):
        """End the file of events."""
        if self.writer:
            self.writer.close()


@contextmanager
def open_board(args):
    """Yield the Board that a command line asks for; without --tensorboard an idle one.

    Raises:
        UserError: if TensorBoard is not installed, or its folder cannot be written.
    """
    if args.tensorboard is None or not leads():
        yield Board()
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "argument --tensorboard: TensorBoard is not installed; install it: "
            "pip install -e '.[tb]'"
        ) from None
    # One run per model.
    folder = args.tensorboard / args.model
    prepare_folder(folder)
    board = Board(partial(SummaryWriter, str(folder)))
    try:
        yield board
    finally:
        board.close()

"""What the assignment asks for, and what the logs show."""

import re

from utils.cli.tables import markdown_table
from utils.files import read_json, read_regular

LOSS = r"(\d+\.?\d*(?:e[-+]?\d+)?)"
LINE = re.compile(rf"Epoch: (\d+), Train Loss: {LOSS}, Valid Loss: {LOSS}")
HEAD = ("model", "asked", "epochs", "train", "validation", "reached")
# Title, log/train_NAME.out, most epochs, bounds of the last losses, and whether both
# have to be below the MLPAE's: M12, M19, M22, M33.
ASKED = (
    ("MLPAE, SGD", "MLPAE", 100, 0.03, 0.03, False),
    ("AE, SGD", "AE_SGD", 60, 0.015, None, True),
    ("AE, SGD of the kit", "AE_SGD_kit", None, None, None, False),  # to compare
    ("AE", "AE", 15, 0.010, 0.012, False),
    ("VAE", "VAE", 20, 800.0, 800.0, False),
)
DIFFUSION = "models/Best_diffusion.pkl"
KERNEL = "kernel distance to validation photos"
RECALL = "recall at equal number"


def last_losses(path):
    """Return (epochs, train loss, validation loss) of a log, or None."""
    if not path.is_file():
        return None
    # A log without such lines is of another program, or of a training that failed.
    text = read_regular(path).decode("utf-8", errors="replace")
    if not (found := LINE.findall(text)):
        return None
    number, train, valid = found[-1]
    return int(number) + 1, float(train), float(valid)


def in_words(most, train_bound, valid_bound, below):
    """Return what a row of ASKED demands, in words."""
    if most is None:
        return "-"
    words = f"{most} epochs, train < {train_bound:g}"
    words += f", validation < {valid_bound:g}" if valid_bound else ""
    return words + (", both below the MLPAE's" if below else "")


def is_reached(found, most, train_bound, valid_bound, mlpae):
    """Return whether losses meet all bounds; None is no bound.

    found, mlpae: of `last_losses`; mlpae: losses that these must be below.
    """
    # The losses are compared to the bounds, and then to the MLPAE's.
    epochs, *losses = found
    bounds = [train_bound, valid_bound, *(mlpae or (0, None, None))[1:]]
    pairs = zip(losses * 2, bounds, strict=True)
    return epochs <= most and all(b is None or loss < b for loss, b in pairs)


def asked_and_reached(out):
    """Return rows of HEAD's columns, one for each training of ASKED."""
    found = {name: last_losses(out / f"log/train_{name}.out") for _, name, *_ in ASKED}
    rows = []
    for title, name, *bounds, below in ASKED:
        cells, reached = ["-", "-", "-"], "not made"
        if found[name]:
            epochs, train, valid = found[name]
            cells, reached = [str(epochs), f"{train:.4g}", f"{valid:.4g}"], "-"
            # Without the MLPAE's losses it is not shown that others are below them.
            if bounds[0]:
                mlpae = (found["MLPAE"] or (0, 0.0, 0.0)) if below else None
                reached = "yes" if is_reached(found[name], *bounds, mlpae) else "NO"
        rows.append([title, in_words(*bounds, below), *cells, reached])
    return rows


def diffusion_line(out):
    """Return what tools.evaluate measured of the default diffusion model."""
    found = read_json(out / "log" / "evaluate_diffusion.json")[DIFFUSION]
    distance, recall = found[KERNEL][0], found[RECALL][0]
    return f"diffusion: KID x 1000 {1000 * distance:.3g}, recall {recall:.3g}"


def report(out, measured):
    """Return the text of all results; measured: whether diffusion's are up to date."""
    text = markdown_table(HEAD, asked_and_reached(out), text_columns=2)
    return f"{text}\n{diffusion_line(out)}" if measured else text

"""The requirements of the submission list, and the check of each."""

import os
import re
import warnings
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from PIL import Image, UnidentifiedImageError

from tools.submit.archive import REPORT, is_packed
from tools.submit.tree import KIT_FILES, LOGS, MODELS, Finding
from tools.submit.weights import check_weights, weights_path
from tools.visualize.__main__ import WITHOUT_PHOTO
from utils.checkpoint import load_checkpoint
from utils.cli import UserError
from utils.config import AUTOENCODERS
from utils.data.photos import MAX_PIXELS
from utils.files import open_regular, read_regular

PICTURES = (  # vis/NAME.png
    *(f"{side}_{name}" for name in AUTOENCODERS for side in ("train", "valid")),
    *(f"random_images_{name}" for name in MODELS if name != "MLPAE"),
)
LEAST = (240, 24)  # width and height of ten images of 24 x 24 pixels
GREYS = 256  # colours that the letters of a caption can have
LINK = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img[^>]+src=[\"']([^\"']+)")
DENOISING = ("denois", "random_images_diffusion")  # in names of pictures that show it

# Logs and thresholds -----------------------------------------------------------------


def check_logs(tree):
    """Yield which of the five logs are missing (M49)."""
    paths = [tree.log_path(name) for name in LOGS]
    for name, path in zip(LOGS, paths, strict=True):
        if not path.is_file():
            yield Finding("missing", {"path": tree.show(path)}, tree.training(name))
    yield Finding("present", {"count": len(paths)}, status="ok")


def missing_rows(tree, *names):
    """Return a Finding for each log without rows, which another requirement reports."""
    return [
        Finding("needs", {"path": tree.show(tree.log_path(name))}, status="skipped")
        for name in names
        if not tree.logs[name].rows
    ]


def check_log(tree, name):
    """Yield what is wrong with the form of a log (M11, M20, M24, M32, M40)."""
    log, path = tree.logs[name], tree.log_path(name)
    if log.fault:
        yield log.fault
    elif not log.rows:
        yield from missing_rows(tree, name)
    elif len(log.rows) < log.total and not stops_early(tree, name):
        found = {"path": tree.show(path), "found": len(log.rows), "wanted": log.total}
        yield Finding("unfinished", found, tree.command("diffusion.py --resume", path))
    else:
        yield Finding("epochs", {"count": len(log.rows)}, status="ok")


def stops_early(tree, name):
    """Return whether a training could end before its last epoch, by its weights."""
    try:
        settings = load_checkpoint(weights_path(tree, name))[1]["settings"]
        return settings["patience"] < settings["epochs"]
    except (UserError, TypeError, KeyError):  # no weights, or no such settings
        return False


def check_losses(tree, name, most, bounds, final=False):
    """Yield whether both losses are below their bounds (M12, M22, M33).

    At some epoch of the first `most`, or with `final` at the last one.
    """
    if missing := missing_rows(tree, name):
        yield from missing
        return
    rows, path = tree.logs[name].rows, tree.show(tree.log_path(name))
    if final and len(rows) > most:
        many = {"path": path, "count": len(rows), "most": most}
        yield Finding("too_many", many, tree.training(name))
        return

    # The epoch whose worse loss is the lowest in relation to its bound.
    def excess(number):
        pairs = zip(rows[number], bounds, strict=True)
        return max(loss / bound for loss, bound in pairs)

    epochs = range(min(most, len(rows)))
    best = epochs[-1] if final else min(epochs, key=excess)
    found = {"path": path, "count": best + 1, "most": most}
    found |= dict(zip(("train", "valid"), rows[best], strict=True))
    found |= dict(zip(("most_train", "most_valid"), bounds, strict=True))
    if excess(best) < 1:
        yield Finding("losses", found, status="ok")
    else:
        yield Finding("too_high", found, tree.training(name))


def check_sgd(tree, least=60, bound=0.015):
    """Yield whether the AE by plain SGD is better than the MLPAE (M19)."""
    if missing := missing_rows(tree, "AE_SGD", "MLPAE"):
        yield from missing
        return
    rows, other = tree.logs["AE_SGD"].rows, tree.logs["MLPAE"].rows[-1]
    found = {"path": tree.show(tree.log_path("AE_SGD")), "count": len(rows)}
    found |= {"least": least, "bound": bound}
    faults = []
    if len(rows) < least:
        faults.append(("too_few", {}))
    elif rows[least - 1][0] >= bound:
        faults.append(("above", {"train": rows[least - 1][0]}))
    # Both losses of the last epochs.
    for key, ours, theirs in zip(("train", "valid"), rows[-1], other, strict=True):
        if ours >= theirs:
            faults.append((f"not_below_{key}", {"found": ours, "other": theirs}))
    for key, values in faults:
        yield Finding(key, found | values, tree.training("AE_SGD"))
    names = ("train", "valid", "other_train", "other_valid")
    last = dict(zip(names, (*rows[-1], *other), strict=True))
    if not faults:
        settled = {"settled": rows[least - 1][0]}
        yield Finding("below", found | last | settled, status="ok")


# Files, pictures and the report ------------------------------------------------------


def check_code(tree):
    """Yield which of the starter kit's files are missing (M46)."""
    for name in KIT_FILES:
        if not (tree.code / name).is_file():
            yield Finding("missing", {"path": name}, f"git checkout -- {name}")
    yield Finding("present", {"count": len(KIT_FILES)}, status="ok")


def picture_fault(path):
    """Return (key, fields) of what is wrong with a picture file, or None."""
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size, which is checked
            image = Image.open(file, formats=("PNG", "JPEG", "GIF"))
            width, height = image.size
            if width * height > MAX_PIXELS:
                return "no_picture", {"why": f"too large, {width} x {height} pixels"}
            image.load()
            colours = image.convert("RGB").getcolors(GREYS)  # None: more
    except UnidentifiedImageError:
        return "no_picture", {"why": "damaged, or no PNG"}
    except Exception as error:  # the file's content decides its type
        return "no_picture", {"why": getattr(error, "strerror", None) or str(error)}
    if width < LEAST[0] or height < LEAST[1]:
        least = "{} x {}".format(*LEAST)
        return "size", {"width": width, "height": height, "least": least}
    return ("blank", {"count": len(colours)}) if colours else None


def picture_command(tree, name):
    """Return the command line that makes a picture of vis/, by its name."""
    what, _, model = name.rpartition("_")
    if what in ("train", "valid"):
        return tree.command(f"visualization.py --model {model}")
    if what == "random_images":
        return tree.command(f"random_generation.py --model {model}")
    if what in WITHOUT_PHOTO and model == "diffusion":
        return tree.command(f"-m tools.visualize --model {model} --show {what}")
    return tree.command("-m tools.report")  # which links what there is


def check_pictures(tree):
    """Yield what is wrong with the nine pictures (M48)."""
    for name in PICTURES:
        path = tree.out / "vis" / f"{name}.png"
        fault = ("missing", {}) if not path.is_file() else picture_fault(path)
        if fault:
            key, values = fault
            values["path"] = tree.show(path)
            yield Finding(key, values, picture_command(tree, name))
    yield Finding("present", {"count": len(PICTURES)}, status="ok")


def check_report(tree):
    """Yield what is wrong with the report and the pictures that it shows (M50)."""
    remake = tree.command("-m tools.report")
    found = sorted(p for p in tree.out.glob(f"{REPORT}*") if p.stem == REPORT)
    path = next((p for p in found if p.suffix == ".md"), found[0] if found else None)
    if path is None or not path.is_file():
        yield Finding("missing", {"path": f"{REPORT}.md"}, remake)
        return
    shown = {"path": tree.show(path)}
    if not path.stat().st_size:
        yield Finding("empty", shown, remake)
        return
    if path.suffix != ".md":  # accepted, in any format
        yield Finding("unseen", shown, status="ok")
        return

    # Its pictures, but for those elsewhere on the web or inside the text.
    text = read_regular(path).decode("utf-8-sig", errors="replace")
    links = [unquote(a or b) for a, b in LINK.findall(text)]
    links = [link for link in dict.fromkeys(links) if not re.match(r"\w+:", link)]
    for link in links:
        if key := link_fault(tree, link):
            command = picture_command(tree, Path(link).stem)
            yield Finding(key, shown | {"link": link}, command)
    if not any(word in link for link in links for word in DENOISING):
        yield Finding("no_denoising", shown, remake)
    yield Finding("pictures", shown | {"count": len(links)}, status="ok")


def link_fault(tree, link):
    """Return the key of what is wrong with a picture in the report, or None."""
    path = Path(os.path.normpath(tree.out / link))
    name = Path(os.path.relpath(path, tree.out)).as_posix()
    if name.startswith("../") or not is_packed(name):
        return "links_outside"
    if not path.is_file():
        return "links_nowhere"
    fault = picture_fault(path)
    return "links_damaged" if fault and fault[0] == "no_picture" else None


# All of them -------------------------------------------------------------------------

REQUIREMENTS = {  # ID of docs/assignment.md -> check(tree) -> findings
    "M11": partial(check_log, name="MLPAE"),
    "M12": partial(
        check_losses, name="MLPAE", most=100, bounds=(0.03, 0.03), final=True
    ),
    "M19": check_sgd,
    "M20": partial(check_log, name="AE_SGD"),
    "M22": partial(check_losses, name="AE", most=15, bounds=(0.01, 0.012)),
    "M24": partial(check_log, name="AE"),
    "M32": partial(check_log, name="VAE"),
    "M33": partial(check_losses, name="VAE", most=20, bounds=(800, 800)),
    "M40": partial(check_log, name="diffusion"),
    "M46": check_code,
    "M47": check_weights,
    "M48": check_pictures,
    "M49": check_logs,
    "M50": check_report,
}


def findings(tree, name):
    """Return the findings to report of a requirement: faults, or else all others."""
    found = list(REQUIREMENTS[name](tree))
    return [f for f in found if f.status == "wrong"] or found

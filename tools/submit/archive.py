"""The archive of the submission: which files, under which names, and equal bytes."""

# Names are sorted and times are fixed, so that equal files give equal archives. Members
# are not compressed: weights and pictures hardly shrink, and compressors differ.

import io
import os
import zipfile
from fnmatch import fnmatch
from pathlib import Path

from tools.submit.tree import MODELS
from tools.submit.weights import weights_path
from utils.checkpoint import weights_name
from utils.checkpoint.names import FOLDERS, KIT_NAMES
from utils.cli import UserError
from utils.files import read_regular, write_file

COMMENT = b"python -m tools.submit"  # in our archives, which may be replaced
TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can hold
ARTEFACTS = (*FOLDERS, "log", "vis")  # folders of what commands make
REPORT = "diffusion_report"  # with any extension
# Left out: photos and the output of trials, in the tree itself; anywhere caches,
# environments, files of a run that goes on, and archives.
TOP_FOLDERS = ("flowers*", "trial*", "calibrated", "ablations", "seed_*", "build")
NAMES = (
    *("__pycache__", "*.pyc", "*.egg-info", "venv", "env", "__MACOSX", "Thumbs.db"),
    *("Last_*", "Previous_*", "*.lock", "*.tmp", "*.part", "*~", "reproduce.log"),
    *("*.zip", "*.tar", "*.gz", "*.tgz", "*.7z", "*.rar"),
)
CI = ".ci"  # the one hidden folder that is kept: others are of git, tools or systems


def is_packed(name):
    """Return whether a file belongs to the submission, by its path in the tree."""
    first, *rest = parts = name.split("/")
    hidden = any(part.startswith(".") and part != CI for part in parts)
    photos = rest and any(fnmatch(first, pattern) for pattern in TOP_FOLDERS)
    return not (
        hidden
        or photos
        or any(fnmatch(part, pattern) for part in parts for pattern in NAMES)
    )


def files_below(root, skip):
    """Return {name: path} of the files below a folder that belong to the submission.

    skip: folders that are not looked into.
    """
    skip, found = {os.path.abspath(folder) for folder in skip}, {}
    for place, folders, files in os.walk(root):
        inside = Path(place).relative_to(root)
        # A folder is looked into where a file in it could be packed. An environment of
        # Python has this file, whatever its name.
        folders[:] = [
            folder
            for folder in folders
            if is_packed((inside / folder / "file").as_posix())
            and not Path(place, folder, "pyvenv.cfg").exists()
            and os.path.abspath(Path(place, folder)) not in skip
        ]
        paths = {(inside / name).as_posix(): Path(place, name) for name in files}
        found |= {n: p for n, p in paths.items() if is_packed(n) and p.is_file()}
    return found


def is_artefact(name):
    """Return whether a command makes this file, and does so in the folder of --out."""
    return name.split("/")[0] in ARTEFACTS or name.startswith(REPORT)


def members(tree):
    """Return {name in the archive: path} of the whole submission, sorted by name."""
    skip = tree.data, tree.out
    found = files_below(tree.out, skip)
    if tree.code != tree.out:  # which then has nothing but what commands made
        made = {n: p for n, p in found.items() if is_artefact(n)}
        ours = files_below(tree.code, skip)
        found = {n: p for n, p in ours.items() if not is_artefact(n)} | made
    # The four models, under the names of the submission list (C1), replace all files
    # from which they could be loaded. What belongs to them moves along.
    for name in MODELS:
        path, stem = weights_path(tree, name), f"Best_{name}"
        kit_name = KIT_NAMES.get(name, f"{stem}.pkl")
        for file in (f"{stem}.pth", f"{stem}.pkl", kit_name):
            for folder in FOLDERS:
                found.pop(f"{folder}/{file}", None)
        for file in (weights_name(f"guide_{name}"), weights_name(f"prior_{name}")):
            if path and path.with_name(file).is_file():
                found.pop(f"{FOLDERS[0]}/{file}", None)
                found[f"model/{file}"] = path.with_name(file)
        if path:
            found[f"model/{stem}.pkl"] = path
    return dict(sorted(found.items()))


def refuse_to_replace(path):
    """Raise a UserError if there is a file at `path` that is no archive of ours."""
    if not path.exists():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            ours = archive.comment == COMMENT
    except (OSError, zipfile.BadZipFile):
        ours = False
    if not ours:
        raise UserError(
            f"{path} is there, and python -m tools.submit did not write it; move it "
            "away, or name another file with --archive"
        )


def write_archive(path, files):
    """Write a zip archive of files, {name: path}; a fault leaves the old or the new."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = COMMENT
        for name, source in files.items():
            info = zipfile.ZipInfo(name, TIME)
            # As on Linux, whatever the system: a regular file, readable by all.
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, read_regular(source))
    write_file(path, buffer.getbuffer())

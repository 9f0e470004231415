"""Fetch the flower photos from Kaggle, or unpack an archive or folder of them.

Kaggle -> flowers.zip.part +-> flowers.incomplete-<pid> -> flowers/<species>/<photo>
--from PATH ---------------+
"""

import hashlib
import itertools
import os
import re
import shutil
import stat
import tarfile
import zipfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.error import HTTPError
from urllib.request import BaseHandler, Request, build_opener

from tqdm import tqdm

from utils.cli import PROJECT, UsageError, UserError, run
from utils.cli.arguments import command_line
from utils.cli.progress import TimeEstimate
from utils.config import ALL_SPECIES, PHOTO_EXTENSIONS, SPECIES

URL = "https://www.kaggle.com/api/v1/datasets/download/l3llff/flowers"
BY_HAND = "get it by hand from kaggle.com/datasets/l3llff/flowers and use --from"
MAX_MEMBERS = 50_000  # the full set has about 15,700
MAX_BYTES = 4 * 10**9  # unpacked, all members together
MAX_RATIO = 100  # unpacked : packed, of one member; photos hardly compress


class BadArchive(UserError):
    """Raised if the archive must not be used; a downloaded one is removed."""


# Which photos --------------------------------------------------------------------


def is_photo(path):
    """Return whether a path is a photo, outside hidden folders and those of macOS."""
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return path.lower().endswith(PHOTO_EXTENSIONS) and not hidden


def species_of(path):
    """Return the nearest folder above the file that is a species, or None."""
    folders = reversed(PurePosixPath(path).parts[:-1])
    names = (re.sub(r"[\s-]+", "_", folder.strip().lower()) for folder in folders)
    return next((name for name in names if name in ALL_SPECIES), None)


def choose(source, files, wanted):
    """Return {"species/name": file} of the wanted photos; `files`: {path: file}."""
    # Raises BadArchive if a wanted species has no photo.
    places, taken, numbers = {}, set(), itertools.count(2)
    for path, file in files.items():
        species = species_of(path)
        if species in wanted and is_photo(path):
            place = f"{species}/{PurePosixPath(path).name}"
            stem, suffix = os.path.splitext(place)
            while place.lower() in taken:  # the same name in another sub-folder
                place = f"{stem}-{next(numbers)}{suffix}"
            taken.add(place.lower())  # some file systems ignore case
            places[place] = file
    found = {place.split("/")[0] for place in places}
    if missing := ", ".join(name for name in wanted if name not in found):
        raise BadArchive(f"{source}: has no photo of {missing}; see --species, --from")
    return places


# Unpacking -----------------------------------------------------------------------


def checked(source, members):
    """Return {path: entry} of the files in an archive; refuse an unsafe archive."""
    # members: (path, size, packed size, "file", "folder" or "", entry) of each.
    total, files = 0, {}
    for count, (path, size, packed, kind, entry) in enumerate(members, start=1):
        total += size
        windows = PureWindowsPath(path)  # splits at drives and at both slashes
        reasons = {
            "leads outside": windows.anchor or ".." in windows.parts or "\\" in path,
            "is a link or a device": not kind,
            f"is packed more than {MAX_RATIO}:1": size > MAX_RATIO * packed,
            f"is one of more than {MAX_MEMBERS} members": count > MAX_MEMBERS,
            f"makes it more than {MAX_BYTES // 10**9} GB unpacked": total > MAX_BYTES,
        }
        if why := next((text for text, applies in reasons.items() if applies), None):
            raise BadArchive(f"{source}: {path!a:.80} {why}; refused, fetch it again")
        if kind == "file":
            files[path] = entry  # the last one of equal paths
    return files


def tar_members(archive):
    """Yield the members of a tar archive, as `checked` takes them."""
    # tarfile takes a damaged header for the end of the archive, and then does not
    # read the checksum of gzip that follows the real end.
    for info in archive:
        kind = "file" if info.isreg() else "folder" if info.isdir() else ""
        yield info.name, info.size, info.size, kind, info
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(2**20)[:512] != bytes(512):  # an end is a block of zeros
        raise tarfile.ReadError("bad header, or no end mark")


def zip_members(archive):
    """Yield the members of a zip archive, as `checked` takes them."""
    for info in archive.infolist():
        is_link = stat.S_ISLNK(info.external_attr >> 16)
        kind = "" if is_link else "folder" if info.is_dir() else "file"
        yield info.orig_filename, info.file_size, info.compress_size, kind, info


def unpack_tar(source, wanted, folder):
    with tarfile.open(source) as archive:
        places = choose(source, checked(source, tar_members(archive)), wanted)
        for place, info in tqdm(places.items(), disable=None):
            archive.extract(info.replace(name=place, deep=False), folder, filter="data")


def unpack_zip(source, wanted, folder):
    with zipfile.ZipFile(source) as archive:
        places = choose(source, checked(source, zip_members(archive)), wanted)
        for place, info in tqdm(places.items(), disable=None):
            info.filename = place
            archive.extract(info, folder)  # compares the checksum


def copy_folder(source, wanted, folder):
    """Copy the wanted photos below a folder, whose own name may be a species."""
    # Links are ignored, and not followed.
    root = source.resolve()
    name = root.name.lstrip(".")
    paths = [p for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink()]
    files = {f"{name}/{path.relative_to(root).as_posix()}": path for path in paths}
    for place, path in tqdm(choose(source, files, wanted).items(), disable=None):
        (folder / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / place)


def unpack(source, wanted, folder):
    """Check all members of the source, then write the wanted photos below `folder`."""
    # Raises BadArchive if the source is damaged or unsafe.
    if source.is_dir():
        return copy_folder(source, wanted, folder)
    try:
        is_tar = tarfile.is_tarfile(source)
        return (unpack_tar if is_tar else unpack_zip)(source, wanted, folder)
    except Exception as error:  # damaged bytes raise exceptions of a dozen types
        # Errors of the system, and those that already have a message.
        if isinstance(error, (UserError, MemoryError)) or getattr(error, "errno", None):
            raise
        why = f"is damaged, or no zip or tar archive ({error!s:.80})"
        raise BadArchive(f"{source}: {why}; fetch it again") from error


# Installing ----------------------------------------------------------------------


def check_target(target):
    """Refuse a folder with photos, or with any other file of the user."""
    # README.md and names that start with a dot are allowed.
    remedy = "move or delete it, or choose another with --to"
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is not a folder; {remedy}")
    paths = [path for path in target.rglob("*") if path.is_symlink() or path.is_file()]
    names = [path.relative_to(target).as_posix() for path in paths]
    if photos := sum(map(is_photo, names)):
        raise UserError(f"{target}: already has {photos} photos; {remedy}")
    for name in names:
        if name != "README.md" and not re.search(r"(^|/)\.", name):
            raise UserError(f"{target}: already has a file {name!a:.80}; {remedy}")


def swap(fresh, target):
    """Replace the folder `target` by `fresh`; a failure leaves the old folder."""
    old = target.with_name(f"{target.name}.old-{os.getpid()}")
    check_target(target)  # again: photos may have been put there since
    try:
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(target)


def install(source, wanted, target, sha256):
    """Unpack into a new folder beside the old one, then replace the old one."""
    # A failure leaves the target as it was.
    if sha256 or source.is_file():
        check_sha256(source, sha256)
    fresh = target.with_name(f"{target.name}.incomplete-{os.getpid()}")
    try:
        fresh.mkdir(parents=True)
        if target.is_dir():  # README.md and dotfiles are kept
            shutil.copytree(target, fresh, symlinks=True, dirs_exist_ok=True)
        unpack(source, wanted, fresh)
        swap(fresh, target)
    except OSError as error:
        why = f"{error.filename or fresh}: {error.strerror or error}"
        raise UserError(f"{why}; correct this and run the command again") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_sha256(path, expected):
    """Print the size and sha256 of a file; refuse it if another one was expected."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"archive: {path.stat().st_size} bytes, sha256 {found}")
    if expected and found != expected.lower():
        raise BadArchive(f"{path}: its sha256 is not {expected}; fetch it again")


# Downloading ---------------------------------------------------------------------


class HttpsOnly(BaseHandler):
    """Refuses requests and redirects that are not https."""

    def default_open(self, request):  # called before each request is sent
        if request.type != "https":
            raise UserError(f"{request.full_url!a:.120}: is not https; {BY_HAND}")


def ask(url, start, opener):
    """Request url from byte `start` on; return the response, or None at its end."""
    headers = {"User-Agent": "get_flowers", "Range": f"bytes={start}-"}
    try:
        return opener.open(Request(url, headers=headers), timeout=30)  # seconds
    except HTTPError as error:
        error.close()
        if error.code != 416 or start == 0:  # 416: the range is not in the file
            raise
        # Nothing is left, or the part is not of this file: start again.
        at_end = error.headers.get("Content-Range") == f"bytes */{start}"
        return None if at_end else ask(url, 0, opener)


def save(response, part, have):
    """Write the response to the file `part`, or append it to its `have` bytes."""
    # A server that ignores the requested range sends the whole file.
    sent = response.headers.get("Content-Range", "")
    start = have if sent.startswith(f"bytes {have}-") else 0
    if response.status == 206 and not sent.startswith(f"bytes {start}-"):
        raise UserError(f"{part}: server sent {sent!a:.40}; delete it and run again")
    total = None if response.length is None else start + response.length
    bar = tqdm(disable=None, initial=start, total=total, unit="B", unit_scale=True)
    estimate = TimeEstimate("download", (total or start) - start)
    with bar, open(part, "ab" if start else "wb") as out:
        while chunk := response.read(2**18):
            bar.update(out.write(chunk))
            if total:
                estimate.add(len(chunk))
        # On disk before the archive is used.
        out.flush()
        os.fsync(out.fileno())
    if total not in (None, size := part.stat().st_size):
        raise ConnectionError(f"connection ended at byte {size} of {total}")


def download(url, part, opener):
    """Download url to the file `part`, resuming an earlier run."""
    have = part.stat().st_size if part.exists() else 0
    try:
        if response := ask(url, have, opener):
            with response:
                save(response, part, have)
    except (OSError, HTTPException) as error:
        remedy = f"run the same command again to resume, or {BY_HAND}"
        raise UserError(f"download to {part}: {error!s:.120}; {remedy}") from error


def fetch(wanted, target, sha256):
    """Download and install; the archive is kept only if a later run can use it."""
    part = target.with_name(f"{target.name}.zip.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    download(URL, part, build_opener(HttpsOnly))
    try:
        install(part, wanted, target, sha256)
    except BadArchive as error:
        part.unlink()
        raise UserError(f"removed the download: {error}") from error
    part.unlink()


# The command ---------------------------------------------------------------------


def parse(argv):
    """Return the arguments of the command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    names = dict(nargs="+", choices=[*ALL_SPECIES, "all"], default=SPECIES)
    add("--species", **names, metavar="NAME", help="some of the 16, or all")
    add("--from", dest="source", type=Path, metavar="PATH", help="archive or folder")
    add("--to", type=Path, default=PROJECT / "flowers", help="new folder (./flowers)")
    add("--sha256", metavar="HEX", help="checksum that the archive must have")
    args = parser.parse_args(argv)
    if args.sha256 and not re.fullmatch("[0-9a-fA-F]{64}", args.sha256):
        raise UsageError(f"argument --sha256: must be 64 hex digits: {args.sha256!r}")
    if args.source and not (args.source.is_file() or args.source.is_dir()):
        raise UsageError(f"argument --from: {args.source}: no such file or folder")
    return args


def main(argv=None):
    """Install the photos of the wanted species and print how many there are."""
    args = parse(argv)
    wanted = [name for name in ALL_SPECIES if {name, "all"} & set(args.species)]
    target = args.to.resolve()
    check_target(target)
    if args.source:
        install(args.source, wanted, target, args.sha256)
    else:
        fetch(wanted, target, args.sha256)
    counts = {name: sum(map(is_photo, os.listdir(target / name))) for name in wanted}
    print("\n".join(f"{name}: {count} photos" for name, count in counts.items()))
    print(f"total: {sum(counts.values())} photos of {len(wanted)} species")


if __name__ == "__main__":
    run(main)

"""Files that are no readable photos."""

import os
import socket
import struct
import zlib

import numpy as np
from PIL import Image

from tests.helpers.pictures import JPEG, PICTURE, RGB, encoded

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, RGB.shape, np.uint8))


def chunk(name, content):
    """Return a chunk of a PNG file with its checksum."""
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, *extra):
    """Return a PNG file of about 100 bytes that declares this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(bytes(99)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def halved(content):
    return content[: len(content) // 2]


def overwritten(content, start):
    return content[:start] + b"\xff" * 8 + content[start + 8 :]


PNG = encoded(PICTURE, "PNG")


TEXT_BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21)))


BAD = {
    "empty": b"",
    "one byte": b"\xff",
    "JPEG, half": halved(encoded(NOISE, "JPEG", quality=95)),
    "JPEG, two bytes short": JPEG[:-2],
    "JPEG, header only": JPEG[:20],
    "JPEG, progressive, half": halved(encoded(NOISE, "JPEG", progressive=True)),
    "PNG, half": halved(encoded(NOISE, "PNG")),
    "PNG, header damaged": overwritten(PNG, 18),
    "PNG, data damaged": overwritten(PNG, PNG.index(b"IDAT") + 20),
    "PNG, too large for Pillow": png(20_000, 20_000),
    "PNG, nearly too large for Pillow": png(12_000, 12_000),
    "PNG, 0 x 0": png(0, 0),
    "PNG, text bomb": png(40, 32, TEXT_BOMB),
    "WebP, half": halved(encoded(NOISE, "WEBP")),
    "BMP, half": halved(encoded(NOISE, "BMP")),
    "GIF": encoded(PICTURE, "GIF"),
    "TIFF": encoded(PICTURE, "TIFF"),
    "ICO": encoded(PICTURE, "ICO"),
    "PPM": encoded(PICTURE, "PPM"),
    "PDF": encoded(PICTURE, "PDF"),
    "EPS": encoded(PICTURE, "EPS"),  # Pillow would start Ghostscript
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "random": np.random.default_rng(0).bytes(5000),
    "pipe": os.mkfifo,  # opening it would never return
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(path.name),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "dangling link": lambda path: path.symlink_to("nowhere.jpg"),
}


WHY = {
    "GIF": "format not allowed",
    "PNG, too large for Pillow": "too large",
    "PNG, nearly too large for Pillow": "too large",
    "dangling link": "No such file",
    "pipe": "not a regular file",
}


def put(path, content):
    """Make a file of these bytes, or by this function."""
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)


def left_out(caplog):
    """Return the log messages about photos that are left out."""
    return [message for message in caplog.messages if message.startswith("left out")]

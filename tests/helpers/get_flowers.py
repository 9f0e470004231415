"""Archives, folders and a web server for the tests of tools.get_flowers."""

import contextlib
import io
import os
import ssl
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tools import get_flowers
from utils.cli import UserError

PHOTO = b"\xff\xd8 not decoded by this command " + bytes(range(256))
THREE = ("astilbe", "bellflower", "calendula")
PHOTOS = {f"flowers/{name}/{n}.jpg": PHOTO for name in THREE for n in range(2)}


def make_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    """Write {name: bytes} into a zip archive; a name may be a ZipInfo."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_tar(path, members, mode="w"):
    """Write {name: bytes} into a tar archive."""
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            add_to_tar(archive, name, data)
    return path


def add_to_tar(archive, name, data=b"", **fields):
    """Add a member; `fields` are those of its TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def make_folder(root, members):
    """Write {name: bytes} below the folder."""
    for name, data in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def everything_in(folder):
    """Return {path below the folder: bytes, or None for a folder}."""
    paths = sorted(folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def get(source, target, *args):
    """Install -> {path below the target: bytes}; nothing else is left beside it."""
    get_flowers.main(["--from", str(source), "--to", str(target), *args])
    assert os.listdir(target.parent) == [target.name], os.listdir(target.parent)
    files = {path for path in target.rglob("*") if path.is_file()}
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in files}


def refused(source, target, *words, args=()):
    """Assert that main() raises a UserError with these words and changes nothing."""
    before = everything_in(target.parent)
    with pytest.raises(UserError) as caught:
        get_flowers.main(["--from", str(source), "--to", str(target), *args])
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message) >= 10 and "\n" not in message, message
    assert everything_in(target.parent) == before, f"changed; {message}"


class Handler(BaseHTTPRequestHandler):
    """Sends `server.data`; cuts off the first `server.cuts` responses half-way."""

    def do_GET(self):
        server, data = self.server, self.server.data
        server.ranges.append(self.headers["Range"])
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if server.mode == "redirect":
            self.answer(302, b"", Location=server.location)
        elif server.mode == "missing":
            self.answer(404, b"gone")
        elif server.mode == "no ranges":
            self.answer(200, data)
        elif start >= len(data):
            self.answer(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
        else:
            sent = 7 if server.mode == "other range" else start
            content_range = f"bytes {sent}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[start:], **{"Content-Range": content_range})

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@contextlib.contextmanager
def serving(data, mode="", cuts=0, location="", certificate=None):
    """Serve `data` at the server's .url, with TLS if there is a certificate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.data, server.mode, server.cuts = data, mode, cuts
    server.location, server.ranges = location, []
    server.handle_error = lambda *_args: None  # clients that close the connection
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https" if certificate else "http"
    server.url = f"{scheme}://127.0.0.1:{server.server_port}/flowers"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

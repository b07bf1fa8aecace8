"""A package index over loopback: the pages and wheels that pip asks for."""

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PACKAGE = "tiny-weights"
VERSION = "1.2"
WHEEL = "tiny_weights-1.2-py3-none-any.whl"


class PackageIndex:
    """Serves one wheel; the first ``failures`` requests are answered with 404."""

    def __init__(self, wheel: bytes) -> None:
        self.wheel = wheel
        self.failures = 0
        self.requests: list[str] = []
        self.url = ""
        self.stalls_in_wheel = False
        self.cuts_wheel = False
        self._closing = threading.Event()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Send the page or the wheel, or half of the wheel and then nothing or the end."""
        self.requests.append(request.path)
        if self.failures:
            self.failures -= 1
            request.send_error(404)
            return
        is_wheel = request.path.endswith(".whl")
        page = f'<!doctype html><a href="/files/{WHEEL}">{WHEEL}</a>'
        body = self.wheel if is_wheel else page.encode()
        request.send_response(200)
        request.send_header("content-type", "application/octet-stream" if is_wheel else "text/html")
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        if is_wheel and self.stalls_in_wheel:
            request.wfile.write(body[: len(body) // 2])
            self._closing.wait()
            return
        if is_wheel and self.cuts_wheel:
            body = body[: len(body) // 2]
        request.wfile.write(body)

    def close(self) -> None:
        """Let stalled answers end."""
        self._closing.set()


@contextmanager
def serve_index(wheel: bytes) -> Iterator[PackageIndex]:
    """Serve a wheel until the block ends."""
    index = PackageIndex(wheel)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.url = f"http://127.0.0.1:{server.server_port}/simple/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield index
        finally:
            index.close()
            server.shutdown()
            thread.join()


def build_wheel(path: Path, files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a wheel that holds the files."""
    folder = "tiny_weights-1.2.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n"
    wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents = {
        **files,
        f"{folder}/METADATA": metadata.encode(),
        f"{folder}/WHEEL": wheel.encode(),
    }
    record = "".join(
        f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in contents.items()
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        archive.writestr(f"{folder}/RECORD", record + f"{folder}/RECORD,,\n")
    return path.read_bytes()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()

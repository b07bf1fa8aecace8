"""Google's token services as far as google-auth asks them: over a real socket, with real keys."""

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

MAIL = "gateway@project.iam.gserviceaccount.com"


@dataclass(kw_only=True)
class TokenServer:
    """A token service: a context manager. What it was asked is in ``requests``.

    ``lives_s`` is the life of the tokens it gives; ``status`` other than 200 is a refusal;
    ``gate`` is waited for before each answer.
    """

    tls: ssl.SSLContext | None = None
    lives_s: int = 3600
    status: int = 200
    body: bytes | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    given: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        """Listen."""
        self.gate.set()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: dict[str, Any]) -> tuple[int, bytes]:
        """Return the reply to a request."""
        with self._lock:
            self.requests.append(request)
        self.gate.wait(30)
        if self.status != 200:
            refused = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return self.status, self.body or json.dumps(refused).encode()
        if request["path"].startswith("/computeMetadata/") and "/token" not in request["path"]:
            return 200, json.dumps({"email": MAIL, "scopes": [], "aliases": ["default"]}).encode()
        with self._lock:
            self.given += 1
            token = f"token-{self.given}"
        if ":generateAccessToken" in request["path"]:
            return 200, json.dumps(
                {"accessToken": f"as-{token}", "expireTime": "2099-01-01T00:00:00Z"}
            ).encode()
        given = {"access_token": token, "expires_in": self.lives_s, "token_type": "Bearer"}
        return 200, self.body or json.dumps(given).encode()


def write_service_account(folder: Path, token_uri: str) -> Path:
    """Write a key file of a service account, as the console hands it out, with a new key."""
    secret = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    content = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "1",
        "private_key": secret.decode(),
        "client_email": MAIL,
        "client_id": "1",
        "token_uri": token_uri,
    }
    path = folder / "service-account.json"
    path.write_text(json.dumps(content))
    return path


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients leave in the middle of a reply when they have waited enough."""


def _handler(server: TokenServer) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["content-length"])))

        def _answer(self, body: bytes) -> None:
            request = {
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "form": {name: values[0] for name, values in parse_qs(body.decode()).items()},
                "thread": threading.current_thread().name,
            }
            status, reply = server.answer(request)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("metadata-flavor", "Google")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            del format, args

    return Handler

"""A collector of traces and metrics that keeps what it gets, and can be told to fail."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class OtlpReceiver:
    """Listens on a port of 127.0.0.1, a free one if not told.

    ``status`` and ``answer`` are what it answers with, as they are when an export has come;
    ``tries`` counts the exports that came, kept or not; ``more`` are further header lines.
    """

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.answer = b"{}"
        self.more: dict[str, str] = {}
        self.tries = 0
        self.paths: list[str] = []
        self.spans: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, dict[str, Any]]] = []  # and the process that told of each
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
                status = receiver.status
                receiver.paths.append(self.path)
                receiver.tries += 1
                if status == 200:
                    receiver.take(body, {k.lower(): v for k, v in self.headers.items()})
                self.send_response(status)
                for name, value in receiver.more.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)

            def log_message(self, *args: object) -> None:
                del args

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """The address for ``telemetry.otlp_url``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """Keep an export."""
        self.bodies.append(body)
        self.headers.append(headers)
        read = json.loads(body)
        for resource in read.get("resourceMetrics", ()):
            (name,) = [
                item["value"]["stringValue"]
                for item in resource["resource"]["attributes"]
                if item["key"] == "service.name"
            ]
            for scope in resource["scopeMetrics"]:
                self.metrics += [(name, metric) for metric in scope["metrics"]]
        for resource in read.get("resourceSpans", ()):
            for scope in resource["scopeSpans"]:
                self.spans += [
                    {**span, "resource": resource["resource"]} for span in scope["spans"]
                ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def attributes_of(span: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span as plain values."""
    return {each["key"]: _plain(each["value"]) for each in span["attributes"]}


def _plain(value: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever it is
    (kind, inside), *_ = value.items()
    if kind == "arrayValue":
        return [_plain(each) for each in inside["values"]]
    return int(inside) if kind == "intValue" else inside

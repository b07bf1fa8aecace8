"""Sends spans to a collector from a thread of its own, so that no call waits for one."""

import gzip
import http.client
import itertools
import logging
import random
import re
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from pilotage.core.errors import PilotageError
from pilotage.gateway.telemetry.otlp import encode_spans, read_rejected
from pilotage.gateway.telemetry.spans import Tracer

_LOG = logging.getLogger("pilotage.telemetry")
EVERY_S = 1.0
AT_ONCE = 500
TIMEOUT_S = 5.0
LAST_S = 2.0
LONGEST_PAUSE_S = 30.0
LONGEST_WISH_S = 300.0  # of what a collector may ask for
BREATH_S = 0.001  # so long the event loop's thread has the interpreter, every few spans
MAX_ANSWER = 64 << 10
_AGAIN = frozenset({429, 502, 503, 504})
_NAME, _VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\x20-\x7e\t]*")
_SECONDS = re.compile(r"[0-9]{1,9}")
_JITTER = random.Random()  # noqa: S311 - only spreads repeats


class Exporter:
    """Owned by the gateway process: :meth:`start`, then :meth:`close`.

    ``url`` is the collector's address; ``/v1/traces`` is added. Raises ``invalid_config`` for an
    address or a header that is none. It stands in the process's own settings, so no egress policy
    judges it.
    """

    def __init__(self, url: str, headers: Mapping[str, str], tracer: Tracer, slot: str) -> None:
        where = _read_url(url)
        for number, (name, value) in enumerate(headers.items(), 1):
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise PilotageError(  # which may hold a secret, so it is not shown
                    "invalid_config",
                    f"telemetry.otlp_headers: header {number} cannot be sent.",
                    hint="Write a line for each: authorization: Bearer SECRET",
                )
        self._is_tls, self._host, self._port, self._path = where
        self._headers = {"content-type": "application/json", "content-encoding": "gzip", **headers}
        self._tracer = tracer
        self._slot = slot
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._is_away = False
        self.sent = 0
        self.lost = 0

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """Send what is left, within two seconds."""
        self._is_closing.set()
        self._thread.join(LAST_S)

    def _run(self) -> None:
        while not self._is_closing.wait(EVERY_S):
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while spans := self._tracer.take(AT_ONCE):
            sent = 0
            try:
                body = gzip.compress(encode_spans(spans, self._slot, self._breathe), 1)
                sent = self._send(body, len(spans))
            except ValueError as wrong:  # these can never be sent; the next ones may
                self._say(is_away=True, reason=type(wrong).__name__)
            self.sent += sent
            self.lost += len(spans) - sent

    def _breathe(self) -> None:
        if not self._is_closing.is_set():
            time.sleep(BREATH_S)

    def _send(self, body: bytes, count: int) -> int:
        """Return how many of the spans were taken, by what the collector says.

        While it is away these are kept and further ones wait in the tracer's queue, which is
        bounded; closing makes one last try.
        """
        for number in itertools.count():
            is_last = self._is_closing.is_set()
            try:
                status, pause_s, answer = self._post(body)
            except (OSError, http.client.HTTPException) as failed:
                status, pause_s, answer = 0, 0.0, b""
                reason = str(failed) or type(failed).__name__
            else:
                reason = f"status {status}"
            if 200 <= status < 300:
                self._say(is_away=False, reason="")
                return max(count - read_rejected(answer), 0)
            self._say(is_away=True, reason=reason)
            if is_last or (status and status not in _AGAIN):
                break
            self._is_closing.wait(choose_pause(number, pause_s))
        return 0

    def _post(self, body: bytes) -> tuple[int, float, bytes]:
        make = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        link = make(self._host, self._port, timeout=TIMEOUT_S)
        try:
            link.request("POST", self._path, body, self._headers)
            reply = link.getresponse()
            answer = reply.read(MAX_ANSWER)
            wait = reply.getheader("retry-after", "")
            return reply.status, float(wait) if _SECONDS.fullmatch(wait) else 0.0, answer
        finally:
            link.close()

    def _say(self, *, is_away: bool, reason: str) -> None:
        if is_away == self._is_away:
            return
        self._is_away = is_away
        if is_away:
            _LOG.warning("the collector of traces cannot be used: %s", reason)
        else:
            _LOG.info("the collector of traces answers again")


def choose_pause(number: int, wished_s: float) -> float:
    """Return how long to wait after a failed try: ever longer, and as long as was asked for."""
    own_s = min(2.0 ** min(number, 5) * (0.5 + _JITTER.random()), LONGEST_PAUSE_S)
    return max(own_s, min(wished_s, LONGEST_WISH_S))


class _Where(NamedTuple):
    is_tls: bool
    host: str
    port: int
    path: str


def _read_url(url: str) -> _Where:
    try:
        parts = urlsplit(url)
        is_tls, port = parts.scheme == "https", parts.port
    except ValueError:
        parts, is_tls, port = urlsplit(""), False, None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise PilotageError(
            "invalid_config",
            "telemetry.otlp_url is no address of a collector.",
            hint="Write http://HOST:PORT or https://HOST; secrets go to telemetry.otlp_headers.",
        )
    port = port or (443 if is_tls else 80)
    return _Where(is_tls, parts.hostname, port, f"{parts.path.rstrip('/')}/v1/traces")

"""Sends spans to a collector from a thread of its own, so that no call waits for one."""

import gzip
import http.client
import logging
import random
import ssl
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from pilotage.core.errors import PilotageError
from pilotage.gateway.telemetry.otlp import encode_spans
from pilotage.gateway.telemetry.spans import Span, Tracer

_LOG = logging.getLogger("pilotage.telemetry")
EVERY_S = 1.0
AT_ONCE = 500
TIMEOUT_S = 5.0
LAST_S = 2.0
LONGEST_PAUSE_S = 30.0
TRIES = 4
_AGAIN = frozenset({429, 502, 503, 504})
_JITTER = random.Random()  # noqa: S311 - only spreads repeats


class Exporter:
    """Owned by the gateway process: :meth:`start`, then :meth:`close`.

    ``url`` is the collector's address; ``/v1/traces`` is added. Raises ``invalid_config`` for an
    address that is none. It stands in the process's own settings, so no egress policy judges it.
    """

    def __init__(self, url: str, headers: Mapping[str, str], tracer: Tracer, slot: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PilotageError(
                "invalid_config", f"telemetry.otlp_url: {url!r} is no address of a collector."
            )
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._is_tls else 80)
        self._path = f"{parts.path.rstrip('/')}/v1/traces"
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
            if self._send(spans):
                self.sent += len(spans)
            else:
                self.lost += len(spans)

    def _send(self, spans: Sequence[Span]) -> bool:
        body = gzip.compress(encode_spans(spans, self._slot), compresslevel=1)
        for number in range(TRIES):
            try:
                status, pause_s = self._post(body)
            except (OSError, http.client.HTTPException, ssl.SSLError) as failed:
                status, pause_s, reason = 0, None, str(failed) or type(failed).__name__
            else:
                reason = f"status {status}"
            if 200 <= status < 300:
                self._say(is_away=False, reason="")
                return True
            self._say(is_away=True, reason=reason)
            if status and status not in _AGAIN:
                return False
            wait_s = 2.0**number * (0.5 + _JITTER.random()) if pause_s is None else pause_s
            if self._is_closing.wait(min(wait_s, LONGEST_PAUSE_S)):
                return False
        return False

    def _post(self, body: bytes) -> tuple[int, float | None]:
        make = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        link = make(self._host, self._port, timeout=TIMEOUT_S)
        try:
            link.request("POST", self._path, body, self._headers)
            reply = link.getresponse()
            reply.read()
            wait = reply.getheader("retry-after", "")
            return reply.status, float(wait) if wait.isdigit() else None
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

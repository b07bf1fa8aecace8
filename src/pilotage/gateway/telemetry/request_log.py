"""The request log: one JSON line for a share of calls, with everything but what was said.

A tenant's ``log_share`` decides (basis points, by the call's id), none is kept of restricted data,
and none while the disk is short. Lines wait in memory until a thread writes them, so that no call
waits for a disk.
"""

import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from pilotage.core.data_classes import get_rule
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call
from pilotage.kit.clock import Clock, rfc3339

MAX_WAITING = 10_000
MAX_FILE_BYTES = 16 << 20
FILES = 4
FLUSH_EVERY_S = 0.5
_LOG = logging.getLogger("pilotage.gateway")
_ENCODE = msgspec.json.Encoder().encode


class RequestLog:
    """``path`` and three older files beside it (``.1`` to ``.3``), 16 MiB each.

    Its thread begins with the first line; :meth:`close` writes what is left.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        secret: bytes,
        *,
        has_room: Callable[[], bool] = lambda: True,
        file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self._path = path
        self._clock = clock
        self._secret = secret
        self._has_room = has_room
        self._file_bytes = file_bytes
        self._waiting: deque[bytes] = deque()
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_away = False
        self.dropped = 0

    def note(self, call: Call) -> None:
        """Keep a call's line if it is one of those to be kept."""
        share = call.tenant.log_share
        if not share or not get_rule(call.tenant.data_class).is_logged:
            return
        point = int.from_bytes(hashlib.sha256(call.id.encode()).digest()[:8], "big")
        if point * FULL_WEIGHT >= share << 64:
            return
        if len(self._waiting) >= MAX_WAITING or not self._has_room():
            self.dropped += 1
            return
        self._waiting.append(_ENCODE(self._describe(call)) + b"\n")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what waits and end."""
        self._is_closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_closing.wait(FLUSH_EVERY_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        """Write what waits; what the disk refuses is dropped and counted."""
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not lines:
            return
        try:
            if self._path.exists() and self._path.stat().st_size >= self._file_bytes:
                self._rotate()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(b"".join(lines))
        except OSError as failed:
            self.dropped += len(lines)
            if not self._is_away:
                _LOG.warning("the request log cannot be written: %s", failed.strerror)
            self._is_away = True
        else:
            self._is_away = False

    def _rotate(self) -> None:
        for number in range(FILES - 1, 0, -1):
            older = self._path.with_suffix(f".{number}{self._path.suffix}")
            newer = self._path.with_suffix(f".{number - 1}{self._path.suffix}")
            source = newer if number > 1 else self._path
            if source.exists():
                source.replace(older)

    def _describe(self, call: Call) -> dict[str, object]:
        bill, arm = bill_call(call), call.arm
        user = ""
        if call.user:  # a pseudonym: the same user is recognised, not named
            mac = hashlib.blake2b(call.user.encode(), key=self._secret, digest_size=16)
            user = mac.hexdigest()
        return {
            "time": rfc3339(self._clock.now_us()),
            "call_id": call.id,
            "tenant": call.tenant.id,
            "key": call.key_id,
            "user": user,
            "data_class": call.tenant.data_class,
            "purpose": call.purpose,
            "feature": call.feature,
            "wire": call.wire.name,
            "project": call.tenant.project_id,
            "alias": call.alias_name if call.alias else "unknown",
            "arm": arm.id if arm else "",
            "model": arm.model if arm else "",
            "version_id": arm.version_id if arm else "",
            "outcome": call.outcome.value,
            "code": call.error.code if call.error else "",
            "usage": msgspec.structs.asdict(bill.usage),
            "cost_nano": bill.cost_nano,
            "is_estimated": bill.is_estimated,
            "duration_ms": round((call.ended_s - call.started_s) * 1e3, 3),
            "waited_ms": round(call.waited_s * 1e3, 3),
            "ttft_ms": call.ttft_us / 1e3 if call.ttft_us >= 0 else None,
            "attempts": call.attempts,
            "flags": sorted(call.flags),
            "trace_id": call.trace_id,
        }

"""The request log: one JSON line for a share of calls, with everything but what was said.

A tenant's ``log_share`` decides (basis points, by the call's id), none is kept of restricted data,
and none while the disk is short. Lines wait in memory and are written by whoever owns the log.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call
from pilotage.kit.clock import Clock, rfc3339

MAX_WAITING = 10_000
MAX_FILE_BYTES = 16 << 20
FILES = 4
RESTRICTED = "restricted"
_LOG = logging.getLogger("pilotage.gateway")
_ENCODE = msgspec.json.Encoder().encode


class RequestLog:
    """``path`` and three older files beside it (``.1`` to ``.3``), 16 MiB each."""

    def __init__(
        self, path: Path, clock: Clock, secret: bytes, has_room: Callable[[], bool] = lambda: True
    ) -> None:
        self._path = path
        self._clock = clock
        self._secret = secret
        self._has_room = has_room
        self._waiting: list[bytes] = []
        self.dropped = 0

    def note(self, call: Call) -> None:
        """Keep a call's line if it is one of those to be kept."""
        share = call.tenant.log_share
        if not share or call.tenant.data_class == RESTRICTED:
            return
        point = int.from_bytes(hashlib.sha256(call.id.encode()).digest()[:8], "big")
        if point * FULL_WEIGHT >= share << 64:
            return
        if len(self._waiting) >= MAX_WAITING or not self._has_room():
            self.dropped += 1
            return
        self._waiting.append(_ENCODE(self._describe(call)) + b"\n")

    def flush(self) -> None:
        """Write what waits; what the disk refuses is dropped and counted."""
        if not self._waiting:
            return
        lines, self._waiting = self._waiting, []
        try:
            if self._path.exists() and self._path.stat().st_size >= MAX_FILE_BYTES:
                self._rotate()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(b"".join(lines))
        except OSError as failed:
            self.dropped += len(lines)
            _LOG.warning("the request log cannot be written: %s", failed.strerror)

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
            "alias": call.alias_name if call.alias else "unknown",
            "arm": arm.id if arm else "",
            "model": arm.model if arm else "",
            "outcome": call.outcome.value,
            "code": call.error.code if call.error else "",
            "usage": msgspec.structs.asdict(bill.usage),
            "cost_nano": bill.cost_nano,
            "duration_ms": round((call.ended_s - call.started_s) * 1e3, 3),
            "ttft_ms": call.ttft_us / 1e3 if call.ttft_us >= 0 else None,
            "attempts": call.attempts,
            "flags": sorted(call.flags),
            "trace_id": call.trace_id,
        }

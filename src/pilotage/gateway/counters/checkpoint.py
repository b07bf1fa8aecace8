"""Where an owner's counters stood at a number of its spool, kept in the spool's folder.

Totals up to a number, and the frames after it, are the totals now. A checkpoint that is lost or
damaged costs time only, as long as the spool still holds what it summed up.
"""

import logging
import os
from pathlib import Path
from zlib import crc32

import msgspec

from pilotage.core.frames import Begun, Ended
from pilotage.gateway.counters.matching import measure_of
from pilotage.kit.files import write_private

CHECKPOINT_FILE = "counters"
WIDENED_FILE = "widened"

_LOG = logging.getLogger("pilotage.gateway")
_CRC_BYTES = 4


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote it (owner, process), at which number, the owners it knew, what it used by key."""

    owner: str
    life: int
    seq: int
    peers: list[str] = []
    totals: dict[str, int] = {}


def write_checkpoint(folder: Path, checkpoint: Checkpoint, *, is_durable: bool = False) -> bool:
    """Replace the checkpoint, or say why the disk refuses it and keep the older one."""
    content = msgspec.msgpack.encode(checkpoint)
    check = crc32(content).to_bytes(_CRC_BYTES, "big")
    try:
        write_private(folder / CHECKPOINT_FILE, check + content, is_durable=is_durable)
    except OSError as failed:
        _LOG.warning("the counters cannot be written down: %s", failed.strerror)
        return False
    return True


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint, None if there is none that can be trusted."""
    try:
        content = (folder / CHECKPOINT_FILE).read_bytes()
        if crc32(content[_CRC_BYTES:]).to_bytes(_CRC_BYTES, "big") != content[:_CRC_BYTES]:
            raise ValueError("its checksum is wrong")
        return msgspec.msgpack.decode(content[_CRC_BYTES:], type=Checkpoint)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as broken:
        _LOG.error("%s cannot be read, the spool is read instead: %s", folder, broken)
        return None


def charge(totals: dict[str, int], ended: Ended, lost: Begun | None) -> None:
    """Add what a call came to to its counters; a lost one's tokens are those of its Begun."""
    tokens = lost.worst_tokens if lost is not None else ended.usage.total
    amounts = {"cost": ended.cost_nano, "tokens": tokens, "requests": 1}
    for key in ended.counters:
        totals[key] = totals.get(key, 0) + amounts.get(measure_of(key), 0)


class Widened:
    """The calls that reserved more than their Begun says, in a file that a crash leaves behind.

    A line each: the call's id, nano-USD, tokens.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / WIDENED_FILE
        self._open: set[str] = set()
        self._fd = -1

    def note(self, call_id: str, nano: int, tokens: int) -> bool:
        """Add a line; say whether the disk took it."""
        line = f"{call_id} {nano} {tokens}\n".encode()
        try:
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._fd = os.open(self._path, flags, 0o600)
            is_whole = os.write(self._fd, line) == len(line)
        except OSError:
            return False
        self._open.add(call_id)
        return is_whole

    def forget(self, call_id: str) -> None:
        """Note that a call has ended."""
        self._open.discard(call_id)

    def tidy(self) -> None:
        """Empty the file if every call in it has ended."""
        if self._fd >= 0 and not self._open:
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_widened(folder: Path) -> dict[str, tuple[int, int]]:
    """Return how much more each call had reserved; a torn line was never acted upon."""
    found: dict[str, tuple[int, int]] = {}
    try:
        text = (folder / WIDENED_FILE).read_text(encoding="ascii")
    except FileNotFoundError:
        return found
    for line in text.splitlines(keepends=True):
        parts = line.split()
        if len(parts) == 3 and line.endswith("\n"):
            nano, tokens = found.get(parts[0], (0, 0))
            found[parts[0]] = (nano + int(parts[1]), tokens + int(parts[2]))
    return found

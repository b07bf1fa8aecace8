"""Copies of spools that are written elsewhere and arrive here in pieces.

A copy is a spool like any other for whoever reads it: the same records under the same numbers, in
a folder of its own for each life (epoch) of the original. Pieces may come twice, never with a gap:
what is there already is compared and passed over, so that each record is here exactly once.
"""

import asyncio
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.kit.files import sync_folder, write_private
from pilotage.kit.spool_reader import (
    EPOCH_FILE,
    HEADER,
    SpoolDamage,
    find_last_seq,
    read_records,
    segment_path,
)

MOST_LIVES = 256  # of one spool: each is a folder that stays
EPOCH_LETTERS = 12
_EPOCH = re.compile(r"[0-9a-f]{32}")


class Piece(NamedTuple):
    """Some records in a row: their bytes, and where in them each begins."""

    first_seq: int
    raw: bytes
    starts: list[int]

    @property
    def last_seq(self) -> int:
        """The number of the last record."""
        return self.first_seq + len(self.starts) - 1

    def get_from(self, seq: int) -> bytes:
        """Return the bytes of the records from a number on."""
        index = seq - self.first_seq
        return self.raw[self.starts[index] :] if index < len(self.starts) else b""


def pack_records(records: list[tuple[int, bytes]]) -> bytes:
    """Return records (number, payload) as the bytes that a segment holds."""
    parts: list[bytes] = []
    for seq, payload in records:
        check = zlib.crc32(payload, zlib.crc32(seq.to_bytes(8, "little")))
        parts += (HEADER.pack(seq, len(payload), check), payload)
    return b"".join(parts)


def read_piece(first_seq: int, raw: bytes) -> Piece:
    """Take bytes apart; raise ``invalid_request`` unless they are whole records in a row."""
    starts, start, expected = [], 0, first_seq
    while start < len(raw):
        body = start + HEADER.size
        seq, length, check = HEADER.unpack_from(raw, start) if body <= len(raw) else (0, 0, 0)
        stop = body + length
        is_whole = stop <= len(raw) and seq == expected
        if not is_whole or zlib.crc32(raw[body:stop], zlib.crc32(raw[start : start + 8])) != check:
            raise PilotageError(
                "invalid_request", f"Record {expected} is damaged or is not what comes next."
            )
        starts.append(start)
        start, expected = stop, expected + 1
    return Piece(first_seq, raw, starts)


class SpoolCopies:
    """Every copy below a folder; made when the first piece comes."""

    def __init__(self, root: Path, segment_bytes: int) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._open: dict[str, tuple[str, _Copy]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def find_seq(self, name: str, epoch: str) -> int:
        """Return the number of the last record that is here, 0 if there is none."""
        async with self._lock(name):
            return (await self._get(name, epoch)).seq

    async def append(self, name: str, epoch: str, piece: Piece, *, is_lost_before: bool) -> int:
        """Add records; return the number of the last one, which is on disk now.

        ``is_lost_before`` says that the records between the last one here and the first of the
        piece are lost for ever; readers step over such a hole and count it. Raises ``conflict``
        that names the record wanted for any other gap, ``conflict`` if a record that is here is
        another one, and ``spool_full``.
        """
        async with self._lock(name):
            copy = await self._get(name, epoch)
            return await asyncio.to_thread(copy.append, piece, is_lost_before=is_lost_before)

    def close(self) -> None:
        """Close every file."""
        for _, copy in self._open.values():
            copy.close()
        self._open.clear()

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _get(self, name: str, epoch: str) -> "_Copy":
        if not _EPOCH.fullmatch(epoch):
            raise PilotageError("invalid_request", "That is no epoch of a spool.", param="epoch")
        life, copy = self._open.get(name, ("", None))
        if copy is None or life != epoch:
            if copy is not None:
                copy.close()
            self._open.pop(name, None)
            copy = await asyncio.to_thread(self._open_copy, name, epoch)
            self._open[name] = epoch, copy
        return copy

    def _open_copy(self, name: str, epoch: str) -> "_Copy":
        folder = self._root / f"{name}.{epoch[:EPOCH_LETTERS]}"
        is_new = not folder.exists()
        if is_new and len(list(self._root.glob(f"{name}.*"))) >= MOST_LIVES:
            raise PilotageError(
                "conflict",
                f"The spool {name} has begun anew {MOST_LIVES} times.",
                hint="Keep the gateway's data folder between its starts.",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (folder / EPOCH_FILE).exists():
                write_private(folder / EPOCH_FILE, epoch.encode())
            return _Copy(folder, self._segment_bytes)
        except OSError as failed:
            raise _refuse(failed) from failed


class _Copy:
    """One copy being written; a restart begins a new segment, as every writer's does."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.seq = find_last_seq(folder)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._fd = -1
        self._size = 0

    def append(self, piece: Piece, *, is_lost_before: bool) -> int:
        self._check_known(piece)
        wanted = self.seq + 1
        if piece.first_seq > wanted:
            if not is_lost_before:
                raise PilotageError(
                    "conflict",
                    f"Record {wanted} comes next, and {piece.first_seq} was sent.",
                    hint="Ask which record is the last one here, and go on behind it.",
                )
            wanted = piece.first_seq
            self.close()  # the hole shows between segments
        if raw := piece.get_from(wanted):
            self._write(wanted, raw)
            self.seq = piece.last_seq
        return self.seq

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _check_known(self, piece: Piece) -> None:
        """Compare what came again with what is here (retention may have dropped some of it)."""
        count = min(piece.last_seq, self.seq) - piece.first_seq + 1
        if count <= 0:
            return
        try:
            known = read_records(self._folder, piece.first_seq - 1, count)
        except SpoolDamage:  # a hole: nothing to compare with
            return
        for seq, payload in known:
            if not piece.first_seq <= seq <= piece.last_seq:
                continue
            if not piece.get_from(seq).startswith(pack_records([(seq, payload)])):
                raise PilotageError(
                    "conflict",
                    f"Record {seq} is another one here: two gateways write the same spool.",
                    hint="Give each gateway a data folder and a credential of its own.",
                )

    def _write(self, first_seq: int, raw: bytes) -> None:
        try:
            is_new = self._fd < 0 or self._size >= self._segment_bytes
            if is_new:
                self._begin_segment(first_seq)
            if os.write(self._fd, raw) != len(raw):
                raise OSError(28, os.strerror(28))  # ENOSPC: a part of it found room
            os.fdatasync(self._fd)
            if is_new:
                sync_folder(self._folder)
        except OSError as failed:
            self._cut_back()
            raise _refuse(failed) from failed
        self._size += len(raw)

    def _begin_segment(self, first_seq: int) -> None:
        self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC
        self._fd = os.open(segment_path(self._folder, first_seq), flags, 0o600)
        self._size = 0

    def _cut_back(self) -> None:
        """Take away what may be there in part; go on in a new segment in any case."""
        if self._fd < 0:
            return
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:  # a torn end, which readers leave behind
            return
        finally:
            self.close()


def _refuse(failed: OSError) -> PilotageError:
    return PilotageError(
        "spool_full",
        f"The records cannot be kept: {failed.strerror}.",
        hint="Free space on the control plane's disk.",
        retry_after_s=5,
    )

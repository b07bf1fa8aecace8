"""The log's one writer: durable appends, sealed tiles, signed checkpoints, recovery.

What is not in a sealed bundle yet is in a write-ahead file of that bundle. An append has happened
once this returns: every bundle that it made full is on disk, and the rest is in the write-ahead
file of the next. A bundle is the last of its tiles to be written, and its write-ahead file goes
after it, so that whatever is killed wherever leaves a log that ends at some entry, whole. A log is
only continued if it begins with what its last checkpoint signs, so that nobody without the key can
have the next one signed over something else.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pilotage.audit.notes import Checkpoint, open_checkpoint, sign_note
from pilotage.audit.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    TileFolder,
    place_tile,
    write_bundle,
)
from pilotage.audit.tree import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE_BITS,
    TILE_WIDTH,
    Edge,
    Tile,
    hash_leaf,
)
from pilotage.core.errors import PilotageError
from pilotage.kit.crypto import Signer
from pilotage.kit.files import sync_folder

CHECKPOINT = "checkpoint"
_WAL = "wal"
_HEAD_BYTES = 6  # of an entry in a write-ahead file: its length and its CRC-32


class LogWriter:
    """The only appender of a log; use it within ``with``, in one thread at a time.

    After an error it knows no more where the log ends: :meth:`reopen` looks.
    """

    def __init__(self, folder: Path, name: str, signer: Signer) -> None:
        self.folder = folder
        self.name = name
        self._signer = signer
        self._edge = Edge()
        self._open: list[bytes] = []  # the entries that are in no sealed bundle
        self._wal = -1
        self._published = -1

    def __enter__(self) -> Self:
        """Find the end of the log on disk; raise ``audit_broken`` if it is not what was signed."""
        (self.folder / _WAL).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._edge, self._open = Edge(), []
        promise = self._read_promise() or self._found()
        sealed = self._count_sealed(promise.size)
        self._check_wal(sealed)
        try:
            self._edge = _read_edge(self.folder, promise.size >> TILE_BITS)
            self._check_root(promise)
            self._push_sealed(promise, sealed)
        except (FileNotFoundError, ValueError) as missing:
            raise _broken(f"a tile that it rests on cannot be read ({missing})") from None
        try:
            self._push_open(promise, self._open_wal(sealed))
        except PilotageError:
            self.__exit__()
            raise
        self._published = promise.size or -1
        return self

    def __exit__(self, *_: object) -> None:
        """Close the write-ahead file; what was appended is on disk already."""
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1

    def reopen(self) -> None:
        """Begin again with what is on disk, after an error."""
        self.__exit__()
        self.__enter__()

    @property
    def signed(self) -> int:
        """How many entries the newest checkpoint signs."""
        return max(self._published, 0)

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self._edge.size

    @property
    def root(self) -> bytes:
        """The root of all of them."""
        return self._edge.root

    def append(self, entries: Sequence[bytes]) -> int:
        """Append entries durably, all in one go; return the index of the first.

        Raises ValueError, before anything is written, for an entry that is longer than 65,535
        bytes, and OSError if the disk refuses.
        """
        if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
            raise ValueError(f"an entry may have {MAX_ENTRY_BYTES} bytes at most")
        first = self._edge.size
        written = len(self._open)
        sealed = False
        for entry in entries:
            self._open.append(entry)
            full = self._edge.push(hash_leaf(entry))
            if full:
                self._seal(full)
                sealed, written = True, 0
        if sealed:
            self._cut_wal()
        self._write_wal(self._open[written:])
        return first

    def publish(self) -> str:
        """Write what readers need of this moment, and return its signed checkpoint."""
        if self._published != self.size:
            for tile in self._edge.list_partial():
                width = len(tile.hashes) // HASH_BYTES
                self._replace(place_tile(tile.level, tile.number, width), tile.hashes)
            if self._open:
                number = self.size >> TILE_BITS
                place = place_tile(ENTRIES, number, len(self._open))
                self._replace(place, write_bundle(self._open))
        note = self._sign()
        self._drop_partial()
        self._published = self.size
        return note

    def read_entry(self, index: int) -> bytes:
        """Return an entry, sealed or not; raise FileNotFoundError for one that was pruned."""
        return self.read_at([index])[0]

    def read_at(self, indexes: Sequence[int]) -> list[bytes]:
        """Return some entries, sealed or not."""
        sealed = self.size - len(self._open)
        found = TileFolder(self.folder, sealed).read_at([at for at in indexes if at < sealed])
        rest = iter(found)
        return [next(rest) if at < sealed else self._read_open(at - sealed) for at in indexes]

    def read_entries(self, first: int, limit: int) -> list[bytes]:
        """Return up to ``limit`` entries from an index on, sealed or not."""
        sealed = self.size - len(self._open)
        reader = TileFolder(self.folder, sealed)
        end = min(self.size, first + limit)
        found: list[bytes] = []
        while first < end:
            begin = min(first >> TILE_BITS << TILE_BITS, sealed)
            bundle = self._open if begin == sealed else reader.read_entries(begin >> TILE_BITS)
            if len(bundle) <= first - begin:
                raise ValueError(f"bundle {begin >> TILE_BITS} is too short")
            found += bundle[first - begin : end - begin]
            first = begin + len(bundle)
        return found

    def _read_open(self, place: int) -> bytes:
        if place >= len(self._open):
            raise ValueError(f"there is no entry {self.size - len(self._open) + place}")
        return self._open[place]

    def read(self) -> TileFolder:
        """Return the log as it was published last."""
        return TileFolder(self.folder, self.signed)

    # sealing

    def _seal(self, tiles: Sequence[Tile]) -> None:
        """Write full tiles, the lowest first, and last the bundle that makes them count."""
        for tile in tiles:
            self._replace(place_tile(tile.level, tile.number), tile.hashes)
        self._replace(place_tile(ENTRIES, tiles[0].number), write_bundle(self._open))
        self._open = []

    def _drop_partial(self) -> None:
        """Remove what fuller files have replaced since the last checkpoint."""
        if self._published < 0 or self._published == self.size:
            return
        level, old = 0, self._published
        while old:
            number, width = divmod(old, TILE_WIDTH)
            is_kept = number == self.size >> (TILE_BITS * (level + 1))
            newest = (self.size >> (TILE_BITS * level)) % TILE_WIDTH if is_kept else 0
            if width and width != newest:
                for kind in (level, ENTRIES) if level == 0 else (level,):
                    self._drop(kind, number, width)
            level, old = level + 1, old >> TILE_BITS

    def _drop(self, kind: int | str, number: int, width: int) -> None:
        path = self.folder / place_tile(kind, number, width)
        path.unlink(missing_ok=True)
        if path.parent.exists() and not any(path.parent.iterdir()):
            path.parent.rmdir()

    def _replace(self, place: str, data: bytes) -> None:
        """Write a file and the folder's entry for it, durably, whole or not at all."""
        path = self.folder / place
        _make_folders(path.parent, self.folder)
        temporary = path.with_name(f"{path.name}.new")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)

    # the write-ahead file

    def _write_wal(self, entries: Sequence[bytes]) -> None:
        if not entries:
            return
        data = b"".join([_head(entry) + entry for entry in entries])
        if os.write(self._wal, data) < len(data):
            raise OSError(28, "No space left on device")
        os.fdatasync(self._wal)

    def _cut_wal(self) -> None:
        """Begin the next bundle's write-ahead file; the sealed ones' go."""
        os.close(self._wal)
        self._wal = -1
        self._open_wal(self.size >> TILE_BITS, is_new=True)

    def _open_wal(self, bundle: int, *, is_new: bool = False) -> list[bytes]:
        """Open a bundle's write-ahead file and remove all others; return the entries in it."""
        path = self.folder / _WAL / str(bundle)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            entries, good = ([], 0) if is_new else _read_wal(path.read_bytes())
            os.ftruncate(descriptor, good)
            os.fsync(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        self._wal = descriptor
        for other in path.parent.iterdir():
            if other.name != path.name:
                other.unlink()
        sync_folder(path.parent)
        return entries

    # what was signed

    def _read_promise(self) -> Checkpoint | None:
        """Return the last checkpoint of this log, None if there is none."""
        try:
            note = (self.folder / CHECKPOINT).read_text()
        except FileNotFoundError:
            return None
        try:
            return open_checkpoint(note, self.name, self._signer.public)
        except ValueError as wrong:
            raise _broken(f"its checkpoint cannot be trusted: {wrong}") from None

    def _found(self) -> Checkpoint:
        """Sign that a new log is empty, so that a log without a checkpoint is no new one."""
        used = [path for path in (self.folder / _WAL).iterdir() if path.stat().st_size]
        if used or (self.folder / place_tile(ENTRIES, 0)).exists():
            raise _broken("its checkpoint is not there")
        self._sign()
        return Checkpoint(self.name, 0, EMPTY_ROOT)

    def _sign(self) -> str:
        text = Checkpoint(self.name, self.size, self.root).to_text()
        note = sign_note(text, self.name, self._signer.public, self._signer.sign)
        self._replace(CHECKPOINT, note.encode())
        return note

    def _push_open(self, promise: Checkpoint, entries: Sequence[bytes]) -> None:
        """Go on through the entries that are in no sealed bundle."""
        for entry in entries:
            self._open.append(entry)
            self._edge.push(hash_leaf(entry))
            self._check_root(promise)
        if self.size < promise.size:
            raise _broken(f"it has {self.size} entries, and its checkpoint says {promise.size}")

    def _check_root(self, promise: Checkpoint) -> None:
        """Refuse a log whose entries, as many as were signed, are not those that were."""
        if self.size == promise.size and self.root != promise.root:
            raise _broken("its entries are not those that its checkpoint signs")

    def _push_sealed(self, promise: Checkpoint, sealed: int) -> None:
        """Go on from the last checkpoint through the bundles sealed since, up from their leaves."""
        log = TileFolder(self.folder, sealed << TILE_BITS)
        for number in range(promise.size >> TILE_BITS, sealed):
            for leaf in log.read_tile(0, number):
                for tile in self._edge.push(leaf):
                    if b"".join(log.read_tile(tile.level, tile.number)) != tile.hashes:
                        raise ValueError(f"tile {tile.level}/{tile.number} is another")
                self._check_root(promise)

    def _check_wal(self, sealed: int) -> None:
        """Refuse a log with a write-ahead file of a bundle before which sealed ones are missing."""
        names = [path.name for path in (self.folder / _WAL).iterdir()]
        newest = max((int(name) for name in names if name.isdecimal()), default=0)
        if newest > sealed:
            raise _broken(f"the entries before {newest << TILE_BITS} are not there")

    def _count_sealed(self, promised: int) -> int:
        """Return how many bundles are sealed, beginning the search at the last checkpoint."""
        sealed = promised >> TILE_BITS
        while (self.folder / place_tile(ENTRIES, sealed)).exists():
            sealed += 1
        return sealed


def _read_edge(folder: Path, sealed: int) -> Edge:
    """Return the right edge of a log of so many sealed bundles, from its full tiles."""
    size = sealed << TILE_BITS
    log = TileFolder(folder, size)
    levels: list[list[bytes]] = [[]]
    level, count = 0, sealed  # how many full tiles there are on a level
    while count:
        first = count - count % TILE_WIDTH
        levels.append([log.read_tile_root(level, number) for number in range(first, count)])
        level, count = level + 1, count >> TILE_BITS
    return Edge(size, levels)


def _broken(why: str) -> PilotageError:
    return PilotageError(
        "audit_broken",
        f"The audit log cannot be continued: {why}.",
        hint="See what is left of it: pilotage audit verify. Then restore a backup.",
    )


def _head(entry: bytes) -> bytes:
    return len(entry).to_bytes(2, "big") + zlib.crc32(entry).to_bytes(4, "big")


def _read_wal(data: bytes) -> tuple[list[bytes], int]:
    """Return the whole entries at the beginning of a write-ahead file and where they end."""
    entries: list[bytes] = []
    at = 0
    while len(data) - at >= _HEAD_BYTES:
        begin = at + _HEAD_BYTES
        entry = data[begin : begin + int.from_bytes(data[at : at + 2], "big")]
        if data[at:begin] != _head(entry):
            break
        entries.append(entry)
        at = begin + len(entry)
    return entries, at


def _make_folders(folder: Path, top: Path) -> None:
    """Make a folder below another, durably."""
    if folder == top or folder.exists():
        return
    _make_folders(folder.parent, top)
    folder.mkdir(exist_ok=True, mode=0o700)
    sync_folder(folder.parent)

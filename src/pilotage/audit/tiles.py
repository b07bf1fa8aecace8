"""The layout of a log on disk (c2sp.org/tlog-tiles), and reading it.

Hashes stand in tiles of 256 (``tile/LEVEL/N``), entries in bundles of 256 (``tile/entries/N``),
each entry behind its length in two bytes. A tile or bundle that is not full is a file of its own
for each published width (``N.p/WIDTH``), which may go once there is a fuller one.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pilotage.audit.tree import HASH_BYTES, TILE_BITS, TILE_WIDTH, fold

MAX_ENTRY_BYTES = 65_535
ENTRIES = "entries"
_CACHED_TILES = 4_096  # 32 MiB at most


def place_tile(kind: int | str, number: int, width: int = TILE_WIDTH) -> str:
    """Return where a tile (``kind`` is its level) or a bundle (``entries``) is, below the log."""
    number, last = divmod(number, 1000)
    path = f"{last:03d}"
    while number:
        number, part = divmod(number, 1000)
        path = f"x{part:03d}/{path}"
    return f"tile/{kind}/{path}" + ("" if width == TILE_WIDTH else f".p/{width}")


def write_bundle(entries: Sequence[bytes]) -> bytes:
    """Return entries as a bundle."""
    return b"".join([b"%b%b" % (len(entry).to_bytes(2, "big"), entry) for entry in entries])


def read_bundle(data: bytes) -> list[bytes]:
    """Return the entries of a bundle; raise ValueError if it ends within one."""
    entries: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        begin = at + 2
        at = begin + int.from_bytes(data[at:begin], "big")
        if begin > end or at > end:
            raise ValueError("a bundle ends within an entry")
        entries.append(data[begin:at])
    return entries


class TileFolder:
    """A log on disk as it was at one size."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self._read_tile = lru_cache(_CACHED_TILES)(self._load_tile)

    def read_hash(self, bits: int, index: int) -> bytes:
        """Return the root of a complete aligned subtree (a :data:`pilotage.audit.tree.ReadHash`).

        Raise FileNotFoundError for what was pruned, ValueError for what is too short.
        """
        level, within = divmod(bits, TILE_BITS)
        number, place = divmod(index << within, TILE_WIDTH)
        hashes = self._read_tile(level, number)[place : place + (1 << within)]
        if len(hashes) < 1 << within:
            raise ValueError(f"tile {level}/{number} is too short")
        return fold(hashes)

    def read_tile(self, level: int, number: int) -> tuple[bytes, ...]:
        """Return the hashes of a full tile; raise ValueError for one that is not."""
        hashes = self._read_tile(level, number)
        if len(hashes) < TILE_WIDTH:
            raise ValueError(f"tile {level}/{number} is too short")
        return hashes

    def read_tile_root(self, level: int, number: int) -> bytes:
        """Return what a full tile hashes to: the one hash of it on the level above."""
        return fold(self.read_tile(level, number))

    def read_entries(self, number: int) -> list[bytes]:
        """Return the entries of a bundle, as many as there were."""
        width = min(TILE_WIDTH, self.size - number * TILE_WIDTH)
        return read_bundle(self.read_file(ENTRIES, number, width)[0])[:width]

    def read_entry(self, index: int) -> bytes:
        """Return one entry."""
        return self.read_at([index])[0]

    def read_at(self, indexes: Sequence[int]) -> list[bytes]:
        """Return some entries; those beside each other are read together."""
        found: list[bytes] = []
        number, bundle = -1, list[bytes]()
        for index in indexes:
            if not 0 <= index < self.size:
                raise ValueError(f"there is no entry {index}")
            if index >> TILE_BITS != number:
                number = index >> TILE_BITS
                bundle = self.read_entries(number)
            found.append(bundle[index & (TILE_WIDTH - 1)])
        return found

    def _load_tile(self, level: int, number: int) -> tuple[bytes, ...]:
        width = min(TILE_WIDTH, (self.size >> (TILE_BITS * level)) - number * TILE_WIDTH)
        data = self.read_file(level, number, width)[0][: width * HASH_BYTES]
        count = len(data) // HASH_BYTES
        return struct.unpack("32s" * count, data[: count * HASH_BYTES])

    def read_file(self, kind: int | str, number: int, width: int) -> tuple[bytes, int]:
        """Return a file of this width, or of a greater one if the log has grown; and its width."""
        exact = self.folder / place_tile(kind, number, width)
        try:
            return exact.read_bytes(), width
        except FileNotFoundError:
            if width == TILE_WIDTH:
                raise
        full = self.folder / place_tile(kind, number)
        if full.exists():
            return full.read_bytes(), TILE_WIDTH
        widths = [int(path.name) for path in exact.parent.glob("*") if path.name.isdecimal()]
        wider = min((found for found in widths if found > width), default=width)
        return exact.with_name(str(wider)).read_bytes(), wider

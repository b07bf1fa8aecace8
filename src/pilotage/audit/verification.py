"""Checking a whole log: every hash again from the entries up, in as many processes as there are.

What the files say is compared with the signed checkpoint, with the checkpoints that were published
elsewhere, with the revisions in the database, and with the blocks of calls beside the log.
"""

import asyncio
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import msgspec

from pilotage.audit.log import CHECKPOINT
from pilotage.audit.notes import Checkpoint, open_checkpoint
from pilotage.audit.tiles import ENTRIES, TileFolder, place_tile, read_bundle
from pilotage.audit.tree import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE_BITS,
    TILE_WIDTH,
    check_consistency,
    fold,
    hash_leaf,
    prove_consistency,
)

SMALLEST_SHARE = 200  # bundles that are worth a process of their own
CANNOT_SHOW = (
    "what was never appended: a log cannot know what it was not told",
    "whether what was appended was true at the time",
    "what was altered in the last second before a crash, while nothing ran and nothing was signed",
    "changes after the newest checkpoint kept elsewhere, by somebody who has the signing key",
    "an older state of this log, genuine and whole, where no newer checkpoint was kept elsewhere",
    "two logs shown to two readers, unless they compare their checkpoints",
)


class Flaw(Exception):  # noqa: N818 - it is what a check is for
    """What is wrong with a log, in words."""


@dataclass(slots=True)
class Checked:
    """What the files of a log come to."""

    size: int = 0
    root: bytes = EMPTY_ROOT
    pruned: int = 0  # entries at the beginning whose texts are gone by policy
    good: list[str] = field(default_factory=list)


class _Share(NamedTuple):
    folder: Path
    first: int
    end: int
    size: int


def verify_files(
    folder: Path,
    name: str,
    public_key: bytes,
    *,
    pruned: int = 0,
    outside: Sequence[str] = (),
    processes: int | None = None,
) -> Checked:
    """Recompute a log from its entries; raise :class:`Flaw` at the first thing that is wrong.

    ``outside`` are checkpoints that were kept elsewhere; the first ``pruned`` entries (whole
    bundles) need only have their hashes.
    """
    checkpoint = _read_checkpoint(folder, name, public_key)
    checked = Checked(size=checkpoint.size, root=checkpoint.root, pruned=pruned)
    level = list(_check_bundles(folder, checkpoint.size, pruned >> TILE_BITS, processes))
    root = _check_levels(folder, checkpoint.size, level)
    if root != checkpoint.root:
        raise Flaw("the entries do not have the root that the checkpoint says")
    checked.good.append(f"{checkpoint.size} entries hash to the root of the signed checkpoint")
    for note in outside:
        checked.good.append(_check_outside(folder, checkpoint, note, name, public_key))
    return checked


def compare_checkpoint(folder: Path, name: str, public_key: bytes, note: str) -> str:
    """Compare a log with a checkpoint that was kept elsewhere; raise :class:`Flaw`."""
    return _check_outside(
        folder, _read_checkpoint(folder, name, public_key), note, name, public_key
    )


async def verify_files_apart(
    folder: Path, name: str, public_key: bytes, *, pruned: int, outside: Sequence[str]
) -> Checked:
    """Do :func:`verify_files` in a thread, which waits for its processes."""
    return await asyncio.to_thread(
        verify_files, folder, name, public_key, pruned=pruned, outside=outside
    )


def count_missing(folder: Path) -> int:
    """Return how many entries at the beginning have no bundle though their tile is there."""
    number = 0
    while not (folder / place_tile(ENTRIES, number)).exists():
        if not (folder / place_tile(0, number)).exists():
            return 0
        number += 1
    return number << TILE_BITS


def list_outside(folder: Path, most: int = 1_000) -> list[str]:
    """Return the checkpoints that were put into a folder, oldest first.

    Of more than ``most`` the newest, and others at even distances.
    """
    paths = [path for path in sorted(folder.glob("[!.]*")) if path.is_file()]
    every = -(-len(paths) // most) or 1
    return [path.read_text() for path in paths[::-1][::every]][::-1]


def _read_checkpoint(folder: Path, name: str, public_key: bytes) -> Checkpoint:
    try:
        return open_checkpoint((folder / CHECKPOINT).read_text(), name, public_key)
    except FileNotFoundError:
        raise Flaw("there is no checkpoint") from None
    except (ValueError, UnicodeDecodeError) as wrong:
        raise Flaw(f"the checkpoint cannot be trusted: {wrong}") from None


def _check_bundles(folder: Path, size: int, pruned: int, processes: int | None) -> Iterator[bytes]:
    """Return what each bundle's tile hashes to, having compared the two."""
    bundles = -(-size // TILE_WIDTH)
    workers = min(processes or os.cpu_count() or 1, max(1, bundles // SMALLEST_SHARE))
    if pruned:
        log = TileFolder(folder, size)
        with _reading():
            yield from [log.read_tile_root(0, number) for number in range(pruned)]
    edges = [pruned + (bundles - pruned) * part // workers for part in range(workers + 1)]
    shares = [_Share(folder, *edge, size) for edge in pairwise(edges)]
    if workers == 1:
        yield from _check_share(shares[0])
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for hashes in pool.map(_check_share, shares):
            yield from hashes


def _check_share(share: _Share) -> list[bytes]:
    """Read, parse and hash a range of bundles, and compare them with their tiles."""
    log = TileFolder(share.folder, share.size)
    parse = msgspec.json.Decoder().decode
    found: list[bytes] = []
    for number in range(share.first, share.end):
        width = min(TILE_WIDTH, share.size - number * TILE_WIDTH)
        try:
            data, there = log.read_file(ENTRIES, number, width)
            entries = read_bundle(data)
            for entry in entries:
                parse(entry)
            tile = _read_tile(log, 0, number, width)
        except (OSError, ValueError) as wrong:
            raise Flaw(f"bundle {number} cannot be read: {wrong}") from None
        hashes = [hash_leaf(entry) for entry in entries[:width]]
        if len(entries) != there or b"".join(hashes) != tile:
            raise Flaw(
                f"the entries from {number * TILE_WIDTH} to {number * TILE_WIDTH + width - 1} "
                "are not the ones that were hashed"
            )
        found.append(fold(hashes))
    return found


def _check_levels(folder: Path, size: int, roots: list[bytes]) -> bytes:
    """Compare the upper tiles with what lies below them; return the root."""
    log = TileFolder(folder, size)
    root = fold(roots)
    level = 1
    count = size >> TILE_BITS  # complete subtrees of the level below
    row = roots[:count]
    while row:
        for number in range(-(-len(row) // TILE_WIDTH)):
            wanted = row[number * TILE_WIDTH : (number + 1) * TILE_WIDTH]
            try:
                tile = _read_tile(log, level, number, len(wanted))
            except (OSError, ValueError) as wrong:
                raise Flaw(f"tile {level}/{number} cannot be read: {wrong}") from None
            if tile != b"".join(wanted):
                raise Flaw(f"tile {level}/{number} is not what lies below it")
        full = len(row) - len(row) % TILE_WIDTH
        row = [fold(row[at : at + TILE_WIDTH]) for at in range(0, full, TILE_WIDTH)]
        level += 1
    return root


def _read_tile(log: TileFolder, level: int, number: int, width: int) -> bytes:
    """Return the first hashes of a tile; the log may have grown since, but not the tile alone."""
    data, there = log.read_file(level, number, width)
    if len(data) != there * HASH_BYTES:
        raise ValueError(f"it has {len(data)} bytes for {there} hashes")
    return data[: width * HASH_BYTES]


def _check_outside(folder: Path, now: Checkpoint, note: str, name: str, public_key: bytes) -> str:
    try:
        kept = open_checkpoint(note, name, public_key)
    except ValueError as wrong:
        raise Flaw(f"a checkpoint that was kept elsewhere cannot be trusted: {wrong}") from None
    if kept.size > now.size:
        raise Flaw(
            f"a checkpoint kept elsewhere speaks of {kept.size} entries, the log has {now.size}: "
            "its end is missing"
        )
    log = TileFolder(folder, now.size)
    with _reading():
        path = prove_consistency(kept.size, now.size, log.read_hash) if kept.size else []
    if not check_consistency(kept.size, now.size, kept.root, now.root, path):
        raise Flaw(f"the first {kept.size} entries are not those of the checkpoint kept elsewhere")
    return f"the first {kept.size} entries are those of a checkpoint kept elsewhere"


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as wrong:
        raise Flaw(f"a tile cannot be read: {wrong}") from None


def hash_file(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

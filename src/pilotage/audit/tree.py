"""The Merkle tree of RFC 6962, section 2.1: hashes, roots, and proofs of inclusion and consistency.

A leaf hashes as ``SHA-256(0x00 entry)``, a node as ``SHA-256(0x01 left right)``; a tree of n leaves
splits at the largest power of two below n. Hashes are 32 bytes. Pure: whoever has the hashes gives
them in as a :data:`ReadHash`.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

HASH_BYTES = 32
TILE_BITS = 8
TILE_WIDTH = 1 << TILE_BITS  # hashes in a full tile
EMPTY_ROOT = hashlib.sha256(b"").digest()

ReadHash = Callable[[int, int], bytes]
"""Return the root of a complete aligned subtree: the ``index``-th of those of ``2**bits`` leaves.

Called as ``read(bits, index)``.
"""


class Tile(NamedTuple):
    """The hashes of up to 256 subtrees of ``256**level`` leaves each."""

    level: int
    number: int
    hashes: bytes


def hash_leaf(entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees of one size, the last of which may be smaller."""
    if not hashes:
        return EMPTY_ROOT
    level, sha256 = list(hashes), hashlib.sha256
    while len(level) > 1:
        pairs = iter(level)
        above = [  # hash_node, without a call for each: most of the time of a proof is here
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(pairs, pairs, strict=False)
        ]
        if len(level) & 1:
            above.append(level[-1])
        level = above
    return level[0]


class Edge:
    """The right edge of a growing tree: the hashes that are in no full tile yet."""

    def __init__(self, size: int = 0, levels: Sequence[Sequence[bytes]] = ()) -> None:
        self.size = size
        self._levels = [list(level) for level in levels] or [[]]

    def push(self, leaf: bytes) -> list[Tile]:
        """Add a leaf's hash; return the tiles that it made full, lowest first."""
        self.size += 1
        full: list[Tile] = []
        level, hashed = 0, leaf
        while True:
            if level == len(self._levels):
                self._levels.append([])
            row = self._levels[level]
            row.append(hashed)
            if len(row) < TILE_WIDTH:
                return full
            number = (self.size >> (TILE_BITS * (level + 1))) - 1
            full.append(Tile(level, number, b"".join(row)))
            hashed = fold(row)
            self._levels[level] = []
            level += 1

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        ragged: list[bytes] = []
        for row in self._levels:
            if row or ragged:
                ragged = [fold([*row, *ragged])]
        return ragged[0] if ragged else EMPTY_ROOT

    def list_partial(self) -> list[Tile]:
        """Return the tiles that are not full, lowest first."""
        return [
            Tile(level, self.size >> (TILE_BITS * (level + 1)), b"".join(row))
            for level, row in enumerate(self._levels)
            if row
        ]


def compute_root(low: int, high: int, read: ReadHash) -> bytes:
    """Return the root over the leaves from ``low`` up to ``high``, as the tree splits them."""
    tail: list[bytes] = []
    while high - low & (high - low - 1):
        bits = _split_bits(high - low)
        tail.append(read(bits, low >> bits))
        low += 1 << bits
    bits = (high - low).bit_length() - 1
    root = read(bits, low >> bits)
    for left in reversed(tail):
        root = hash_node(left, root)
    return root


def prove_inclusion(index: int, size: int, read: ReadHash) -> list[bytes]:
    """Return the path that shows a leaf to be in the tree of ``size`` leaves, lowest first."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} among {size}")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + (1 << _split_bits(high - low))
        if index < middle:
            path.append(compute_root(middle, high, read))
            high = middle
        else:
            path.append(compute_root(low, middle, read))
            low = middle
    return path[::-1]


def prove_consistency(old: int, size: int, read: ReadHash) -> list[bytes]:
    """Return the path that shows the tree of ``old`` leaves to be the beginning of this one."""
    if not 0 < old <= size:
        raise ValueError(f"a tree of {old} leaves is no beginning of one of {size}")
    path: list[bytes] = []
    low, high, is_root_known = 0, size, True
    while old < high:
        middle = low + (1 << _split_bits(high - low))
        if old <= middle:
            path.append(compute_root(middle, high, read))
            high = middle
        else:
            path.append(compute_root(low, middle, read))
            low, is_root_known = middle, False
    if not is_root_known:
        path.append(compute_root(low, high, read))
    return path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Say whether a path shows a leaf's hash to be in a tree (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = hash_node(step, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = hash_node(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def check_consistency(
    old: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]
) -> bool:
    """Say whether a path shows one tree to be another's beginning (RFC 9162, section 2.1.4.2)."""
    if not 0 <= old <= size:
        return False
    if old == size:
        return old_root == root and not path
    if old == 0:
        return old_root == EMPTY_ROOT and not path
    steps = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not steps:
        return False
    place, last = old - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_found = found = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old_found, found = hash_node(step, old_found), hash_node(step, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = hash_node(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and old_found == old_root and found == root


def _split_bits(count: int) -> int:
    """Return the exponent of the largest power of two below a number of leaves above one."""
    return (count - 1).bit_length() - 1

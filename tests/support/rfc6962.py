"""RFC 6962 once more, word for word from its recursive definitions, to check ours against."""

import hashlib
from collections.abc import Sequence


def hash_list(entries: Sequence[bytes]) -> bytes:
    """MTH of section 2.1."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + hash_list(entries[:k]) + hash_list(entries[k:])).digest()


def audit_path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*audit_path(m, entries[:k]), hash_list(entries[k:])]
    return [*audit_path(m - k, entries[k:]), hash_list(entries[:k])]


def consistency_proof(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """PROOF of section 2.1.2."""
    return _subproof(m, entries, is_complete=True)


def root_of_path(m: int, n: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """Return the root that a path leads to, by the recursion of section 2.1.1 read backwards."""
    if n == 1:
        assert not path
        return leaf
    k = split(n)
    if m < k:
        return hashlib.sha256(b"\x01" + root_of_path(m, k, leaf, path[:-1]) + path[-1]).digest()
    below = root_of_path(m - k, n - k, leaf, path[:-1])
    return hashlib.sha256(b"\x01" + path[-1] + below).digest()


def split(n: int) -> int:
    """Return the largest power of two below n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def _subproof(m: int, entries: Sequence[bytes], *, is_complete: bool) -> list[bytes]:
    if m == len(entries):
        return [] if is_complete else [hash_list(entries)]
    k = split(len(entries))
    if m <= k:
        return [*_subproof(m, entries[:k], is_complete=is_complete), hash_list(entries[k:])]
    return [*_subproof(m - k, entries[k:], is_complete=False), hash_list(entries[:k])]

"""What the audit log is: entries in a Merkle tree, an index of them, and proofs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an entry of the log speaks of."""

    FOUNDING = "founding"
    REVISION = "revision"
    CALLS = "calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """An entry of the log as it is found again: where it is, and what it is of.

    ``revision_seq`` is None but for revisions. The log's own words are the entry; this is an index.
    """

    position: int
    kind: str
    at_us: int
    project_id: str | None
    event: str
    object_id: str
    actor: str
    reason: str
    revision_seq: int | None = None
    rev: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sealed block of ended calls of one spool: a file, and one entry of the log.

    The numbers are those of records in the spool, ``first_seq`` and ``last_seq`` included;
    ``root`` is the Merkle root over the calls' lines, ``sha256`` that of the file (both hex).
    """

    position: int
    gateway: str
    epoch: str
    first_seq: int
    last_seq: int
    calls: int
    first_us: int
    last_us: int
    root: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """That an entry is in the log: enough to check it with the log's public key and nothing else.

    ``path`` are 32-byte hashes, lowest first, that lead to the root in ``checkpoint``.
    """

    entry: bytes
    index: int
    size: int
    path: Sequence[bytes]
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallProof:
    """That a call is in a sealed block, and that the block is in the log."""

    line: bytes
    index: int
    calls: int
    path: Sequence[bytes]
    block: Proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A legal hold: as long as one is in force, nothing of the log and no tenant is erased."""

    id: str
    rev: int
    name: str
    reason: str
    created_at_us: int
    created_by: str
    released_at_us: int | None
    released_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check of the log looked at, and what it found."""

    check: str
    is_good: bool
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What checking the whole log found, and what no check of a log can find."""

    name: str
    entries: int
    root: str
    is_intact: bool
    findings: Sequence[Finding]
    cannot_show: Sequence[str]

"""What the audit log is: numbered entries, each holding the hash of the one before."""

from dataclasses import dataclass

GENESIS = "0" * 64  # what stands for the hash before the first entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an entry says: one revision, word for word."""

    revision_seq: int
    at_us: int
    project_id: str | None
    event: str
    object_id: str
    rev: int
    actor: str
    reason: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry(Content):
    """One entry; positions run from 1 without gaps, hashes are hex SHA-256."""

    position: int
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What checking the whole log found.

    ``entries`` were found good, from the first on, and ``head_hash`` is the last of their hashes:
    keep it elsewhere, and a later check can be compared with it. ``first_bad_position`` is the
    first place that is wrong or empty, ``problem`` says how.
    """

    entries: int
    head_hash: str
    is_intact: bool
    first_bad_position: int | None = None
    problem: str = ""

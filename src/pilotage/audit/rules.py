"""What the audit log decides: how entries chain, and what is wrong with one."""

import hashlib
from dataclasses import fields

import msgspec

from pilotage.audit.types import GENESIS, AuditEntry, Content

_ENCODER = msgspec.json.Encoder(order="sorted")
_CONTENT = tuple(field.name for field in fields(Content))
_HASHED = (*_CONTENT, "position", "previous_hash")


def make_entry(content: Content, previous: AuditEntry | None) -> AuditEntry:
    """Return the entry that follows ``previous`` (None: the first)."""
    values = {name: getattr(content, name) for name in _CONTENT}
    unsealed = AuditEntry(
        **values,
        position=previous.position + 1 if previous else 1,
        previous_hash=previous.hash if previous else GENESIS,
        hash="",
    )
    return AuditEntry(
        **values,
        position=unsealed.position,
        previous_hash=unsealed.previous_hash,
        hash=hash_entry(unsealed),
    )


def hash_entry(entry: AuditEntry) -> str:
    """Return the hex SHA-256 of all fields but ``hash``, as compact JSON with sorted names."""
    return hashlib.sha256(
        _ENCODER.encode({name: getattr(entry, name) for name in _HASHED})
    ).hexdigest()


def find_flaw(entry: AuditEntry, previous: AuditEntry | None) -> str:
    """Say what is wrong with an entry that should follow ``previous``; empty if nothing is."""
    expected = previous.position + 1 if previous else 1
    if entry.position != expected:
        return f"there is no entry {expected}, the next one is {entry.position}"
    if entry.previous_hash != (previous.hash if previous else GENESIS):
        return f"entry {entry.position} does not follow the hash of the entry before it"
    if entry.hash != hash_entry(entry):
        return f"entry {entry.position} does not match its own hash"
    return ""


def find_difference(entry: AuditEntry, content: Content) -> str:
    """Say where an entry departs from the revision it should hold; empty if nowhere."""
    for name in _CONTENT:
        if getattr(entry, name) != getattr(content, name):
            return f"entry {entry.position} differs in {name} from revision {content.revision_seq}"
    return ""

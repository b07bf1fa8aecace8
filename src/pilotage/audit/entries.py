"""What the log's entries say: JSON objects, one shape for each kind, fields in this order.

An entry has no prompt, no answer, and no name of a person: who acted is an id, and a call's line
says what it cost, not what it said.
"""

import hashlib
from typing import NamedTuple

import msgspec

from pilotage.audit.tiles import MAX_ENTRY_BYTES
from pilotage.audit.types import Block, Indexed, Kind
from pilotage.kit.clock import parse_rfc3339, rfc3339
from pilotage.kit.outbox import Revision

VERSION = 1


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """The chain of hashes that this log has replaced: how long it was, and its last hash."""

    entries: int
    head_hash: str


class FoundingEntry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="founding"):
    """The first entry."""

    v: int = VERSION
    at: str
    name: str
    former: Former | None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is kept beside the log: its SHA-256 in hex, its length."""

    sha256: str
    bytes: int


class RevisionEntry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="revision"):
    """One change: who, what, when, why, and the object before and after.

    A change that is too long for an entry is kept beside the log under its hash (``record``).
    """

    v: int = VERSION
    seq: int
    at: str
    project: str | None
    event: str
    object: str
    rev: int
    who: str
    why: str
    before: msgspec.Raw
    after: msgspec.Raw
    record: Kept | None = None


class CallsEntry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="calls"):
    """A sealed block of ended calls."""

    v: int = VERSION
    at: str
    gateway: str
    epoch: str
    first_seq: int
    last_seq: int
    calls: int
    first_at: str
    last_at: str
    root: str
    sha256: str


Entry = FoundingEntry | RevisionEntry | CallsEntry
_NOTHING = msgspec.Raw(b"null")
_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


class Written(NamedTuple):
    """An entry's bytes, and what has to be kept beside the log for it."""

    entry: bytes
    record: bytes | None = None


def write_founding(at_us: int, name: str, former: Former | None) -> bytes:
    """Return the log's first entry."""
    return _ENCODER.encode(FoundingEntry(at=rfc3339(at_us), name=name, former=former))


def write_revision(revision: Revision) -> Written:
    """Return the entry of a revision."""
    before = _NOTHING if revision.before is None else msgspec.Raw(revision.before.encode())
    after = msgspec.Raw(revision.after.encode())
    whole = RevisionEntry(
        seq=revision.seq,
        at=rfc3339(revision.at_us),
        project=revision.project_id,
        event=revision.event,
        object=revision.object_id,
        rev=revision.rev,
        who=revision.actor,
        why=revision.reason,
        before=before,
        after=after,
    )
    entry = _ENCODER.encode(whole)
    if len(entry) <= MAX_ENTRY_BYTES:
        return Written(entry)
    record = _ENCODER.encode({"before": before, "after": after})
    kept = Kept(sha256=hashlib.sha256(record).hexdigest(), bytes=len(record))
    short = msgspec.structs.replace(whole, before=_NOTHING, after=_NOTHING, record=kept)
    return Written(_ENCODER.encode(short), record)


def write_calls(at_us: int, block: Block) -> bytes:
    """Return the entry of a sealed block of calls."""
    return _ENCODER.encode(
        CallsEntry(
            at=rfc3339(at_us),
            gateway=block.gateway,
            epoch=block.epoch,
            first_seq=block.first_seq,
            last_seq=block.last_seq,
            calls=block.calls,
            first_at=rfc3339(block.first_us),
            last_at=rfc3339(block.last_us),
            root=block.root,
            sha256=block.sha256,
        )
    )


def read_entry(entry: bytes) -> Entry:
    """Return what an entry says; raise ValueError for one that is none of this program's."""
    try:
        return _DECODER.decode(entry)
    except msgspec.DecodeError as wrong:
        raise ValueError(f"an entry cannot be read: {wrong}") from None


def index_entry(position: int, entry: Entry) -> Indexed:
    """Return how an entry is found again."""
    if isinstance(entry, RevisionEntry):
        return Indexed(
            position=position,
            kind=Kind.REVISION,
            at_us=parse_rfc3339(entry.at),
            project_id=entry.project,
            event=entry.event,
            object_id=entry.object,
            actor=entry.who,
            reason=entry.why,
            revision_seq=entry.seq,
            rev=entry.rev,
        )
    if isinstance(entry, CallsEntry):
        event, object_id = "audit.calls.sealed", f"{entry.gateway}/{entry.epoch}/{entry.first_seq}"
    else:
        event, object_id = "audit.log.founded", entry.name
    return Indexed(
        position=position,
        kind=Kind.CALLS if isinstance(entry, CallsEntry) else Kind.FOUNDING,
        at_us=parse_rfc3339(entry.at),
        project_id=None,
        event=event,
        object_id=object_id,
        actor="system",
        reason="",
    )


def read_block(position: int, entry: CallsEntry) -> Block:
    """Return the block that an entry is of."""
    return Block(
        position=position,
        gateway=entry.gateway,
        epoch=entry.epoch,
        first_seq=entry.first_seq,
        last_seq=entry.last_seq,
        calls=entry.calls,
        first_us=parse_rfc3339(entry.first_at),
        last_us=parse_rfc3339(entry.last_at),
        root=entry.root,
        sha256=entry.sha256,
    )

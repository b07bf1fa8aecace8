"""Checks a decision's bundle without a server or a data folder."""

import hashlib

import msgspec

from pilotage.audit.entries import RevisionEntry, read_entry
from pilotage.audit.notes import open_checkpoint
from pilotage.audit.tree import check_inclusion, hash_leaf
from pilotage.governance.bundle import ProvenEntry
from pilotage.governance.bundle_check import Check, EntryContent, check_bundle
from pilotage.kit.clock import parse_rfc3339


def verify_bundle(file: bytes, public_key: bytes | None) -> list[Check]:
    """Return every check of a bundle, in order; the last one is bad if it shows nothing.

    ``public_key`` is the audit log's, as whoever asks knows it; None takes the bundle's word.
    """
    return check_bundle(file, public_key, _read_entry, _check_proof)


def _check_proof(entry: ProvenEntry, note: str, log_name: str, public_key: bytes) -> None:
    checkpoint = open_checkpoint(note, log_name, public_key)
    leaf = hash_leaf(entry.entry)
    if not check_inclusion(leaf, entry.index, checkpoint.size, entry.path, checkpoint.root):
        raise ValueError("its entry is not in the tree of the checkpoint")


def _read_entry(proven: ProvenEntry) -> EntryContent:
    entry = read_entry(proven.entry)
    if not isinstance(entry, RevisionEntry):
        raise ValueError(  # noqa: TRY004 - whatever is wrong with a file is one kind of error
            "an entry is of something else than a change"
        )
    before, after = entry.before, entry.after
    if entry.record is None:
        if proven.record is not None:
            raise ValueError("a record is given that its entry does not name")
        states = {"before": before, "after": after}
    else:
        if hashlib.sha256(proven.record or b"").hexdigest() != entry.record.sha256:
            raise ValueError("the record of a long change is not the one that its entry names")
        states = msgspec.json.decode(proven.record or b"")
    decoded = {
        name: msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
        for name, value in states.items()
    }
    return EntryContent(
        seq=entry.seq,
        event=entry.event,
        object_id=entry.object,
        rev=entry.rev,
        who=entry.who,
        why=entry.why,
        project_id=entry.project,
        at_us=parse_rfc3339(entry.at),
        before=decoded["before"],
        after=decoded["after"],
    )

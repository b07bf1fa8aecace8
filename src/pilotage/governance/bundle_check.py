"""What a bundle shows, checked without a server: each check says in words what it found. Pure.

The proofs against the audit log are checked by a function that is given in: the log knows how.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from pilotage.governance.bundle import (
    Artifact,
    BundledApproval,
    BundleError,
    Payload,
    ProvenEntry,
    open_envelope,
    read_payload,
    to_signed,
)
from pilotage.governance.facts import Version
from pilotage.governance.types import FactKind, Verdict
from pilotage.kit.crypto import is_signed, key_id_of

KEY_BYTES = 32


class EntryContent(NamedTuple):
    """What an entry of the audit log says of a revision; the states as JSON."""

    seq: int
    event: str
    object_id: str
    rev: int
    who: str
    why: str
    project_id: str | None
    at_us: int
    before: Any
    after: Any


class Check(NamedTuple):
    """One check: its name, whether it holds, and what was found."""

    name: str
    is_good: bool
    said: str


Entries = Mapping[int, EntryContent]
"""What the log says of each revision of a bundle, by its number."""

ReadEntry = Callable[[ProvenEntry], EntryContent]
"""Return what an entry says; raise ValueError for one that says nothing of a revision."""

CheckProof = Callable[[ProvenEntry, str, str, bytes], None]
"""Raise ValueError unless an entry is in the tree of a checkpoint that a log's key has signed.

Called as ``check(entry, checkpoint, log_name, public_key)``.
"""


def check_bundle(
    file: bytes, public_key: bytes | None, read_entry: ReadEntry, check_proof: CheckProof
) -> list[Check]:
    """Return every check of a bundle, in order, up to the first that makes the others pointless.

    ``public_key`` is the key of the audit log as whoever checks knows it; None takes the bundle's
    word for it, which shows only that nobody without that key has changed the file.
    """
    checks: list[Check] = []
    try:
        opened = open_envelope(file)
        payload = read_payload(opened.payload)
        key = _read_key(payload, opened.key_id, public_key)
    except BundleError as wrong:
        return [Check("form", is_good=False, said=str(wrong))]
    checks.append(Check("form", is_good=True, said=f"a bundle of decision {payload.decision.id}"))
    if not is_signed(key, to_signed(opened.payload), opened.signature):
        checks.append(Check("signature", is_good=False, said="it is not that of the named key"))
        return checks
    whose = "the key given" if public_key else "the key in the bundle, which nobody vouches for"
    checks.append(Check("signature", is_good=True, said=f"by {opened.key_id}, {whose}"))
    entries: dict[int, EntryContent] = {}
    steps: list[tuple[str, Callable[[], str]]] = [
        ("audit log", lambda: _check_log(payload, key, entries, read_entry, check_proof)),
        *((name, partial(check, payload, entries)) for name, check in _CHECKS.items()),
    ]
    for name, check in steps:
        try:
            checks.append(Check(name, is_good=True, said=check()))
        except (ValueError, msgspec.MsgspecError) as wrong:
            checks.append(Check(name, is_good=False, said=str(wrong)))
            return checks
    return checks


def _read_key(payload: Payload, key_id: str, public_key: bytes | None) -> bytes:
    try:
        key = bytes.fromhex(payload.log.public_key)
    except ValueError:
        raise BundleError("the public key is not written in hex") from None
    if len(key) != KEY_BYTES or key.hex() != payload.log.public_key:
        raise BundleError("the public key is no Ed25519 key in hex")
    if public_key is not None and key != public_key:
        raise BundleError(f"it is of the key {key_id_of(key)}, not of {key_id_of(public_key)}")
    if key_id != key_id_of(key):
        raise BundleError("the signature names another key than the bundle")
    return key


def _check_log(
    payload: Payload,
    key: bytes,
    entries: dict[int, EntryContent],
    read_entry: ReadEntry,
    check_proof: CheckProof,
) -> str:
    """Check that every entry is in a log of the key; fill ``entries`` by revision."""
    log, count = payload.log.name, len(payload.entries)
    if log.rpartition("/")[2] != key_id_of(key):
        raise ValueError(f"the log {log[:80]!r} is not that of the key")
    for entry in payload.entries:
        if not 0 <= entry.checkpoint < len(payload.checkpoints):
            raise ValueError(f"revision {entry.seq} names a checkpoint that is not there")
        try:
            check_proof(entry, payload.checkpoints[entry.checkpoint], log, key)
        except ValueError as wrong:
            raise ValueError(f"revision {entry.seq}: {wrong}") from None
        entries[entry.seq] = read_entry(entry)
        if entries[entry.seq].seq != entry.seq:
            raise ValueError(f"the entry given for revision {entry.seq} is of another one")
    if [entry.seq for entry in payload.entries] != sorted(entries):
        raise ValueError("the revisions are not each there once, in order")
    return f"{count} entries are in {log}, whose checkpoint is signed by the same key"


def _check_record(payload: Payload, entries: Entries) -> str:
    """Check that the record is what the log's entry of it says."""
    decision = payload.decision
    found = _find(entries, decision.seq, "the record")
    _expect(found, "governance.decision.recorded", decision.id, 1)
    content = msgspec.to_builtins(decision) | {"rev": 1}
    content.pop("seq")
    _compare("the record", content, found.after)
    if (found.who, found.why, found.at_us) != (decision.by, decision.reason, decision.at_us):
        raise ValueError("the record names another person, reason or time than its entry")
    return f"{decision.kind} of {decision.subject} by {decision.by}, as logged"


def _check_facts(payload: Payload, entries: Entries) -> str:
    """Check that every fact is there, in order, and what the log's entry of it says."""
    decision = payload.decision
    if [fact.number for fact in payload.facts] != list(range(1, decision.rev)):
        raise ValueError(f"there should be {decision.rev - 1} facts, numbered from 1 on")
    for fact in payload.facts:
        what = f"fact {fact.number}"
        found = _find(entries, fact.seq, what)
        _expect(found, "governance.fact.added", decision.id, fact.number + 1)
        content = {
            "decision_id": decision.id,
            "number": fact.number,
            "kind": fact.kind,
            "content": fact.content,
        }
        _compare(what, content, found.after)
        if (found.who, found.at_us) != (fact.by, fact.at_us):
            raise ValueError(f"{what} names another person or time than its entry")
    return f"{len(payload.facts)} facts: all there were when the bundle was made"


def _check_change(payload: Payload, entries: Entries) -> str:
    """Check that the revisions of the change are there, of the same moment and person."""
    decision = payload.decision
    for seq in decision.revisions:
        found = _find(entries, seq, f"revision {seq} of the change")
        if (found.who, found.at_us) != (decision.by, decision.at_us):
            raise ValueError(f"revision {seq} is not of the change that was decided")
    return f"{len(decision.revisions)} revisions of the change, made in one piece with the record"


def _check_approvals(payload: Payload, entries: Entries) -> str:
    """Check that each approval was given by others than who asked, and used by this change."""
    named = [
        fact.content.get("approval_id") for fact in payload.facts if fact.kind == FactKind.APPROVAL
    ]
    if [item.id for item in payload.approvals] != named:
        raise ValueError("the approvals are not those that the facts name")
    for approval in payload.approvals:
        mine = [entry for entry in entries.values() if entry.object_id == approval.id]
        _check_approval(approval, mine, payload.decision.revisions)
    if not payload.approvals:
        return "none was used"
    return f"{len(payload.approvals)} used, given by others than who asked"


def _check_approval(
    approval: BundledApproval, entries: Sequence[EntryContent], change: Sequence[int]
) -> None:
    name = f"approval {approval.id}"
    if len(entries) < _SHORTEST or [e.rev for e in entries] != list(range(1, len(entries) + 1)):
        raise ValueError(f"{name} lacks a revision")
    asked, *words, used = entries
    if used.event != "governance.approval.used" or used.seq not in change:
        raise ValueError(f"{name} was not used by this change")
    given = msgspec.convert(words[-1].after, BundledApproval)
    _compare(name, approval, given)
    approvers = {vote.by for vote in given.votes if vote.verdict is Verdict.APPROVE}
    is_logged = approvers == {entry.who for entry in words} and asked.who == given.requested_by
    if not is_logged or len(approvers) < given.needed:
        raise ValueError(f"{name} was not given by those who are said to have given it")
    if approvers & {given.requested_by, *given.authors}:
        raise ValueError(f"{name} was given by who asked for it or made what it is of")


def _check_artifacts(payload: Payload, _: Entries) -> str:
    """Check that the artifact hashes are those of the facts."""
    versions = [
        msgspec.convert(fact.content, Version)
        for fact in payload.facts
        if fact.kind == FactKind.VERSION
    ]
    stated = [
        Artifact(
            side=item.side,
            version=item.version,
            version_id=item.version_id,
            sha256=item.artifact_sha256,
        )
        for item in versions
    ]
    if payload.artifacts != stated:
        raise ValueError("the list of artifacts is not what the facts say")
    return f"{len(stated)} artifact hashes" if stated else "no artifact is named"


_SHORTEST = 3  # entries of an approval that was used: asked, given, used
_CHECKS: dict[str, Callable[[Payload, Entries], str]] = {
    "record": _check_record,
    "facts": _check_facts,
    "change": _check_change,
    "approvals": _check_approvals,
    "artifacts": _check_artifacts,
}


def _find(entries: Entries, seq: int, what: str) -> EntryContent:
    if seq not in entries:
        raise ValueError(f"{what} has no entry of the audit log")
    return entries[seq]


def _expect(found: EntryContent, event: str, object_id: str, rev: int) -> None:
    if (found.event, found.object_id, found.rev) != (event, object_id, rev):
        raise ValueError(f"revision {found.seq} is of something else: {found.event}")


def _compare(what: str, stated: object, logged: object) -> None:
    if _text(stated) != _text(logged):
        raise ValueError(f"{what} is not what the audit log says")


def _text(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")

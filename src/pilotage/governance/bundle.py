"""The signed bundle of a decision: its form, and the envelope around it.

A bundle is one file that proves a decision without a server: the record, its facts and approvals,
and for every revision they rest on the entry of the audit log with its proof. The envelope is DSSE
(github.com/secure-systems-lab/dsse) with one Ed25519 signature by the key of the audit log; the
form is described in docs/reference/decision-bundle.md for whoever reads it with another program.
"""

import binascii
from collections.abc import Callable
from typing import Any

import msgspec

from pilotage.governance.facts import ApprovalVote

PAYLOAD_TYPE = "application/vnd.pilotage.decision-bundle.v1+json"
MOST_BYTES = 64 << 20


class BundleError(ValueError):
    """What is wrong with a bundle, in words."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The decision record."""

    id: str
    rev: int
    seq: int
    project_id: str
    kind: str
    subject_id: str
    subject: str
    before: Any
    after: Any
    evidence: list[str]
    revisions: list[int]
    reason: str
    by: str
    at_us: int


class BundledFact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fact of the decision."""

    number: int
    seq: int
    kind: str
    content: dict[str, Any]
    by: str
    at_us: int


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model version that the decision is about, and the hash of its artifact."""

    side: str
    version: str
    version_id: str
    sha256: str


class BundledApproval(msgspec.Struct, frozen=True, kw_only=True):
    """An approval, as it was asked and given; what became of it is in its entries."""

    id: str
    project_id: str
    action: str
    subject_id: str
    subject: str
    subject_hash: str
    authors: list[str]
    reason: str
    evidence: list[str]
    needed: int
    role: str
    requested_by: str
    requested_at_us: int
    expires_at_us: int
    votes: list[ApprovalVote]


class LogKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which audit log it is: its name, and its public key in hex."""

    name: str
    public_key: str


class ProvenEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of the audit log and the proof that it is in the tree of a checkpoint.

    ``record`` holds the states of a change that was too long for its entry, which names its hash.
    """

    seq: int
    entry: bytes
    record: bytes | None
    index: int
    path: list[bytes]
    checkpoint: int


class Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed. ``approvals`` are those that the decision used."""

    format: int
    made_at: str
    log: LogKey
    checkpoints: list[str]
    decision: Record
    facts: list[BundledFact]
    approvals: list[BundledApproval]
    artifacts: list[Artifact]
    entries: list[ProvenEntry]


class _Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keyid: str
    sig: bytes


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    payload: bytes
    payloadType: str  # noqa: N815 - the name is DSSE's
    signatures: list[_Signature]


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope of the right form; nothing of it is believed yet."""

    payload: bytes
    key_id: str
    signature: bytes


def write_bundle(payload: Payload, key_id: str, sign: Callable[[bytes], bytes]) -> bytes:
    """Return a bundle as a file."""
    content = msgspec.json.encode(payload)
    signature = _Signature(keyid=key_id, sig=sign(to_signed(content)))
    return _write(_Envelope(payload=content, payloadType=PAYLOAD_TYPE, signatures=[signature]))


def open_envelope(file: bytes) -> Opened:
    """Return what is in the envelope; raise :class:`BundleError` for any other file.

    There is one way to write an envelope, to the byte: what was changed anywhere is seen.
    """
    if len(file) > MOST_BYTES:
        raise BundleError(f"the file has more than {MOST_BYTES} bytes")
    try:
        envelope = msgspec.json.decode(file, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error) as wrong:
        raise BundleError(f"the file is no bundle: {wrong}") from None
    if envelope.payloadType != PAYLOAD_TYPE:
        raise BundleError(f"the file holds {envelope.payloadType[:80]!r}, not {PAYLOAD_TYPE!r}")
    if len(envelope.signatures) != 1:
        raise BundleError(f"the file has {len(envelope.signatures)} signatures, not one")
    if _write(envelope) != file:
        raise BundleError("the file is not written the one way a bundle is")
    (signature,) = envelope.signatures
    return Opened(payload=envelope.payload, key_id=signature.keyid, signature=signature.sig)


def read_payload(content: bytes) -> Payload:
    """Return what was signed; raise :class:`BundleError` if it has another form."""
    try:
        payload = msgspec.json.decode(content, type=Payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise BundleError(f"what is signed is no decision: {wrong}") from None
    if payload.format != 1:
        raise BundleError(f"the bundle has format {payload.format}, this program reads 1")
    return payload


def to_signed(content: bytes) -> bytes:
    """Return the bytes that the signature is of: DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(content), content)


def _write(envelope: _Envelope) -> bytes:
    return msgspec.json.encode(envelope) + b"\n"

"""Checking a proof offline, with nothing but the file and a public key."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from pilotage.audit.notes import open_checkpoint
from pilotage.audit.tree import check_inclusion, hash_leaf

__all__ = ["ProofFile", "Shown", "check_file", "check_inclusion", "check_proof", "split_proofs"]


class CallPart(msgspec.Struct, frozen=True, kw_only=True):
    """The call's part of a proof: its line among the calls of a sealed block."""

    line: str
    index: int
    calls: int
    path: Sequence[str]


class ProofFile(msgspec.Struct, frozen=True, kw_only=True):
    """A proof as the API shows it: hashes and key in hex."""

    log: str
    public_key: str
    entry: str
    index: int
    size: int
    path: Sequence[str]
    checkpoint: str
    call: CallPart | None = None


class Shown(NamedTuple):
    """What a proof shows: an entry, or a call in it. ``problem`` says why it shows nothing."""

    problem: str
    log: str = ""
    position: int = 0
    size: int = 0
    entry: Any = None


def check_file(content: bytes, public_key: str = "") -> Shown:
    """Check a proof that was written to a file; without a key, with the one that it names."""
    try:
        proof = msgspec.json.decode(content, type=ProofFile)
        return check_proof(proof, bytes.fromhex(public_key or proof.public_key))
    except msgspec.DecodeError as wrong:
        return Shown(f"this is no proof: {wrong}")
    except ValueError as wrong:
        return Shown(str(wrong))


def split_proofs(content: bytes) -> list[bytes]:
    """Return the proofs of a file: one, or one on each line."""
    lines = content.splitlines()
    try:
        msgspec.json.decode(lines[0] if lines else b"")
    except msgspec.DecodeError:
        return [content]
    return lines


def check_proof(proof: ProofFile, public_key: bytes) -> Shown:
    """Check that the checkpoint is signed, and that the entry is in the tree that it signs."""
    try:
        checkpoint = open_checkpoint(proof.checkpoint, proof.log, public_key)
        path = [bytes.fromhex(step) for step in proof.path]
    except ValueError as wrong:
        return Shown(str(wrong))
    if checkpoint.size != proof.size:
        return Shown(f"the checkpoint is of {checkpoint.size} entries, the proof of {proof.size}")
    leaf = hash_leaf(proof.entry.encode())
    if not check_inclusion(leaf, proof.index, proof.size, path, checkpoint.root):
        return Shown("the entry is not in the tree that the checkpoint signs")
    entry = msgspec.json.decode(proof.entry)
    if proof.call is not None:
        if not _is_call_in_block(proof.call, entry):
            return Shown("the call is not in the block that the entry speaks of")
        entry = msgspec.json.decode(proof.call.line)
    return Shown("", proof.log, proof.index, proof.size, entry)


def _is_call_in_block(call: CallPart, entry: Any) -> bool:  # noqa: ANN401 - it is JSON
    if not isinstance(entry, dict) or entry.get("kind") != "calls" or entry["calls"] != call.calls:
        return False
    path = [bytes.fromhex(step) for step in call.path]
    leaf, root = hash_leaf(call.line.encode()), bytes.fromhex(entry["root"])
    return check_inclusion(leaf, call.index, call.calls, path, root)

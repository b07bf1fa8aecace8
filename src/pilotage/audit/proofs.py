"""Checking a proof offline, with nothing but the file and a public key."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from pilotage.audit.notes import open_checkpoint
from pilotage.audit.tree import check_inclusion, hash_leaf

__all__ = ["ProofFile", "Shown", "check_file", "check_inclusion", "check_proof"]


class ProofFile(msgspec.Struct, frozen=True, kw_only=True):
    """A proof as the API shows it: hashes and key in hex."""

    log: str
    public_key: str
    entry: str
    index: int
    size: int
    path: Sequence[str]
    checkpoint: str


class Shown(NamedTuple):
    """What a proof shows; ``problem`` says why it shows nothing."""

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
    return Shown("", proof.log, proof.index, proof.size, msgspec.json.decode(proof.entry))

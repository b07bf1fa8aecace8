"""Checks proofs of the audit log without a server or a data folder."""

from pilotage.audit.proofs import Shown, check_file, split_proofs


def check_proofs(content: bytes, public_key: str = "") -> list[Shown]:
    """Check what a file holds: one proof, or one on each line.

    ``public_key`` is the log's in hex; without it, each proof's own word is taken.
    """
    return [check_file(proof, public_key) for proof in split_proofs(content)]

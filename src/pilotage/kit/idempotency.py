"""Replies kept under an ``Idempotency-Key``, so that a repeated POST does nothing twice."""

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.kit.db import METADATA, Tx

KEPT_US = 24 * 3_600_000_000
MAX_KEY = 255
_INTERRUPTED = 0  # the status of a reply that never came

KEPT_REPLY = sa.Table(
    "kept_reply",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("principal_id", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("body", sa.Text),
    sa.Column("at_us", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReply:
    """The reply to the first request of a key.

    ``body_sha256`` is of the raw body that the request streamed; empty where it streamed none.
    """

    status: int
    body: str
    body_sha256: str


async def claim_key(tx: Tx, key: str, request: bytes) -> KeptReply | None:
    """Take a key for a request; return the reply if the same request was answered before.

    Raises ``idempotency_mismatch`` if the key belongs to another request, ``conflict`` if the same
    request is still being answered, or was interrupted before it could be.
    """
    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise PilotageError("invalid_request", f"An Idempotency-Key has 1 to {MAX_KEY} letters.")
    await tx.change(tx.delete(KEPT_REPLY).where(KEPT_REPLY.c.at_us < tx.now_us - KEPT_US))
    fingerprint = hashlib.sha256(request).hexdigest()
    row = await tx.find(tx.select(KEPT_REPLY).where(*_is(tx, key)))
    if row is None:
        principal = tx.actor.principal_id
        await tx.insert(
            KEPT_REPLY, key=key, principal_id=principal, request=fingerprint, at_us=tx.now_us
        )
        return None
    asked_first, _, body_sha256 = row["request"].partition(" ")
    if asked_first != fingerprint:
        raise _mismatch()
    if row["status"] is None:
        raise PilotageError(
            "conflict", "The first request with this Idempotency-Key has not been answered yet."
        )
    if row["status"] == _INTERRUPTED:
        raise PilotageError(
            "conflict",
            "The first request with this Idempotency-Key was interrupted: whether it has changed "
            "anything is not known.",
            hint="Read what there is; if it was not done, ask again with another key.",
        )
    return KeptReply(status=row["status"], body=row["body"], body_sha256=body_sha256)


def check_same(kept: KeptReply, body_sha256: str) -> None:
    """Raise ``idempotency_mismatch`` if the raw body is not the one that was answered."""
    if kept.body_sha256 != body_sha256:
        raise _mismatch()


async def keep_reply(tx: Tx, key: str, status: int, body: str, body_sha256: str = "") -> None:
    """Keep the reply to the request that claimed a key."""
    request = KEPT_REPLY.c.request + (f" {body_sha256}" if body_sha256 else "")
    changed = tx.update(KEPT_REPLY).where(*_is(tx, key))
    await tx.change(changed.values(status=status, body=body, request=request))


async def release_key(tx: Tx, key: str) -> None:
    """Give a key back after a request that changed nothing."""
    await tx.change(tx.delete(KEPT_REPLY).where(*_is(tx, key)))


async def interrupt_key(tx: Tx, key: str) -> None:
    """Say that the reply to the request of a key is lost, though it may have changed something."""
    await tx.change(tx.update(KEPT_REPLY).where(*_is(tx, key)).values(status=_INTERRUPTED, body=""))


async def interrupt_keys(tx: Tx) -> int:
    """Say so of every request that an earlier process left without a reply; return how many."""
    left = tx.update(KEPT_REPLY).where(KEPT_REPLY.c.status.is_(None))
    return await tx.change(left.values(status=_INTERRUPTED, body=""))


def _mismatch() -> PilotageError:
    return PilotageError(
        "idempotency_mismatch", "This Idempotency-Key was used for another request."
    )


def _is(tx: Tx, key: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return KEPT_REPLY.c.key == key, KEPT_REPLY.c.principal_id == tx.actor.principal_id

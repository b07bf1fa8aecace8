"""Keys of repeated requests on both databases: taken, answered, interrupted, forgotten."""

import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.idempotency import (
    KEPT_US,
    KeptReply,
    claim_key,
    interrupt_key,
    interrupt_keys,
    keep_reply,
    release_key,
)

ADA, BEN = Actor(principal_id="usr_ada"), Actor(principal_id="usr_ben")


async def claim(database: Database, actor: Actor, key: str = "k") -> KeptReply | None:
    async with database.write(actor) as tx:
        return await claim_key(tx, key, b"POST /x")


async def refuse(database: Database, actor: Actor, key: str = "k") -> PilotageError:
    with pytest.raises(PilotageError) as refused:
        await claim(database, actor, key)
    assert refused.value.code == "conflict"
    return refused.value


async def test_a_start_marks_what_was_not_answered_and_nothing_else(database: Database) -> None:
    for key in ("answered", "given back", "left"):
        assert await claim(database, ADA, key) is None
    assert await claim(database, BEN, "left") is None
    async with database.write(ADA) as tx:
        await keep_reply(tx, "answered", 201, "{}")
        await release_key(tx, "given back")
    assert "not been answered yet" in (await refuse(database, ADA, "left")).detail
    async with database.write(SYSTEM) as tx:
        assert await interrupt_keys(tx) == 2
        assert await interrupt_keys(tx) == 0

    for actor in (ADA, BEN):
        told = await refuse(database, actor, "left")
        assert "not known" in told.detail
        assert "another key" in told.hint
    assert await claim(database, ADA, "answered") == KeptReply(
        status=201, body="{}", body_sha256=""
    )
    assert await claim(database, ADA, "given back") is None


async def test_what_was_interrupted_is_somebodys_own_and_kept_for_a_day(
    database: Database, clock: ManualClock
) -> None:
    await claim(database, ADA)
    await claim(database, BEN)
    async with database.write(ADA) as tx:
        await interrupt_key(tx, "k")
    assert "not known" in (await refuse(database, ADA)).detail
    assert "not been answered yet" in (await refuse(database, BEN)).detail
    clock.advance(KEPT_US / 1e6 + 1)

    assert await claim(database, ADA) is None

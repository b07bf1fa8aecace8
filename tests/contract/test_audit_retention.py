"""Pruning and legal holds on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from made_frames import make_call_frames
from pilotage.audit.calls import CallSealer
from pilotage.audit.holds import HoldService
from pilotage.audit.inspection import AuditInspection
from pilotage.audit.open_log import open_log
from pilotage.audit.retention import Pruner, count_pruned
from pilotage.audit.service import AuditService
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.crypto import Signer
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import append_revision
from pilotage.kit.spool import open_spool

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
DAY_S = 86_400
KEEP_US = 30 * DAY_S * 1_000_000
OLD = 600


@pytest.fixture
async def service(
    database: Database, clock: ManualClock, tmp_path: Path
) -> AsyncIterator[AuditService]:
    """A log of 600 old changes, one of them long, a block of calls, and 10 new changes."""
    async with open_log(tmp_path / "audit", SIGNER) as log:
        service = AuditService(database, log)
        spool = open_spool(
            tmp_path / "spool" / "gateway-0",
            segment_bytes=1 << 20,
            reserve_bytes=16_384,
            sync="none",
        )
        with spool:
            for number, frame in enumerate(make_call_frames(20)):
                (spool.append_end if number % 2 else spool.append)(frame)
        sealer = CallSealer(service, tmp_path / "spool", clock)
        await sealer.seal_all()
        sealer.close()
        await change(database, OLD - 1)
        async with database.write(SYSTEM) as tx:
            await append_revision(tx, "things.thing.grown", "long", 1, {"text": "x" * 70_000})
        await fill(service)
        clock.advance(60 * DAY_S)
        await change(database, 10, first=OLD)
        await fill(service)
        yield service


async def change(database: Database, count: int, first: int = 0) -> None:
    async with database.write(SYSTEM) as tx:
        for number in range(first, first + count):
            await append_revision(tx, "things.thing.changed", f"thing_{number}", 1, {"n": number})


async def fill(service: AuditService) -> None:
    while await service.append_next():
        pass


async def test_old_bundles_lose_their_texts_and_every_hash_stays(
    database: Database, service: AuditService, clock: ManualClock
) -> None:
    await service.log.publish()
    files_before = {path.name for path in (service.log.folder / "tile" / "entries").iterdir()}
    blocks_before = list((service.log.folder / "calls").rglob("*.z"))
    pruner = Pruner(database, service, HoldService(clock), KEEP_US)

    removed = await pruner.prune(SYSTEM)
    again = await pruner.prune(SYSTEM)
    report = await AuditInspection(database, service, []).verify()

    assert (removed, again) == (512, 0)
    assert {"000", "001"} <= files_before
    assert not (service.log.folder / "tile" / "entries" / "000").exists()
    assert (service.log.folder / "tile" / "0" / "000").exists()
    assert len(blocks_before) == 1
    assert not blocks_before[0].exists()
    assert list((service.log.folder / "records").rglob("*/*"))  # the long one is young enough
    assert report.is_intact, report.findings
    assert "the first 512 entries have only their hashes" in report.findings[1].says
    async with database.read(SYSTEM) as tx:
        assert await count_pruned(tx, service.log) == 512
        (first,) = await service.search(tx, limit=1)
        (said,) = await service.search(tx, limit=10, event_prefix="audit.log.pruned")
        proof = await service.prove_revision(tx, OLD + 5)
    assert (first.position, said.object_id) == (512, service.log.name)
    assert proof.index > 512
    for place in (0, 511):
        with pytest.raises(PilotageError, match="pruned"):
            await service.prove(place)


async def test_a_hold_stops_pruning_until_it_is_released(
    database: Database, service: AuditService, clock: ManualClock
) -> None:
    holds = HoldService(clock)
    pruner = Pruner(database, service, holds, KEEP_US)
    async with database.write(SYSTEM) as tx:
        await holds.create_hold(tx, "case-1", "a letter")

    with pytest.raises(PilotageError) as refused:
        await pruner.prune(SYSTEM)
    await pruner.step()
    kept = (service.log.folder / "tile" / "entries" / "000").exists()
    async with database.write(SYSTEM) as tx:
        released = await holds.release_hold(tx, "case-1")
        assert await holds.release_hold(tx, released.id) == released
    await pruner.step()

    assert (refused.value.code, kept) == ("on_hold", True)
    assert "case-1" in refused.value.detail
    assert not (service.log.folder / "tile" / "entries" / "000").exists()
    assert released.released_by == "system"


async def test_holds_are_named_once_and_need_a_reason(
    database: Database, clock: ManualClock
) -> None:
    holds = HoldService(clock)
    async with database.write(SYSTEM) as tx:
        await holds.create_hold(tx, "case-1", "a letter")
        await holds.create_hold(tx, "case-2", "another")
        await holds.release_hold(tx, "case-1")
        for name, reason, code in (
            ("case-1", "again", "already_exists"),
            ("case-3", " ", "invalid_request"),
            ("not a name", "why", "invalid_request"),
        ):
            with pytest.raises(PilotageError) as refused:
                await holds.create_hold(tx, name, reason)
            assert refused.value.code == code
        with pytest.raises(PilotageError, match="no hold"):
            await holds.get_hold(tx, "case-9")
        in_force = await holds.find_in_force(tx)
        listed = await holds.list_holds(tx, "case-1")

    assert in_force is not None
    assert (in_force.name, [hold.name for hold in listed]) == ("case-2", ["case-2"])

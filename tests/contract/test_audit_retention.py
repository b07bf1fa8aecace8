"""Pruning and legal holds on both databases."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from made_frames import make_call_frames
from pilotage.audit.calls import CallProofs, CallSealer, read_lines
from pilotage.audit.holds import HoldService
from pilotage.audit.inspection import AuditInspection
from pilotage.audit.open_log import open_log
from pilotage.audit.retention import Pruner, count_pruned
from pilotage.audit.service import AuditService
from pilotage.audit.store import list_blocks
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


async def test_a_hold_that_is_placed_while_pruning_keeps_what_is_there(
    database: Database,
    service: AuditService,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holds = HoldService(clock)
    pruner = Pruner(database, service, holds, KEEP_US)

    async def place() -> None:
        async with database.write(SYSTEM) as tx:
            await holds.create_hold(tx, "case-1", "a letter")

    with monkeypatch.context() as patched:
        patched.setattr(service, "append_next", after(service.append_next, place))
        with pytest.raises(PilotageError, match="case-1"):
            await pruner.prune(SYSTEM)

    kept = (service.log.folder / "tile" / "entries" / "000").exists()
    blocks = list((service.log.folder / "calls").rglob("*.z"))
    async with database.read(SYSTEM) as tx:
        (first,) = await service.search(tx, limit=1)
        assert await count_pruned(tx, service.log) == 512  # it was said that they would go
    assert (kept, len(blocks), first.position) == (True, 1, 0)
    assert (await AuditInspection(database, service, []).verify()).is_intact
    async with database.write(SYSTEM) as tx:
        await holds.release_hold(tx, "case-1")
    await pruner.prune(SYSTEM)
    assert not (service.log.folder / "tile" / "entries" / "000").exists()


async def test_no_hold_is_acknowledged_between_the_look_for_one_and_what_goes_then(
    database: Database, clock: ManualClock
) -> None:
    holds = HoldService(clock)
    order: list[str] = []

    async def place() -> None:
        async with database.write(SYSTEM) as tx:
            await holds.create_hold(tx, "case-1", "a letter")
        order.append("placed")

    async with database.write(SYSTEM) as tx:
        await holds.check_none(tx, "nothing is pruned")
        placing = asyncio.create_task(place())
        for _ in range(50):  # which is time enough to place it
            async with database.read(SYSTEM) as other:
                await holds.find_in_force(other)
        order.append("looked")
    await placing

    assert order == ["looked", "placed"]


async def test_nothing_goes_before_the_log_says_so(
    database: Database,
    service: AuditService,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pruner = Pruner(database, service, HoldService(clock), KEEP_US)

    async def refuse(_: int = 0) -> bool:
        raise PilotageError("audit_unavailable", "The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(service, "append_next", refuse)
        for _ in range(2):  # the second time it is announced already
            with pytest.raises(PilotageError, match="disk is full"):
                await pruner.prune(SYSTEM)

    assert (service.log.folder / "tile" / "entries" / "000").exists()
    await pruner.prune(SYSTEM)
    assert not (service.log.folder / "tile" / "entries" / "000").exists()


async def test_calls_whose_blocks_are_pruned_are_not_sealed_again(
    database: Database, service: AuditService, clock: ManualClock, tmp_path: Path
) -> None:
    async with database.read(SYSTEM) as tx:
        (block,) = await list_blocks(tx, 0)
    (line, *_) = read_lines(service.log.folder, block)
    await Pruner(database, service, HoldService(clock), KEEP_US).prune(SYSTEM)
    size = service.log.size

    sealer = CallSealer(service, tmp_path / "spool", clock)  # of a process that begins
    await sealer.seal_all()
    sealer.close()

    assert service.log.size == size
    async with database.read(SYSTEM) as tx:
        with pytest.raises(PilotageError, match="may be pruned"):
            await CallProofs(service).prove(tx, msgspec.json.decode(line)["call"])


@pytest.mark.parametrize("is_waiting", [False, True])
async def test_a_record_that_changes_share_goes_with_the_last_of_them(
    database: Database,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_waiting: bool,
) -> None:
    """The second change is in the log, or committed while the first is pruned."""

    async def write_long(name: str) -> None:
        async with database.write(SYSTEM) as tx:
            await append_revision(tx, "things.thing.grown", name, 1, {"text": "x" * 70_000})

    async with open_log(tmp_path / "audit", SIGNER) as log:
        service = AuditService(database, log)
        pruner = Pruner(database, service, HoldService(clock), KEEP_US)
        await write_long("older")
        await change(database, OLD)
        await fill(service)
        clock.advance(60 * DAY_S)
        if not is_waiting:
            await write_long("younger")
            await fill(service)

        with monkeypatch.context() as patched:
            if is_waiting:
                write = partial(write_long, "younger")
                patched.setattr(service, "append_next", after(service.append_next, write))
            assert await pruner.prune(SYSTEM) == 512

        assert len(list((log.folder / "records").rglob("*/*"))) == 1
        report = await AuditInspection(database, service, []).verify()
        assert report.is_intact, report.findings
        await change(database, OLD, first=OLD)
        await fill(service)
        clock.advance(60 * DAY_S)
        await change(database, 1, first=2 * OLD)
        await fill(service)
        assert await pruner.prune(SYSTEM) == 512
        assert list((log.folder / "records").rglob("*/*")) == []


def after(
    append: Callable[[], Awaitable[bool]], do: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[bool]]:
    """Return what appends everything, and does something besides then."""

    async def append_all() -> bool:
        while await append():
            pass
        await do()
        return False

    return append_all


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

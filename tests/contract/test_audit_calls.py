"""Every call in the log: sealed exactly once, proved down to the call, on both databases."""

import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import rfc6962
from made_frames import AT_US, make_call_frames
from pilotage.audit.calls import LONGEST_OPEN_S, CallProofs, CallSealer
from pilotage.audit.inspection import AuditInspection
from pilotage.audit.notes import open_checkpoint
from pilotage.audit.open_log import open_log
from pilotage.audit.service import AuditService
from pilotage.audit.store import AUDIT_BLOCK, AUDIT_INDEX
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, decode_frame
from pilotage.core.ids import make_id
from pilotage.kit.clock import ManualClock
from pilotage.kit.crypto import Signer
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.spool import SpoolWriter, open_spool

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
EVERY = 10
NOBODYS = make_id("call", AT_US, b"\xff" * 10)


def open_writer(root: Path, gateway: str = "gateway-0") -> SpoolWriter:
    return open_spool(root / gateway, segment_bytes=1 << 20, reserve_bytes=16_384, sync="none")


def ids_of(frames: list[bytes]) -> list[str]:
    decoded = [decode_frame(frame) for frame in frames]
    return [frame.call_id for frame in decoded if isinstance(frame, Ended)]


def put(spool: SpoolWriter, frames: list[bytes]) -> None:
    for number, frame in enumerate(frames):
        (spool.append_end if number % 2 else spool.append)(frame)


@pytest.fixture
async def service(database: Database, tmp_path: Path) -> AsyncIterator[AuditService]:
    async with open_log(tmp_path / "audit", SIGNER) as log:
        yield AuditService(database, log)


@pytest.fixture
def spools(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def read_sealed(folder: Path) -> list[str]:
    """Return the ids of every sealed call, read without the product."""
    lines = [
        line
        for path in sorted(folder.rglob("*.z"))
        for line in zlib.decompress(path.read_bytes()).splitlines()
    ]
    return [msgspec.json.decode(line)["call"] for line in lines]


async def test_calls_are_sealed_when_they_have_waited_long_enough(
    database: Database, service: AuditService, spools: Path, clock: ManualClock
) -> None:
    frames = make_call_frames(40)
    sealer = CallSealer(service, spools, clock)
    with open_writer(spools) as spool:
        put(spool, frames)
        assert not await sealer.step()
        at_once = service.log.size
        clock.advance(LONGEST_OPEN_S)
        await sealer.step()
        await sealer.step()
    sealer.close()

    entry = msgspec.json.decode(await service.read_entry(1))
    assert (at_once, service.log.size) == (1, 2)
    assert (entry["kind"], entry["calls"], entry["first_seq"], entry["last_seq"]) == (
        "calls",
        20,
        1,
        40,
    )
    assert read_sealed(service.log.folder) == ids_of(frames)


async def test_a_call_is_proved_down_to_its_line(
    database: Database, service: AuditService, spools: Path, clock: ManualClock
) -> None:
    frames = make_call_frames(2 * EVERY)
    sealer = CallSealer(service, spools, clock)
    with open_writer(spools) as first, open_writer(spools, "gateway-1") as second:
        put(first, frames[:EVERY])
        put(second, frames[EVERY:])
        await sealer.seal_all()
    sealer.close()

    for call_id in ids_of(frames):
        async with database.read(SYSTEM) as tx:
            proof = await CallProofs(service).prove(tx, call_id)
        entry = msgspec.json.decode(proof.block.entry)
        line = msgspec.json.decode(proof.line)
        root = rfc6962.root_of_path(
            proof.index, proof.calls, rfc6962.hash_list([proof.line]), proof.path
        )
        checkpoint = open_checkpoint(proof.block.checkpoint, service.log.name, SIGNER.public)
        assert root.hex() == entry["root"]
        assert checkpoint.root == rfc6962.root_of_path(
            proof.block.index,
            proof.block.size,
            rfc6962.hash_list([proof.block.entry]),
            proof.block.path,
        )
        assert (line["call"], line["tenant"], line["cost_nano"]) == (call_id, "ten_1", 1_500_000)
        assert "user" not in line
    async with database.read(SYSTEM) as tx:
        for wrong, code in (("call_1", "invalid_request"), (NOBODYS, "not_found")):
            with pytest.raises(PilotageError) as refused:
                await CallProofs(service).prove(tx, wrong)
            assert refused.value.code == code


async def test_nothing_is_sealed_twice_wherever_it_stopped(
    database: Database, service: AuditService, spools: Path, clock: ManualClock
) -> None:
    frames = make_call_frames(6 * EVERY)
    with open_writer(spools) as spool:
        for at in range(0, len(frames), EVERY):
            put(spool, frames[at : at + EVERY])
            sealer = CallSealer(service, spools, clock)
            await sealer.step()  # killed with these in memory
            sealer.close()
            if at % 20:
                sealer = CallSealer(service, spools, clock)
                await sealer.seal_all()
                sealer.close()

    assert read_sealed(service.log.folder) == ids_of(frames)


async def test_a_block_that_was_not_indexed_is_not_sealed_again(
    database: Database, service: AuditService, spools: Path, clock: ManualClock
) -> None:
    frames = make_call_frames(2 * EVERY)
    with open_writer(spools) as spool:
        put(spool, frames[:EVERY])
        sealer = CallSealer(service, spools, clock)
        await sealer.seal_all()
        sealer.close()
        async with database.write(SYSTEM) as tx:  # killed after the log, before the index
            for table in (AUDIT_INDEX, AUDIT_BLOCK):
                await tx.change(tx.delete(table).where(table.c.position > 0))
        put(spool, frames[EVERY:])
        again = AuditService(database, service.log)
        sealer = CallSealer(again, spools, clock)
        await sealer.seal_all()
        sealer.close()

    assert read_sealed(service.log.folder) == ids_of(frames)
    assert (await AuditInspection(database, again, []).verify()).is_intact


async def test_a_block_that_was_altered_proves_nothing(
    database: Database, service: AuditService, spools: Path, clock: ManualClock
) -> None:
    frames = make_call_frames(EVERY)
    with open_writer(spools) as spool:
        put(spool, frames)
        sealer = CallSealer(service, spools, clock)
        await sealer.seal_all()
        sealer.close()
    (path,) = service.log.folder.rglob("*.z")
    lines = zlib.decompress(path.read_bytes())
    whole = await AuditInspection(database, service, []).verify()
    path.write_bytes(zlib.compress(lines.replace(b"1500000", b"1400000", 1)))
    altered = await AuditInspection(database, service, []).verify()

    async with database.read(SYSTEM) as tx:
        with pytest.raises(PilotageError) as refused:
            await CallProofs(service).prove(tx, ids_of(frames)[0])
    assert refused.value.code == "audit_broken"
    assert "5 calls in sealed blocks" in whole.findings[-1].says
    assert (whole.is_intact, altered.is_intact) == (True, False)
    assert "is not the one that was sealed" in altered.findings[-1].says


async def test_a_spool_is_kept_until_its_calls_are_sealed(
    database: Database, service: AuditService, spools: Path, clock: ManualClock
) -> None:
    sealer = CallSealer(service, spools, clock)
    folder = spools / "gateway-0"
    with open_writer(spools) as spool:
        unknown = sealer.sealed_until(folder)
        put(spool, make_call_frames(EVERY))
        await sealer.step()
        waiting = sealer.sealed_until(folder)
        await sealer.seal_all()
        sealed = sealer.sealed_until(folder)
        spool.append(make_call_frames(1)[0])
        await sealer.step()
        begun = sealer.sealed_until(folder)
    sealer.close()

    assert (unknown, waiting, sealed, begun) == (0, 0, EVERY, EVERY + 1)


async def test_users_are_called_what_they_are_told_to_be_called(
    database: Database, service: AuditService, spools: Path, clock: ManualClock
) -> None:
    frame = decode_frame(make_call_frames(2)[1])
    named = msgspec.structs.replace(frame, user="ann@example.com")
    sealer = CallSealer(
        service, spools, clock, label_user=lambda tenant, user: f"{tenant}:{len(user)}"
    )
    with open_writer(spools) as spool:
        spool.append_end(msgspec.msgpack.encode(named))
        await sealer.seal_all()
    sealer.close()

    (path,) = service.log.folder.rglob("*.z")
    assert msgspec.json.decode(zlib.decompress(path.read_bytes()))["user"] == "ten_1:15"

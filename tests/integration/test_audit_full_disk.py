"""The audit log on a disk that is really full: nothing is torn, and nothing is there twice."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotage.audit.inspection import AuditInspection
from pilotage.audit.open_log import open_log
from pilotage.audit.service import AuditService
from pilotage.audit.verification import verify_files
from pilotage.core.errors import PilotageError
from pilotage.kit.crypto import Signer
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.outbox import append_revision

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ANN = Actor(principal_id="prn_ann")
DISK_BYTES = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "pilotage-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("count", [7, 256, 300])
async def test_a_full_disk_refuses_and_goes_on_where_it_was(disk: Path, count: int) -> None:
    filler = disk / "filler"
    filler.write_bytes(b"x" * (DISK_BYTES // 2))
    acknowledged = 0
    async with open_log(disk / "log", SIGNER) as log:
        with pytest.raises(PilotageError) as refused:
            while True:
                await log.append(make_entries(acknowledged, count))
                acknowledged += count
        filler.unlink()
        there = await log.count()
        await log.append(make_entries(there, count))
        await log.publish()
        entries = await log.read_from(0, 100_000)

    assert refused.value.code == "audit_unavailable"
    assert "No space left" in refused.value.detail
    assert acknowledged <= there < acknowledged + count
    assert entries == make_entries(0, there + count)
    assert verify_files(disk / "log", log.name, SIGNER.public, processes=1).size == len(entries)


async def test_changes_are_refused_while_they_cannot_be_audited(
    database: Database, disk: Path
) -> None:
    filler = disk / "filler"
    async with open_log(disk / "log", SIGNER) as log:
        service = AuditService(database, log)
        database.before_commit.append(service.check_writable)
        await change(database, ANN, 1)
        await service.append_next()
        with pytest.raises(OSError, match="No space"), filler.open("wb") as file:
            file.write(b"x" * DISK_BYTES)
        await change(database, ANN, 2)  # nobody knows yet
        with pytest.raises(PilotageError) as failed:
            await service.append_next()
        with pytest.raises(PilotageError) as refused:
            await change(database, ANN, 3)
        await change(database, SYSTEM, 4)
        filler.unlink()
        await service.append_next()
        await change(database, ANN, 5)
        await service.append_next()
        report = await AuditInspection(database, service, []).verify()
        async with database.read(SYSTEM) as tx:
            found = await service.search(tx, event_prefix="things.")

    assert (failed.value.code, refused.value.code) == ("audit_unavailable",) * 2
    assert "could not be audited" in refused.value.detail
    assert [entry.rev for entry in found] == [1, 2, 4, 5]
    assert report.is_intact


async def change(database: Database, actor: Actor, rev: int) -> None:
    async with database.write(actor) as tx:
        await append_revision(tx, "things.thing.changed", "thing_1", rev, {"text": "x" * 9_000})


def make_entries(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d,"x":"%s"}' % (n, b"y" * 300) for n in range(first, first + count)]

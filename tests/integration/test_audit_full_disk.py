"""The audit log on a disk that is really full: nothing is torn, and nothing is there twice."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotage.audit.open_log import open_log
from pilotage.audit.verification import verify_files
from pilotage.core.errors import PilotageError
from pilotage.kit.crypto import Signer

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
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


def make_entries(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d,"x":"%s"}' % (n, b"y" * 300) for n in range(first, first + count)]

"""The audit log under kill -9 at random points: what was acknowledged is there, once."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import audit_appender
from pilotage.audit.log import LogWriter
from pilotage.audit.verification import verify_files

PROGRAM = Path(audit_appender.__file__)
LONGEST_S = 0.03  # how long it may work after its first acknowledgement


def kill_often(folder: Path, kills: int, seed: int) -> int:
    """Kill an appender again and again, checking the log after each; return its size."""
    dice = random.Random(seed)
    size = 0
    for number in range(kills):
        command = [sys.executable, str(PROGRAM), str(folder), str(seed * 1_000 + number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            opened = child.stdout.readline().split()
            assert (opened[0], int(opened[1]) >= size) == ("open", True)
            acknowledged = [int(opened[1]), int(child.stdout.readline())]
            killer = threading.Timer(dice.random() * LONGEST_S, child.kill)  # anywhere
            killer.start()
            acknowledged += [int(line) for line in child.stdout.read().splitlines()]
            killer.join()
        entries = read_raw(folder)
        assert len(entries) >= max(acknowledged)
        assert entries == [b'{"n": %d}' % n for n in range(len(entries))]
        size = len(entries)
    return size


def read_raw(folder: Path) -> list[bytes]:
    """Read every whole entry as it lies on disk, without the product's reader."""
    found: list[bytes] = []
    bundle = 0
    while (folder / place(bundle)).exists():
        data = (folder / place(bundle)).read_bytes()
        while data:
            length = data[0] << 8 | data[1]
            found.append(data[2 : 2 + length])
            data = data[2 + length :]
        bundle += 1
    path = folder / "wal" / str(bundle)
    data = path.read_bytes() if path.exists() else b""
    while len(data) >= 6 and len(data) >= 6 + (data[0] << 8 | data[1]):
        length = data[0] << 8 | data[1]
        found.append(data[6 : 6 + length])
        data = data[6 + length :]
    return found


def place(bundle: int) -> str:
    thousands, rest = divmod(bundle, 1_000)
    return f"tile/entries/x{thousands:03d}/{rest:03d}" if thousands else f"tile/entries/{rest:03d}"


def check_whole(folder: Path, size: int) -> None:
    """Whoever opens the log finds that size, and a check of all of it finds nothing."""
    with LogWriter(folder, audit_appender.NAME, audit_appender.SIGNER) as log:
        assert log.size == size
        log.publish()
    checked = verify_files(folder, audit_appender.NAME, audit_appender.SIGNER.public)
    assert checked.size == size


def test_what_was_acknowledged_survives_a_few_kills(tmp_path: Path) -> None:
    size = kill_often(tmp_path, kills=8, seed=1)

    check_whole(tmp_path, size)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_was_acknowledged_survives_a_hundred_kills(tmp_path: Path) -> None:
    size = kill_often(tmp_path, kills=100, seed=2)

    check_whole(tmp_path, size)
    assert size > 10_000

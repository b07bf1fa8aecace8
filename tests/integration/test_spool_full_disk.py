"""A disk that is really full: calls are refused, running calls still end, nothing is torn."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import SpoolReader, list_firsts
from raw_spool import read_raw

DISK_BYTES = 3 << 20
RESERVE_BYTES = 256 << 10
BEGUN = b"b" * 280
ENDED = b"e" * 300


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 3 MiB."""
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


def open_on(disk: Path, reserve_bytes: int = RESERVE_BYTES) -> SpoolWriter:
    return open_spool(
        disk / "spool", segment_bytes=1 << 20, reserve_bytes=reserve_bytes, sync="100ms"
    )


def fill_disk(disk: Path, leave_bytes: int) -> Path:
    """Take all space but some, by something that is not the spool."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(b"\1" * (free.f_bavail * free.f_frsize - leave_bytes))
    return filler


def append_until_refused(writer: SpoolWriter) -> int:
    before = writer.seq
    with pytest.raises(PilotageError) as caught:
        _append_for_ever(writer)
    assert caught.value.code == "spool_full"
    assert caught.value.status == 503
    return writer.seq - before


def _append_for_ever(writer: SpoolWriter) -> None:
    while True:
        writer.append(BEGUN)


def test_running_calls_end_on_a_full_disk_and_it_recovers(disk: Path) -> None:
    folder = disk / "spool"
    with open_on(disk) as writer, SpoolReader(folder, 0) as follower:
        filler = fill_disk(disk, leave_bytes=200_000)
        open_calls = append_until_refused(writer)
        assert 200_000 // 296 - 20 < open_calls < 200_000 // 296 + 20
        assert writer.is_full
        assert (folder / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
        assert read_raw(folder) == ([(n, BEGUN) for n in range(1, open_calls + 1)], {})

        ends = [writer.append_end(ENDED) for _ in range(open_calls)]
        assert ends == list(range(open_calls + 1, 2 * open_calls + 1))
        assert not (folder / "reserve").exists()
        assert not writer.mend()
        for _ in range(3):
            with pytest.raises(PilotageError, match="cannot be recorded"):
                writer.append(BEGUN)
        records, torn = read_raw(folder)
        assert torn == {}
        assert [payload for _, payload in records] == [BEGUN] * open_calls + [ENDED] * open_calls
        assert follower.read(1_000_000) == records

        filler.unlink()
        filler = fill_disk(disk, leave_bytes=RESERVE_BYTES + 100_000)
        assert not writer.mend()  # room for endings, not for new calls: they would end at once
        assert (folder / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
        with pytest.raises(PilotageError, match="cannot be recorded"):
            writer.append(BEGUN)
        filler.unlink()
        assert writer.mend()
        assert (folder / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
        assert writer.append(BEGUN) == 2 * open_calls + 1
        assert follower.read(9) == [(2 * open_calls + 1, BEGUN)]
        assert read_raw(folder)[1] == {}


def test_ends_beyond_the_reserve_wait_in_memory_in_order(disk: Path) -> None:
    folder = disk / "spool"
    with open_on(disk, reserve_bytes=16 << 10) as writer:
        filler = fill_disk(disk, leave_bytes=64 << 10)
        begun = append_until_refused(writer)
        ends = [writer.append_end(b"end %05d" % n + ENDED) for n in range(begun)]
        written = [seq for seq in ends if seq]
        assert written == list(range(begun + 1, begun + 1 + len(written)))
        assert 0 < len(written) < begun
        assert writer.pending == begun - len(written)
        assert (writer.dropped, writer.mend()) == (0, False)
        assert read_raw(folder)[1] == {}
        filler.unlink()
        last = writer.append_end(b"the last end")
        assert last == 2 * begun + 1
        assert writer.pending == 0
        assert writer.is_full  # until the space held back is back
        assert writer.mend()
    records, torn = read_raw(folder)
    assert torn == {}
    assert [seq for seq, _ in records] == list(range(1, 2 * begun + 2))
    assert [payload[:9] for _, payload in records[begun:-1]] == [
        b"end %05d" % n for n in range(begun)
    ]


def test_a_full_disk_through_segment_changes_and_a_restart(disk: Path) -> None:
    folder = disk / "spool"
    with open_on(disk) as writer:
        begun = append_until_refused(writer)
        assert len(list_firsts(folder)) == 3  # 2.7 MB in segments of 1 MiB
    with open_on(disk) as writer:  # the next process finds the reserve and can end calls
        assert writer.seq == begun
        assert writer.append_end(ENDED) == begun + 1
        assert writer.is_full
    with open_on(disk) as writer:  # and the one after it starts refusing
        assert writer.is_full
        with pytest.raises(PilotageError, match="cannot be recorded"):
            writer.append(BEGUN)
        assert writer.append_end(ENDED) == begun + 2
        (folder / "00000000000000000001.seg").unlink()
        assert writer.mend()
        assert writer.append(BEGUN) == begun + 3
    assert read_raw(folder)[1] == {}


def test_a_disk_without_room_for_a_spool_is_refused_by_name(disk: Path) -> None:
    fill_disk(disk, leave_bytes=0)
    with pytest.raises(PilotageError, match=str(disk / "spool")) as caught:
        open_on(disk)
    assert caught.value.code == "spool_full"

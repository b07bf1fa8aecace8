"""The spool on a healthy disk: order, segments, restarts, damage, retention, the lock."""

import asyncio
import contextlib
import errno
import os
import re
import resource
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import SystemClock
from pilotage.kit.spool import SpoolWriter, Sync, open_spool
from pilotage.kit.spool_reader import (
    READ_BYTES,
    SpoolDamage,
    SpoolReader,
    drop_segments,
    is_held,
    list_firsts,
    list_spools,
    read_epoch,
    read_floor,
    read_records,
    segment_path,
)
from pilotage.kit.spool_sync import SpoolSync
from raw_spool import read_raw

EVERYTHING = 1_000_000


def open_small(folder: Path, segment_bytes: int = 200, sync: Sync = "none") -> SpoolWriter:
    return open_spool(
        folder, segment_bytes=segment_bytes, reserve_bytes=4096, sync=sync, lock_wait_s=0
    )


def fill(folder: Path, payloads: list[bytes], segment_bytes: int = 200) -> None:
    with open_small(folder, segment_bytes) as writer:
        for payload in payloads:
            writer.append(payload)


@contextlib.contextmanager
def fresh_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "spool"


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Make the kernel cut writes short at a file size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


STEPS = st.lists(
    st.one_of(
        st.binary(max_size=120),  # append
        st.sampled_from(["reopen", "read"]),
    ),
    max_size=60,
)


@settings(max_examples=120)
@given(STEPS, st.integers(min_value=20, max_value=400), st.integers(min_value=1, max_value=7))
def test_any_history_is_read_once_in_order(
    steps: list[bytes | str], segment_bytes: int, limit: int
) -> None:
    with fresh_folder() as folder:
        written: list[tuple[int, bytes]] = []
        seen: list[tuple[int, bytes]] = []
        writer = open_small(folder, segment_bytes)
        with SpoolReader(folder, 0) as follower:
            for step in steps:
                if step == "reopen":
                    writer.close()
                    writer = open_small(folder, segment_bytes)
                elif step == "read":
                    seen += follower.read(limit)
                else:
                    assert isinstance(step, bytes)
                    append = writer.append if len(written) % 2 else writer.append_end
                    assert append(step) == len(written) + 1
                    written.append((len(written) + 1, step))
            while more := follower.read(limit):
                assert len(more) <= limit
                seen += more
        writer.close()
        assert seen == written
        assert read_raw(folder) == (written, {})
        middle = len(written) // 2
        assert read_records(folder, middle, EVERYTHING) == written[middle:]
        assert read_records(folder, 0, 3) == written[:3]


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6))
def test_a_cut_at_any_byte_loses_only_the_torn_record(payloads: list[bytes]) -> None:
    with fresh_folder() as folder:
        fill(folder, payloads, segment_bytes=10_000)
        path = segment_path(folder, 1)
        whole = path.read_bytes()
        ends = [sum(16 + len(p) for p in payloads[:n]) for n in range(len(payloads) + 1)]
        for cut in range(len(whole) + 1):
            for other in list_firsts(folder)[1:]:
                segment_path(folder, other).unlink()
            path.write_bytes(whole[:cut])
            kept = max(n for n, end in enumerate(ends) if end <= cut)
            expected = list(enumerate(payloads[:kept], 1))
            with SpoolReader(folder, 0) as follower:
                assert follower.read(EVERYTHING) == expected
                with open_small(folder) as writer:
                    assert writer.append(b"after the cut") == kept + 1
                assert follower.read(EVERYTHING) == [(kept + 1, b"after the cut")]
            expected.append((kept + 1, b"after the cut"))
            assert read_records(folder, 0, EVERYTHING) == expected
            assert read_raw(folder)[0] == expected


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=40), min_size=2, max_size=12), st.data())
def test_any_flipped_bit_is_detected(payloads: list[bytes], data: st.DataObject) -> None:
    with fresh_folder() as folder:
        fill(folder, payloads, segment_bytes=150)
        written = list(enumerate(payloads, 1))
        first = data.draw(st.sampled_from(list_firsts(folder)))
        path = segment_path(folder, first)
        content = bytearray(path.read_bytes())
        bit = data.draw(st.integers(min_value=0, max_value=len(content) * 8 - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)

        seen: list[tuple[int, bytes]] = []
        damage: SpoolDamage | None = None
        with SpoolReader(folder, 0) as reader:
            try:
                while more := reader.read(2):
                    seen += more
            except SpoolDamage as found:
                damage = found
        assert seen == written[: len(seen)]
        hit = _record_at(payloads, first, bit // 8)
        assert len(seen) == hit - 1
        if hit == len(payloads):  # the newest record: not to be told from a torn one
            assert damage is None
            return
        assert damage is not None
        assert str(path) in str(damage)
        assert damage.path == path
        assert f"offset {damage.offset}" in str(damage)
        assert damage.next_seq == hit + 1
        assert read_records(folder, damage.next_seq - 1, EVERYTHING) == written[hit:]
        with open_small(folder) as writer:  # who writes goes on behind it
            assert writer.append(b"more") == len(payloads) + 1


def _record_at(payloads: list[bytes], first: int, byte: int) -> int:
    seq = first
    while byte >= 16 + len(payloads[seq - 1]):
        byte -= 16 + len(payloads[seq - 1])
        seq += 1
    return seq


def test_a_lost_segment_and_a_shortened_sealed_segment_are_detected(tmp_path: Path) -> None:
    payloads = [b"x" * 40] * 12
    fill(tmp_path / "a", payloads)
    firsts = list_firsts(tmp_path / "a")
    segment_path(tmp_path / "a", firsts[1]).unlink()
    with SpoolReader(tmp_path / "a", 0) as reader:
        assert len(reader.read(EVERYTHING)) == firsts[1] - 1
        for _ in range(2):  # it says so every time
            with pytest.raises(ValueError, match=re.escape(str(tmp_path / "a"))) as caught:
                reader.read(1)
    assert isinstance(caught.value, SpoolDamage)
    assert caught.value.next_seq == firsts[2]

    fill(tmp_path / "b", payloads)
    path = segment_path(tmp_path / "b", 1)
    path.write_bytes(path.read_bytes()[: 16 + 40])
    with SpoolReader(tmp_path / "b", 0) as reader:
        assert reader.read(EVERYTHING) == [(1, payloads[0])]
        with pytest.raises(SpoolDamage, match=r"offset 56: record 2 cannot be read"):
            reader.read(1)


def test_a_reader_ahead_of_what_the_disk_kept_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    fill(folder, [b"one", b"two"])
    with pytest.raises(SpoolDamage) as caught:
        read_records(folder, 7, 1)
    assert caught.value.next_seq == 3
    assert read_records(folder, 2, 1) == []


def test_large_records_pass_the_read_size(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    payloads = [b"small", os.urandom(700_000), b"", os.urandom(300_000), b"end"]
    fill(folder, payloads, segment_bytes=500_000)
    assert read_records(folder, 0, EVERYTHING) == list(enumerate(payloads, 1))
    cut = segment_path(folder, list_firsts(folder)[-1])
    cut.write_bytes(cut.read_bytes()[:200_000])
    assert read_records(folder, 0, EVERYTHING) == list(enumerate(payloads[:3], 1))


def test_reading_ends_soon_after_so_many_bytes(tmp_path: Path) -> None:
    folder, most = tmp_path / "spool", 1 << 20
    payloads = [bytes([number]) * 100_000 for number in range(100)]
    fill(folder, payloads, segment_bytes=1 << 22)
    found: list[tuple[int, bytes]] = []
    with SpoolReader(folder, 30) as reader:  # what lies before it is no part of them
        while records := reader.read(EVERYTHING, most):
            size = sum(len(payload) for _, payload in records)
            assert reader.was_cut == (size >= most)
            assert size < most + (256 << 10)
            found += records
        assert not reader.was_cut
    assert found == list(enumerate(payloads, 1))[30:]
    with SpoolReader(folder, 0) as reader:
        assert READ_BYTES <= 100_000 * len(reader.read(EVERYTHING)) < READ_BYTES + (256 << 10)
        assert reader.was_cut
        assert len(reader.read(2)) == 2
        assert reader.was_cut


def test_a_folder_that_cannot_be_looked_into_may_be_a_spool() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        fill(root / "b", [b"1"])
        (root / "a").mkdir(mode=0)
        with rights_of_nobody():
            assert list_spools(root) == [root / "a", root / "b"]


@contextlib.contextmanager
def rights_of_nobody() -> Iterator[None]:
    """Be bound by the rights of files, as root is not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_everything_is_private_and_the_epoch_stays(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "gateway-0"
    old_mask = os.umask(0)
    try:
        fill(folder, [b"x" * 50] * 8)
        epoch = read_epoch(folder)
        with open_small(folder) as writer:
            writer.set_floor(3)
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {"lock", "epoch", "floor", "reserve"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert re.fullmatch(r"[0-9a-f]{32}", epoch)
    assert read_epoch(folder) == epoch
    fill(folder.with_name("gateway-1"), [])
    assert read_epoch(folder.with_name("gateway-1")) != epoch
    (folder.parent / "something else").mkdir()
    assert list_spools(folder.parent) == [folder, folder.with_name("gateway-1")]
    assert list_spools(tmp_path / "absent") == []


def test_a_second_writer_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    assert not is_held(tmp_path)
    first = open_small(folder)
    assert is_held(folder)
    with pytest.raises(PilotageError, match=re.escape(str(folder))) as caught:
        open_small(folder)
    assert caught.value.code == "conflict"
    first.append(b"still mine")
    first.close()
    first.close()
    assert not is_held(folder)
    with pytest.raises(PilotageError, match="cannot be recorded"):
        first.append(b"too late")
    assert first.append_end(b"too late") is None
    with open_small(folder) as second:
        assert second.seq == 1
    assert read_raw(folder) == ([(1, b"still mine")], {})


def test_the_floor_survives_and_never_passes_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with open_small(folder) as writer:
        assert read_floor(folder) == 0
        for _ in range(20):
            writer.append(b"x" * 30)
        assert writer.set_floor(15)
        assert read_floor(folder) == 15
    for first in list_firsts(folder)[2:]:  # as a power cut may leave it
        segment_path(folder, first).unlink()
    with open_small(folder) as writer:
        assert writer.seq < 14
        assert read_floor(folder) == 0  # endings may be among what was lost: look at everything
    for content in (b"", b"12", b"\0\0\0\n", b"\xff\xfe", b"-3\n"):
        (folder / "floor").write_bytes(content)
        assert read_floor(folder) == 0


def test_a_floor_is_kept_once_the_endings_it_speaks_of_are_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with open_small(folder, sync="100ms") as writer:
        for seq in range(1, 200):
            assert writer.append(b"x") == seq
            is_there = writer.set_floor(seq)
            assert read_floor(folder) <= writer.synced_seq
            assert is_there == (read_floor(folder) == seq)
        assert _poll(lambda: writer.synced_seq == 199)
        assert writer.set_floor(200)
        assert read_floor(folder) == 200
        writer.append_end(b"y")
        writer.set_floor(201)
    assert read_floor(folder) == 201


def test_no_floor_passes_an_ending_that_is_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with open_spool(
        folder, segment_bytes=10_000, reserve_bytes=0, sync="none", pending_limit=1
    ) as writer:
        writer.append(b"begun")
        with file_size_limit(0):
            writer.append_end(b"kept")
            assert not writer.set_floor(2)
            writer.append_end(b"dropped: the one before")
        assert writer.mend()
        assert not writer.set_floor(2)
    assert read_floor(folder) == 0


def test_only_old_consumed_sealed_segments_below_the_floor_are_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with open_small(folder, segment_bytes=100) as writer:
        for _ in range(10):
            writer.append(b"x" * 40)  # one record a segment
        assert list_firsts(folder) == list(range(1, 11))
        for first in range(1, 11):
            os.utime(segment_path(folder, first), ns=(0, first * 1_000_000))  # first * 1000 us
        late = 1_000_000
        assert drop_segments(folder, 0, late) == 0
        assert drop_segments(folder, 10, 1000) == 0
        assert drop_segments(folder, 2, late) == 2
        assert drop_segments(folder, 10, 4000) == 1
        writer.set_floor(6)
        assert drop_segments(folder, 10, late) == 2
        assert list_firsts(folder) == [6, 7, 8, 9, 10]
        writer.set_floor(11)
        with SpoolReader(folder, 5) as reader:
            assert [seq for seq, _ in reader.read(1)] == [6]
            assert drop_segments(folder, 8, late) == 3
            with pytest.raises(SpoolDamage):  # retention outran a reader that had not consumed
                reader.read(1)
        assert drop_segments(folder, EVERYTHING, late) == 1
        assert list_firsts(folder) == [10]
        assert writer.append(b"goes on") == 11
    assert read_records(folder, 0, EVERYTHING) == [(10, b"x" * 40), (11, b"goes on")]


def test_the_owner_is_told_of_each_new_segment_before_its_first_record(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    told: list[int] = []
    writer: SpoolWriter = open_spool(
        folder,
        segment_bytes=100,
        reserve_bytes=0,
        sync="none",
        on_roll=lambda: told.append(writer.seq),
    )
    with writer:
        for _ in range(4):
            writer.append(b"x" * 60)
        writer.append(b"y" * 500)  # larger than a segment: one of its own
        writer.append(b"z")
    assert list_firsts(folder) == [1, 2, 3, 4, 5, 6]
    assert told == [1, 2, 3, 4, 5]


async def test_synced_returns_only_when_the_record_is_on_disk(tmp_path: Path) -> None:
    writer = open_small(tmp_path / "spool", segment_bytes=300, sync="every")
    covered: list[bool] = []

    async def call(number: int) -> None:
        for _ in range(20):
            seq = writer.append(b"%d" % number * 40)
            await writer.synced(seq)
            covered.append(writer.synced_seq >= seq)
            writer.append_end(b"end")

    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(call(number)) for number in range(40)]
        gone = group.create_task(writer.synced(EVERYTHING))
        await calls[0]
        gone.cancel()  # a caller that leaves holds nobody up
    writer.close()
    assert covered == [True] * 800
    records, torn = read_raw(tmp_path / "spool")
    assert [seq for seq, _ in records] == list(range(1, 1601))
    assert torn == {}
    assert _open_segments(tmp_path) == []


async def test_closing_syncs_and_frees_who_waits(tmp_path: Path) -> None:
    writer = open_small(tmp_path / "spool", sync="every")
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(writer.synced(writer.append(b"x" * 80))) for _ in range(5)]
        await asyncio.sleep(0)
        writer.close()
    assert [task.result() for task in waits] == [None] * 5
    assert writer.synced_seq == 5
    assert not is_held(tmp_path / "spool")


async def test_a_record_that_the_disk_refused_is_never_called_synced(tmp_path: Path) -> None:
    seq = 1
    failures: list[OSError] = []
    unread, cannot_sync = os.pipe()  # fdatasync refuses a pipe
    thread = SpoolSync(tmp_path, cannot_sync, lambda: seq, failures.append)
    seq = 2
    with pytest.raises(PilotageError) as caught:
        await thread.wait(2)
    assert caught.value.code == "spool_full"
    await thread.wait(1)
    sound = os.open(tmp_path / "next", os.O_WRONLY | os.O_CREAT)
    thread.change(sound)
    refused = len(failures)  # leaving the old segment may count as one more
    assert refused >= 1
    seq = 3
    with contextlib.suppress(PilotageError):  # may be in one look with the refused segment
        await thread.wait(3)
    seq = 4
    await thread.wait(4)
    assert thread.synced_seq == 4
    with pytest.raises(PilotageError):
        await thread.wait(2)
    thread.close()
    os.close(unread)


def test_a_segment_left_behind_is_still_synced(tmp_path: Path) -> None:
    failures: list[OSError] = []
    unread, cannot_sync = os.pipe()
    thread = SpoolSync(tmp_path, cannot_sync, lambda: 1, failures.append)
    thread.change(os.open(tmp_path / "next", os.O_WRONLY | os.O_CREAT))
    assert _poll(lambda: len(failures) == 1)
    thread.close()
    os.close(unread)


def test_nothing_is_written_behind_what_could_not_be_synced(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with open_small(folder, segment_bytes=10_000) as writer:
        writer.append(b"one")
        writer._distrust_segment(OSError(errno.EIO, "the disk is broken"))
        with pytest.raises(PilotageError, match="cannot be recorded"):
            writer.append(b"refused")
        assert writer.append_end(b"two") == 2
        assert writer.mend()
        assert writer.append(b"three") == 3
        assert list_firsts(folder) == [1, 2]
    assert read_records(folder, 0, 9) == [(1, b"one"), (2, b"two"), (3, b"three")]


def test_a_whole_record_in_the_wrong_place_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    fill(folder, [b"one", b"two", b"three"], segment_bytes=10_000)
    path = segment_path(folder, 1)
    one, two, three = (path.read_bytes()[start:stop] for start, stop in _SPANS)
    path.write_bytes(one + one + two + three)
    assert read_records(folder, 0, 9) == [(1, b"one"), (2, b"two"), (3, b"three")]
    path.write_bytes(one + three)
    with SpoolReader(folder, 0) as reader:
        assert reader.read(9) == [(1, b"one")]
        with pytest.raises(SpoolDamage, match="offset 19: record 2 cannot be read"):
            reader.read(9)


_SPANS = ((0, 19), (19, 38), (38, 59))


@pytest.mark.parametrize("sync", ["none", "100ms"])
async def test_other_modes_never_wait(tmp_path: Path, sync: Sync) -> None:
    with open_small(tmp_path / "spool", sync=sync) as writer:
        waiting = writer.synced(writer.append(b"x"))
        with pytest.raises(StopIteration):  # done at its first step: it never gave up the loop
            waiting.send(None)


def test_the_hundred_milliseconds_thread_syncs_by_itself_and_closes_old_segments(
    tmp_path: Path,
) -> None:
    with open_small(tmp_path / "spool", sync="100ms") as writer:
        for _ in range(50):
            writer.append(b"x" * 50)
        assert _poll(lambda: writer.synced_seq == 50)
        assert len(_open_segments(tmp_path)) == 1
    assert _open_segments(tmp_path) == []


def test_a_short_write_is_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with open_small(folder, segment_bytes=100_000) as writer:
        with file_size_limit(8192):
            with pytest.raises(PilotageError) as caught:
                _append_times(writer, 100)
            assert caught.value.code == "spool_full"
            assert writer.is_full
            assert writer.seq == 8192 // 316
            records, torn = read_raw(folder)
            assert (len(records), torn) == (writer.seq, {})
            assert writer.append_end(b"e" * 300) is None  # no reserve helps against this limit
            assert writer.append_end(b"f" * 300) is None
            assert writer.pending == 2
            assert not writer.mend()
            with pytest.raises(PilotageError, match="cannot be recorded"):
                writer.append(b"refused at once")
        assert writer.mend()
        assert (writer.pending, writer.is_full) == (0, False)
        last = writer.append(b"again")
    records, torn = read_raw(folder)
    assert torn == {}
    assert [seq for seq, _ in records] == list(range(1, last + 1))
    assert [payload[:1] for _, payload in records[-3:]] == [b"e", b"f", b"a"]


def test_endings_that_wait_are_bounded_and_counted(tmp_path: Path) -> None:
    with open_spool(
        tmp_path / "spool", segment_bytes=10_000, reserve_bytes=0, sync="none", pending_limit=3
    ) as writer:
        with file_size_limit(0):
            assert [writer.append_end(b"%d" % n) for n in range(5)] == [None] * 5
            assert (writer.pending, writer.dropped) == (3, 2)
        assert writer.append_end(b"5") == 4
    assert [payload for _, payload in read_raw(tmp_path / "spool")[0]] == [b"2", b"3", b"4", b"5"]


def _append_times(writer: SpoolWriter, times: int) -> None:
    for _ in range(times):
        writer.append(b"x" * 300)


def _open_segments(root: Path) -> list[str]:
    """Return the segments that this process holds open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = link.readlink()
            if target.is_relative_to(root) and target.suffix == ".seg":
                found.append(target.name)
    return found


def _poll(is_done: Callable[[], bool], within_s: float = 10.0) -> bool:
    until = SystemClock().monotonic_s() + within_s
    while not is_done():
        if SystemClock().monotonic_s() > until:
            return False
        os.sched_yield()
    return True

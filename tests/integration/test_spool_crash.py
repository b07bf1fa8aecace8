"""kill -9 at any moment: no record is torn, lost after it was acknowledged, or written twice."""

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec
import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.spool import open_spool
from pilotage.kit.spool_reader import SpoolReader, is_held
from raw_spool import read_raw

KILLS = 15

# Ends what its predecessor left open, then keeps 20 calls open at a time and prints the number of
# each record once it is written.
WRITER = """
import itertools, os, sys
from pathlib import Path
from pilotage.core.frames import Begun, encode_frame, make_lost
from pilotage.gateway.recovery import end_lost_calls
from pilotage.kit.spool import open_spool

folder, run = Path(sys.argv[1]), sys.argv[2]
writer = open_spool(folder, segment_bytes=30_000, reserve_bytes=65536, sync=sys.argv[3])
end_lost_calls(writer, folder, 1)
running = []
for n in itertools.count():
    begun = Begun(call_id=f"call_{run}_{n}", at_us=1, project_id="p", tenant_id="t" * 150,
                  key_id="k", alias="a", wire="openai", is_stream=True, worst_nano=1, snapshot_n=1)
    seq = writer.append(encode_frame(begun))
    os.write(1, b"%d\\n" % seq)
    running.append(begun)
    if len(running) > 20:
        seq = writer.append_end(encode_frame(make_lost(running.pop(0), 2)))
        os.write(1, b"%d\\n" % seq)
"""

RECOVER = """
import sys
from pathlib import Path
from pilotage.gateway.recovery import end_lost_calls
from pilotage.kit.spool import open_spool

folder = Path(sys.argv[1])
with open_spool(folder, segment_bytes=30_000, reserve_bytes=65536, sync="100ms") as writer:
    print(end_lost_calls(writer, folder, 1), end_lost_calls(writer, folder, 1))
"""


@pytest.mark.parametrize("sync", ["none", "100ms"])
def test_every_call_ends_once_through_many_kills(tmp_path: Path, sync: str) -> None:
    folder = tmp_path / "spool"
    chance = random.Random(20)
    acknowledged = 0
    followed: list[tuple[int, bytes]] = []
    with SpoolReader(folder, 0) as follower:
        for run in range(KILLS):
            said = _write_until_killed(folder, run, sync, chance.randrange(1, 900))
            acknowledged = max(acknowledged, said)
            followed += follower.read(1_000_000)
    answer = subprocess.run(
        [sys.executable, "-c", RECOVER, folder], check=True, capture_output=True, text=True
    )
    ended_late, ended_again = map(int, answer.stdout.split())

    records, torn = read_raw(folder)
    seqs = [seq for seq, _ in records]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= acknowledged + ended_late
    assert followed == records[: len(followed)]
    assert len(followed) >= acknowledged
    # A kill may cut the write it interrupts; a restart leaves that behind, and it is not a record.
    assert all(len(rest) < 16 + 300 for rest in torn.values())
    frames = [msgspec.msgpack.decode(payload) for _, payload in records]
    begun = [frame[2] for frame in frames if frame[0] == "begun"]
    ended = [frame[2] for frame in frames if frame[0] == "ended"]
    assert len(begun) == len(set(begun))
    assert sorted(ended) == sorted(begun)
    assert 1 <= ended_late <= 21
    assert ended_again == 0


def test_a_spool_has_one_writer_and_is_free_when_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with _running(folder, 0, "none") as (child, lines):
        assert lines.readline() == b"1\n"
        assert is_held(folder)
        with pytest.raises(PilotageError, match="Another process writes the spool") as caught:
            open_spool(folder, segment_bytes=9, reserve_bytes=0, sync="none", lock_wait_s=0.1)
        assert caught.value.code == "conflict"
        assert str(folder) in caught.value.detail
        assert child.poll() is None
    assert not is_held(folder)
    with open_spool(folder, segment_bytes=9, reserve_bytes=0, sync="none") as writer:
        assert writer.seq >= 1


def test_a_reader_in_another_process_sees_a_live_spool_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with _running(folder, 0, "100ms") as (_, lines):
        lines.readline()
        with SpoolReader(folder, 0) as reader:
            expected = 1
            while expected < 5000:  # the test's own time limit ends it otherwise
                acknowledged = int(lines.readline())  # what the writer says is there, is there
                records = reader.read(97)
                assert [seq for seq, _ in records] == list(range(expected, expected + len(records)))
                assert records or expected > acknowledged
                expected += len(records)


def _write_until_killed(folder: Path, run: int, sync: str, count: int) -> int:
    with _running(folder, run, sync) as (child, lines):
        for _ in range(count):
            assert lines.readline()
        _kill(child)
        said = lines.read().split(b"\n")[:-1]
    return int(said[-1]) if said else 0


@contextlib.contextmanager
def _running(
    folder: Path, run: int, sync: str
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", WRITER, str(folder), str(run), sync]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout
        try:
            yield child, child.stdout
        finally:
            _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait(timeout=30)

"""After kill -9 anywhere the totals are the sum of all ends, exactly."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.frames import Begun, Ended, Outcome, decode_frame, encode_frame, make_lost
from pilotage.core.usage import Usage
from pilotage.gateway.counters.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    Widened,
    read_checkpoint,
    read_widened,
    write_checkpoint,
)
from pilotage.gateway.recovery import Recovered, recover_spool
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import read_records

COUNTERS = ["l|cost|2026-11", "l|tokens|total", "l|requests|2026-11-21|user=a|b"]


def make_begun(number: int) -> Begun:
    return Begun(
        call_id=f"call_{number}", at_us=1, project_id="p", tenant_id="t", key_id="k", alias="a",
        wire="openai", is_stream=False, worst_nano=1000 + number, snapshot_n=1,
        worst_tokens=50 + number, counters=COUNTERS,
    )  # fmt: skip


def make_end(begun: Begun, nano: int) -> Ended:
    from msgspec.structs import replace

    return replace(
        make_lost(begun, 2), outcome=Outcome.OK, cost_nano=nano, usage=Usage(input=3, output=4)
    )


def open_writer(folder: Path) -> SpoolWriter:
    return open_spool(folder, segment_bytes=2000, reserve_bytes=0, sync="none")


def recover(folder: Path) -> Recovered:
    with open_writer(folder) as writer:
        return recover_spool(writer, folder, 5)


def sum_frames(folder: Path) -> dict[str, int]:
    """Add up what the spool says, without any checkpoint."""
    begun: dict[str, Begun] = {}
    cost = tokens = requests = 0
    for _, payload in read_records(folder, 0, 10_000):
        frame = decode_frame(payload)
        if isinstance(frame, Begun):
            begun[frame.call_id] = frame
        if not isinstance(frame, Ended):
            continue
        cost += frame.cost_nano
        is_lost = frame.outcome is Outcome.LOST
        tokens += begun[frame.call_id].worst_tokens if is_lost else frame.usage.total
        requests += 1
    found = dict(zip(COUNTERS, (cost, tokens, requests), strict=True))
    return {key: amount for key, amount in found.items() if requests}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("bbecsk"), st.integers(0, 900)), max_size=60))
def test_totals_survive_any_kill(events: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "gateway-0"
        writer = open_writer(folder)
        recovered = recover_spool(writer, folder, 5)
        totals, running, number = dict(recovered.counters.totals), [], 0
        for what, amount in events:
            if what == "b":
                number += 1
                running.append(make_begun(number))
                writer.append(encode_frame(running[-1]))
            elif what == "e" and running:
                begun = running.pop(amount % len(running))
                writer.append_end(encode_frame(make_end(begun, amount)))
                for key, more in zip(COUNTERS, (amount, 7, 1), strict=True):
                    totals[key] = totals.get(key, 0) + more
            elif what in "cs":  # the totals are written down, the floor with them or not
                checkpoint = Checkpoint(
                    owner=recovered.counters.owner, life=1, seq=writer.seq, totals=dict(totals)
                )
                write_checkpoint(folder, checkpoint)
                if what == "s":
                    writer.set_floor(1 if running else writer.seq + 1)
            elif what == "k":
                writer.close()
                writer = open_writer(folder)
                recovered = recover_spool(writer, folder, 5)
                assert recovered.lost == len(running)
                totals, running = dict(recovered.counters.totals), []
                assert totals == sum_frames(folder)
        writer.close()
        assert recover(folder).counters.totals == sum_frames(folder)


def test_a_damaged_checkpoint_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gateway-0"
    with open_writer(folder) as writer:
        writer.append(encode_frame(make_begun(1)))
        writer.append_end(encode_frame(make_end(make_begun(1), 11)))
        first = recover_spool(writer, folder, 5).counters
    assert first.totals == dict(zip(COUNTERS, (11, 7, 1), strict=True))
    path = folder / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert read_checkpoint(folder) is None
    again = recover(folder).counters
    assert (again.totals, again.owner) == (first.totals, first.owner)
    assert "cannot be read" in caplog.text


def test_each_process_has_a_later_life(tmp_path: Path) -> None:
    folder = tmp_path / "gateway-0"
    first, second = recover(folder).counters, recover(folder).counters
    assert second.life > first.life
    assert second.owner == first.owner == f"gateway-0:{(folder / 'epoch').read_text()}"


def test_a_spool_of_another_life_is_another_owner(tmp_path: Path) -> None:
    folder = tmp_path / "gateway-0"
    recover(folder)
    foreign = Checkpoint(owner="gateway-0:other", life=9, seq=3, totals={"l|cost|total": 5})
    write_checkpoint(folder, foreign)
    assert recover(folder).counters.totals == {}


def test_a_lost_call_counts_what_it_had_reserved_besides(tmp_path: Path) -> None:
    folder = tmp_path / "gateway-0"
    with open_writer(folder) as writer:
        writer.append(encode_frame(make_begun(1)))
        widened = Widened(folder)
        assert widened.note("call_1", 500, 20)
        assert widened.note("call_1", 7, 1)
        widened.close()
        (folder / "widened").write_bytes((folder / "widened").read_bytes() + b"call_1 9")
    assert read_widened(folder) == {"call_1": (507, 21)}
    totals = recover(folder).counters.totals
    assert totals == dict(zip(COUNTERS, (1001 + 507, 51 + 21, 1), strict=True))
    assert recover(folder).counters.totals == totals
    assert read_widened(folder) == {}


def test_the_file_of_widened_calls_is_emptied_when_they_have_ended(tmp_path: Path) -> None:
    widened = Widened(tmp_path)
    widened.note("call_1", 1, 1)
    widened.tidy()
    assert read_widened(tmp_path) == {"call_1": (1, 1)}
    widened.forget("call_1")
    widened.tidy()
    assert read_widened(tmp_path) == {}
    widened.close()

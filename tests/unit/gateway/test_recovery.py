"""Calls that a dead process left open are ended once, at their worst case."""

import logging
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.frames import (
    FRAME_VERSION,
    Begun,
    Ended,
    Feedback,
    Frame,
    Measured,
    Outcome,
    decode_frame,
    encode_frame,
    make_lost,
)
from pilotage.core.usage import Usage
from pilotage.gateway.recovery import end_lost_calls
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import list_firsts, read_floor, read_records, segment_path

NOW_US = 1_700_000_000_000_000


def make_begun(call_id: str, v: int = FRAME_VERSION, worst_nano: int = 5) -> Begun:
    return Begun(
        v=v,
        call_id=call_id,
        at_us=1,
        project_id="default",
        tenant_id="ten_a",
        key_id="key_a",
        alias="chat",
        wire="openai",
        is_stream=False,
        worst_nano=worst_nano,
        snapshot_n=3,
    )


def make_ok(begun: Begun) -> Ended:
    return msgspec.structs.replace(
        make_lost(begun, 2), outcome=Outcome.OK, status=200, usage=Usage(input=1), cost_nano=1
    )


def open_small(folder: Path) -> SpoolWriter:
    return open_spool(folder, segment_bytes=500, reserve_bytes=0, sync="none")


def read_frames(folder: Path) -> list[Frame]:
    return [decode_frame(payload) for _, payload in read_records(folder, 0, 1_000_000)]


def test_open_calls_are_lost_at_their_worst_case(tmp_path: Path) -> None:
    done, lost = make_begun("call_done"), make_begun("call_lost", worst_nano=777)
    with open_small(tmp_path) as writer:
        writer.append(encode_frame(done))
        writer.append(encode_frame(lost))
        writer.append_end(encode_frame(make_ok(done)))
    with open_small(tmp_path) as writer:
        assert end_lost_calls(writer, tmp_path, NOW_US) == 1
        assert end_lost_calls(writer, tmp_path, NOW_US + 1) == 0
        assert read_floor(tmp_path) == writer.seq + 1 == 5
    ended = read_frames(tmp_path)[-1]
    assert isinstance(ended, Ended)
    assert (ended.call_id, ended.outcome, ended.at_us) == ("call_lost", Outcome.LOST, NOW_US)
    assert (ended.cost_nano, ended.is_estimated, ended.tenant_id) == (777, True, "ten_a")


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("be"), st.integers(0, 15)), max_size=60),
    st.integers(0, 4),
)
def test_every_call_ends_once_whatever_the_history(
    events: list[tuple[str, int]], restarts_without_floor: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun: dict[int, Begun] = {}
        ended: set[int] = set()
        with open_small(folder) as writer:
            for kind, number in events:
                if kind == "b" and number not in begun:
                    begun[number] = make_begun(f"call_{number}")
                    writer.append(encode_frame(begun[number]))
                elif kind == "e" and number in begun.keys() - ended:
                    ended.add(number)
                    writer.append_end(encode_frame(make_ok(begun[number])))
        counts = []
        for _ in range(restarts_without_floor + 1):
            with open_small(folder) as writer:
                counts.append(end_lost_calls(writer, folder, NOW_US))
            (folder / "floor").unlink()
        assert counts == [len(begun) - len(ended)] + [0] * restarts_without_floor
        frames = read_frames(folder)
        ends = sorted(frame.call_id for frame in frames if isinstance(frame, Ended))
        assert ends == sorted(call.call_id for call in begun.values())


def test_what_became_known_of_an_answer_ends_no_call(tmp_path: Path) -> None:
    measures = Measured(
        call_id="call_open", at_us=2, project_id="default", tenant_id="ten_a", alias="chat"
    )
    feedback = Feedback(
        call_id="call_open",
        at_us=3,
        feedback_id="fb_1",
        project_id="default",
        tenant_id="ten_a",
        key_id="key_a",
    )
    with open_small(tmp_path) as writer:
        for frame in (make_begun("call_open"), measures, feedback):
            writer.append(encode_frame(frame))
        assert end_lost_calls(writer, tmp_path, NOW_US) == 1


def test_what_lies_before_the_floor_is_not_read_again(tmp_path: Path) -> None:
    with open_small(tmp_path) as writer:
        for number in range(30):
            writer.append(encode_frame(make_begun(f"call_{number}")))
        assert len(list_firsts(tmp_path)) > 3
        segment_path(tmp_path, 1).write_bytes(b"never looked at")
        writer.set_floor(29)
        assert end_lost_calls(writer, tmp_path, NOW_US) == 2
        assert read_floor(tmp_path) == 33


def test_frames_of_a_newer_program_are_left_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_small(tmp_path) as writer:
        writer.append(encode_frame(make_begun("call_old")))
        writer.append(encode_frame(make_begun("call_new", v=FRAME_VERSION + 1)))
        writer.append(b"no frame at all")
        with caplog.at_level(logging.WARNING):
            assert end_lost_calls(writer, tmp_path, NOW_US) == 1
        assert "2 call frames could not be read" in caplog.text
        assert read_floor(tmp_path) == 2
        assert end_lost_calls(writer, tmp_path, NOW_US) == 0
        assert writer.seq == 4


def test_damage_does_not_stop_recovery_and_never_makes_a_call_cheaper(tmp_path: Path) -> None:
    first, second = make_begun("call_1"), make_begun("call_2")
    with open_spool(tmp_path, segment_bytes=9999, reserve_bytes=0, sync="none") as writer:
        writer.append(encode_frame(first))
        before = segment_path(tmp_path, 1).stat().st_size
        writer.append_end(encode_frame(make_ok(first)))
        writer.append(encode_frame(second))
    content = bytearray(segment_path(tmp_path, 1).read_bytes())
    content[before + 20] ^= 1
    segment_path(tmp_path, 1).write_bytes(content)
    with open_small(tmp_path) as writer:
        assert end_lost_calls(writer, tmp_path, NOW_US) == 2
        lost = [decode_frame(payload) for _, payload in read_records(tmp_path, 3, 9)]
    assert [frame.call_id for frame in lost] == ["call_1", "call_2"]


def test_an_end_that_only_waits_in_memory_keeps_the_floor(tmp_path: Path) -> None:
    writer = open_small(tmp_path)
    writer.append(encode_frame(make_begun("call_1")))
    writer.close()  # from here on nothing can be written
    assert end_lost_calls(writer, tmp_path, NOW_US) == 1
    assert writer.pending == 1
    assert read_floor(tmp_path) == 0
    with open_small(tmp_path) as again:
        assert end_lost_calls(again, tmp_path, NOW_US) == 1

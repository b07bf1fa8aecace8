"""The tap: who is drawn, what becomes of their texts, and what happens where there is no room."""

import asyncio
from pathlib import Path

import pytest

from made_calls import BODY, PROJECT, make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Measured, Outcome, decode_frame
from pilotage.core.snapshot import FULL_WEIGHT, TenantEntry
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.measures import tap as taps
from pilotage.gateway.measures.hearing import MAX_TEXT_BYTES
from pilotage.gateway.measures.tap import MAX_WAITING, MeasureTap
from pilotage.gateway.steps.observe import Observe
from pilotage.kit.clock import ManualClock
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import read_records

ANSWER = b'{"choices":[{"message":{"content":"Hello, what can I do for you?"}}]}'
EVENT = b'data: {"choices":[{"delta":{"content":"I cannot help with that."}}]}\n\n'


class Lines:
    """A stream of given parts; a part that is an error is raised."""

    def __init__(self, *parts: bytes | PilotageError) -> None:
        self._parts = list(parts)

    async def read(self) -> bytes:
        part = self._parts.pop(0) if self._parts else b""
        if isinstance(part, PilotageError):
            raise part
        return part


def open_small(folder: Path) -> SpoolWriter:
    return open_spool(folder, segment_bytes=1 << 20, reserve_bytes=0, sync="none")


def list_measures(folder: Path) -> list[Measured]:
    frames = [decode_frame(payload) for _, payload in read_records(folder, 0, 10_000)]
    return [frame for frame in frames if isinstance(frame, Measured)]


async def run(
    tap: MeasureTap,
    reply: Reply,
    *,
    share: int = FULL_WEIGHT,
    call_id: str = "call_1",
    body: bytes = BODY,
    data_class: str = "internal",
) -> Call:
    """Run a call of a tenant through the outermost step and read its answer."""
    tenant = TenantEntry(
        id="ten_1",
        name="acme",
        project_id=PROJECT,
        measure_share=share,
        data_class=data_class,
    )
    call = make_call(make_alias(make_arm()), tenant=tenant, call_id=call_id, body=body)
    call.arm = make_arm()

    async def follow(call: Call) -> Reply:
        return reply

    async with call:
        answer = await Observe(follow, ManualClock(), None, (), tap)(call)
        while answer.stream is not None and await answer.stream.read():
            pass
    return call


async def test_a_drawn_call_is_measured_and_its_words_are_not_kept(tmp_path: Path) -> None:
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        await run(tap, Reply(body=ANSWER))
        await tap.measure()
    [measures] = list_measures(tmp_path)
    assert (measures.call_id, measures.tenant_id, measures.alias) == ("call_1", "ten_1", "chat")
    assert (measures.version_id, measures.model) == ("ver_dep_a", "model-dep_a@1.0.0")
    assert (measures.prompt_letters, measures.prompt_language) == (5, "und")
    assert (measures.answer_letters, measures.answer_language) == (29, "en")
    assert not measures.is_refusal
    assert b"Hello" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_a_stream_is_measured_as_a_whole_and_passed_on_as_it_came(tmp_path: Path) -> None:
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        await run(tap, Reply(stream=Lines(EVENT, EVENT), terminator=b"end"))
        await tap.measure()
    [measures] = list_measures(tmp_path)
    assert (measures.answer_letters, measures.is_refusal) == (48, True)


@pytest.mark.parametrize("share", [0, 2_500])
async def test_the_share_decides_by_the_calls_id(tmp_path: Path, share: int) -> None:
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        for number in range(400):
            await run(tap, Reply(body=ANSWER), share=share, call_id=f"call_{number}")
            await tap.measure()
        await tap.measure()
    found = len(list_measures(tmp_path))
    assert found == 0 if not share else 60 < found < 140


async def test_restricted_data_is_never_drawn(tmp_path: Path) -> None:
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        await run(tap, Reply(body=ANSWER), data_class="restricted")
        tap.settle()
    assert list_measures(tmp_path) == []


async def test_a_call_that_failed_is_not_measured(tmp_path: Path) -> None:
    broken = Reply(stream=Lines(EVENT, PilotageError("upstream_cut")))
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        call = await run(tap, broken)
        tap.settle()
    assert call.outcome is Outcome.UPSTREAM_CUT
    assert list_measures(tmp_path) == []


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_text_that_is_too_long_is_not_read(tmp_path: Path, is_stream: bool) -> None:
    long = ANSWER + b" " * MAX_TEXT_BYTES
    reply = Reply(stream=Lines(EVENT, long)) if is_stream else Reply(body=long)
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        await run(tap, reply)
        tap.settle()
    [measures] = list_measures(tmp_path)
    assert (measures.answer_letters, measures.answer_language) == (-1, "")


async def test_a_prompt_that_is_too_long_is_not_drawn(tmp_path: Path) -> None:
    body = b'{"model":"chat","messages":[{"content":"%b"}]}' % (b"x" * MAX_TEXT_BYTES)
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        await run(tap, Reply(body=ANSWER), body=body)
        tap.settle()
    assert list_measures(tmp_path) == []


async def test_what_finds_no_room_is_counted_and_calls_go_on(tmp_path: Path) -> None:
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        for number in range(MAX_WAITING + 3):
            await run(tap, Reply(body=ANSWER), call_id=f"call_{number}")
        assert tap.dropped == 3
        tap.settle()
    assert len(list_measures(tmp_path)) == MAX_WAITING


async def test_of_too_many_those_that_are_measured_are_from_all_over(tmp_path: Path) -> None:
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        for number in range(400):
            await run(tap, Reply(body=ANSWER), call_id=f"call_{number}")
        await tap.measure()
    found = sorted(int(frame.call_id.removeprefix("call_")) for frame in list_measures(tmp_path))
    assert len(found) == MAX_WAITING
    assert found[0] < 100
    assert found[-1] >= 300


async def test_a_call_that_cannot_be_measured_takes_nothing_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_language(text: str) -> str:
        if text == "hello":
            raise RecursionError
        return "en"

    monkeypatch.setattr(taps, "find_language", find_language)
    other = BODY.replace(b"hello", b"good day")
    assert other != BODY
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        for number, body in enumerate((BODY, other, BODY)):
            await run(tap, Reply(body=ANSWER), call_id=f"call_{number}", body=body)
        await tap.measure()
        assert tap.dropped == 2
        await run(tap, Reply(body=ANSWER), call_id="call_3")
        tap.settle()
        assert tap.dropped == 3
    assert [frame.call_id for frame in list_measures(tmp_path)] == ["call_1"]


async def test_a_full_disk_takes_none_and_that_is_counted(tmp_path: Path) -> None:
    with open_small(tmp_path) as spool:
        tap = MeasureTap(spool, ManualClock())
        await run(tap, Reply(body=ANSWER))
        spool.is_full = True
        await tap.measure()
        assert tap.dropped == 1


async def test_calls_that_are_not_drawn_never_meet_the_tap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> Reply:
        raise AssertionError("the tap was asked")

    monkeypatch.setattr(taps.MeasureTap, "follow", refuse)
    with open_small(tmp_path) as spool:
        call = await run(MeasureTap(spool, ManualClock()), Reply(body=ANSWER), share=0)
    assert call.outcome is Outcome.OK
    await asyncio.sleep(0)

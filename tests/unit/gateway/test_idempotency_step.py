"""The idempotency step: the model is asked once, and everybody after hears the same."""

import asyncio
from typing import Any

import pytest

from made_calls import BODY, PROJECT, make_alias, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import TenantEntry
from pilotage.core.usage import Usage
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Bill, Call, Reply
from pilotage.gateway.replies import KeptReplies
from pilotage.gateway.steps.idempotency import REPLAY_LINE, Idempotency
from pilotage.kit.clock import ManualClock

OTHER_BODY = BODY.replace(b"hello", b"good bye")
DONE = b"data: [DONE]\n\n"


class Model:
    """Counts how often it is asked; answers with the number, whole or in parts, or fails."""

    def __init__(self, *, streams: bool = False, fails: str = "") -> None:
        self.asked = 0
        self.streams = streams
        self.fails = fails
        self.go = asyncio.Event()
        self.go.set()
        self.step = Idempotency(self, KeptReplies(ManualClock(), max_reply_bytes=1000))

    async def __call__(self, call: Call) -> Reply:
        self.asked += 1
        call.attempts += 1
        await self.go.wait()
        if self.fails:
            raise PilotageError(self.fails, "As scripted.", hint="Do.", param="messages")
        if self.streams:
            return Reply(stream=Parts(self.asked), terminator=DONE)
        return Reply(body=b"answer %d" % self.asked)

    async def ask(self, key: str = "k-1", **more: Any) -> tuple[Call, bytes]:  # noqa: ANN401
        """Make a call; return it and all that its client reads."""
        call = make_call(make_alias(), **more)
        call.idempotency_key = key
        read = b""
        async with call:
            reply = await self.step(call)
            read = reply.body
            while reply.stream is not None and (part := await reply.stream.read()):
                read += part
            read += reply.terminator
        return call, read


class Parts:
    def __init__(self, number: int) -> None:
        self._parts = [b"data: %d\n\n" % number, b"data: more\n\n"]

    async def read(self) -> bytes:
        return self._parts.pop(0) if self._parts else b""


def code_of(call: Call) -> str:
    return call.error.code if call.error else ""


@pytest.mark.parametrize("streams", [False, True])
async def test_a_repeated_request_gets_the_same_bytes_and_costs_nothing(streams: bool) -> None:
    model = Model(streams=streams)
    first, read = await model.ask()
    again, same = await model.ask(call_id="call_2")
    assert (read == same, b"1" in same, model.asked) == (True, True, 1)
    assert same.endswith(DONE) is streams
    assert (first.head_lines, again.head_lines) == (b"", REPLAY_LINE)
    assert (again.attempts, again.status, again.outcome) == (0, 200, Outcome.OK)
    assert bill_call(again) == Bill(Usage(), 0, is_estimated=False)


async def test_without_a_key_every_request_is_asked() -> None:
    model = Model()
    assert [(await model.ask(""))[1] for _ in range(2)] == [b"answer 1", b"answer 2"]


async def test_another_body_is_refused() -> None:
    model = Model()
    await model.ask()
    call, _ = await model.ask(body=OTHER_BODY)
    assert (code_of(call), call.error and call.error.status) == ("idempotency_mismatch", 422)
    assert model.asked == 1


async def test_the_same_request_is_refused_while_it_is_being_answered() -> None:
    model = Model()
    model.go.clear()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(model.ask())
        await asyncio.sleep(0)
        call, _ = await model.ask()
        assert (code_of(call), call.error and call.error.retry_after_s) == ("conflict", 1.0)
        model.go.set()
    assert first.result()[1] == b"answer 1"
    assert (await model.ask())[1] == b"answer 1"


@pytest.mark.parametrize("other", ["tenant", "API key", "idempotency key"])
async def test_a_key_counts_within_its_scope(other: str) -> None:
    model = Model()
    await model.ask()
    tenant = TenantEntry(id="ten_2" if other == "tenant" else "ten_1", name="x", project_id=PROJECT)
    key_id = "key_2" if other == "API key" else "key_1"
    key = "k-2" if other == "idempotency key" else "k-1"
    assert (await model.ask(key, tenant=tenant, key_id=key_id))[1] == b"answer 2"


async def test_the_door_is_part_of_the_scope() -> None:
    model = Model()
    call, _ = await model.ask()
    assert (await model.ask(wire=call.wire._replace(name="messages")))[1] == b"answer 2"


@pytest.mark.parametrize(
    "code",
    ["upstream_error", "upstream_cut", "insufficient_quota", "rate_limit_exceeded",
     "no_allowed_target", "internal_error", "model_not_found"],
)  # fmt: skip
async def test_what_may_go_better_is_asked_again(code: str) -> None:
    model = Model(fails=code)
    assert code_of((await model.ask())[0]) == code
    model.fails = ""
    assert (await model.ask())[1] == b"answer 2"


@pytest.mark.parametrize("code", ["invalid_request", "context_length_exceeded", "unsupported"])
async def test_what_is_wrong_with_a_request_stays_wrong(code: str) -> None:
    model = Model(fails=code)
    first, _ = await model.ask()
    again, _ = await model.ask()
    assert model.asked == 1
    for call in (first, again):
        assert call.error is not None
        told = (call.error.code, call.error.detail, call.error.hint, call.error.param)
        assert told == (code, "As scripted.", "Do.", "messages")
        assert call.outcome is Outcome.REFUSED
    assert again.head_lines == REPLAY_LINE


async def test_a_client_that_leaves_gives_its_key_back() -> None:
    model = Model(streams=True)
    call = make_call(make_alias())
    call.idempotency_key = "k-1"
    async with call:
        reply = await model.step(call)
        assert reply.stream is not None
        await reply.stream.read()
        call.leave()
        await asyncio.Event().wait()
    assert call.outcome is Outcome.CLIENT_GONE
    assert b"2" in (await model.ask())[1]


async def test_an_answer_too_large_to_keep_is_not_given_twice() -> None:
    model = Model()
    model.step._replies.max_reply_bytes = 5
    assert (await model.ask())[1] == b"answer 1"
    call, _ = await model.ask()
    assert (code_of(call), call.error and call.error.retry_after_s) == ("conflict", None)
    assert model.asked == 1

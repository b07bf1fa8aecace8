"""Every way a call can end: one record, no upstream left running, and the truth for the client."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

import faulty_gateway
from gateway_cases import (
    RawFrame,
    Serving,
    code_of,
    read_ends,
    read_frames,
    read_stream,
    serve_world,
)
from gateway_harness import CLOCK, chat_body, make_http, until
from raw_client import RawClient

CLOSED_WITHIN_S = 0.05
TRIES = 3  # a machine that is busy with other tests may be late once
CALL_TIMEOUT_S = 0.9
SETTINGS = {
    "gateway": {
        "call_timeout": f"{CALL_TIMEOUT_S:g}s",
        "stall_timeout": "300ms",
        "reader_timeout": "300ms",
        "drain_timeout": "30s",
    }
}
SLOW_STREAM = {"chunks": 1000, "delay_ms": 20}


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serve_world(tmp_path, SETTINGS, faulty_gateway.PROGRAM) as serving:
        yield serving


@dataclass(frozen=True, kw_only=True)
class Case:
    """A call and its end; ``text`` is None where the client gets a status instead of a stream."""

    outcome: str
    plan: dict[str, Any] = field(default_factory=dict)
    purpose: str = ""
    is_stream: bool = True
    status: int = 200
    code: str = ""
    text: str | None = None
    is_asked: bool = True  # the upstream
    is_reused: bool = False  # its connection
    is_logged: bool = False


TWO = "tok0 tok1 "
FIVE = "tok0 tok1 tok2 tok3 tok4 "
CASES = {
    "success stream": Case(outcome="ok", text=FIVE, is_reused=True),
    "success plain": Case(outcome="ok", is_stream=False, is_reused=True),
    "upstream cut": Case(
        outcome="upstream_cut", plan={"fault": "cut_mid_stream"}, code="upstream_cut", text=TWO
    ),
    "upstream reset": Case(
        outcome="upstream_cut", plan={"fault": "rst_mid_stream"}, code="upstream_cut", text=TWO
    ),
    "clean end without DONE": Case(
        outcome="upstream_cut",
        plan={"fault": "no_done"},
        code="upstream_cut",
        text=FIVE,
        is_reused=True,
    ),
    "error in the stream": Case(
        outcome="upstream_error",
        plan={"fault": "error_in_stream", "delay_ms": 20},
        code="upstream_error",
        text="tok0 ",
    ),
    "stall": Case(
        outcome="upstream_stall",
        plan={"fault": "stall_mid_stream"},
        code="upstream_stall",
        text=TWO,
    ),
    "deadline before headers": Case(
        outcome="deadline", plan={"fault": "hang_before_headers"}, status=504, code="deadline"
    ),
    "deadline mid-stream": Case(outcome="deadline", plan=SLOW_STREAM, code="deadline", text=TWO),
    "deadline while a step awaits": Case(
        outcome="deadline", purpose="wait before", status=504, code="deadline", is_asked=False
    ),
    "deadline while a step awaits with the upstream open": Case(
        outcome="deadline", purpose="wait after", plan=SLOW_STREAM, status=504, code="deadline"
    ),
    "a step raises before": Case(
        outcome="internal_error",
        purpose="raise before",
        status=500,
        code="internal_error",
        is_asked=False,
        is_logged=True,
    ),
    "a step raises after": Case(
        outcome="internal_error",
        purpose="raise after",
        plan=SLOW_STREAM,
        status=500,
        code="internal_error",
        is_logged=True,
    ),
    "a step raises after a plain answer": Case(
        outcome="internal_error",
        purpose="raise after",
        is_stream=False,
        status=500,
        code="internal_error",
        is_reused=True,
        is_logged=True,
    ),
    "a step raises mid-stream": Case(
        outcome="internal_error",
        purpose="raise mid-stream",
        plan=SLOW_STREAM,
        code="internal_error",
        text="tok0 ",
        is_logged=True,
    ),
    "a step swallows the stop": Case(
        outcome="deadline", purpose="swallow", status=504, code="deadline", is_asked=False
    ),
    "upstream 429": Case(  # the last: its target is left alone from then on
        outcome="upstream_error",
        plan={"fault": "status", "status": 429, "retry_after": 7},
        status=503,
        code="upstream_overloaded",
    ),
}
ANSWERED = CASES["success plain"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """One gateway for all cases; that none of them left anything shows at its end."""
    path = tmp_path_factory.mktemp("shared")
    async with serve_world(path, SETTINGS, faulty_gateway.PROGRAM) as serving:
        yield serving
        await check_nothing_left(serving, is_logged=True)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CASES)
async def test_a_call_ends_once_and_its_client_hears_how(shared: Serving, name: str) -> None:
    case, upstream = CASES[name], shared.upstream
    asked, logged = len(upstream.requests), len(shared.gateway.log())

    async def call() -> float:
        response = await make_call(shared, case)
        check_answer(response, case)
        end = await read_last_end(shared)
        assert (end.outcome, end.fields[21]) == (case.outcome, case.code)
        assert end.status == (response.status_code if case.text is None else end.status)
        assert response.headers["x-request-id"] == end.call_id
        assert (len(upstream.requests) > asked) == case.is_asked
        is_whole = case.is_reused or not case.is_asked
        late_s = 0.0 if is_whole else await late_by(shared, end.at_s)
        if "retry_after" not in case.plan:  # an answer now and then keeps the breaker closed
            check_answer(await make_call(shared, ANSWERED), ANSWERED)
        return late_s

    await prompt(call)
    assert ('"level":"error"' in shared.gateway.log()[logged:]) == case.is_logged
    if case.is_reused:
        connections = upstream.connections
        await make_call(shared, case)
        assert upstream.connections == connections


@pytest.mark.parametrize("size", [0, 300_000], ids=["small body", "large body"])
@pytest.mark.parametrize("purpose", ["", "wait after"])
async def test_a_client_that_leaves_before_headers_ends_its_call(
    serving: Serving, size: int, purpose: str
) -> None:
    plan = {"fault": "none" if purpose else "hang_before_headers", **SLOW_STREAM}

    async def call() -> float:
        asked = len(serving.upstream.requests)
        with RawClient(serving.gateway) as client:
            request = client.make_post(
                chat_body(plan, stream=True, user="x" * size), x_pilotage_purpose=purpose
            )
            # A large body comes in pieces, and the last one makes the server stop reading.
            await client.send(request[: len(request) // 3])
            await client.send(request[len(request) // 3 :])
            await until(lambda: len(serving.upstream.requests) > asked, "the upstream's turn")
            left_s = CLOCK.monotonic_s()
            client.leave()
            return await check_gone(serving, left_s)

    await prompt(call)
    await check_nothing_left(serving)


async def test_a_client_that_leaves_while_a_step_awaits_ends_its_call(serving: Serving) -> None:
    with RawClient(serving.gateway) as client:
        await client.post(chat_body(), x_pilotage_purpose="wait before")
        await until(lambda: len(read_frames(serving.world.spool)) == 1, "a begun call")
        client.leave()
        end = await read_last_end(serving)
    assert end.outcome == "client_gone"
    assert serving.upstream.requests == []
    await check_nothing_left(serving)


@pytest.mark.parametrize("way", [RawClient.leave, RawClient.reset], ids=["FIN", "RST"])
async def test_a_client_that_leaves_mid_stream_ends_its_call(
    serving: Serving, way: Callable[[RawClient], None]
) -> None:
    async def call() -> float:
        with RawClient(serving.gateway) as client:
            await client.post(chat_body(SLOW_STREAM, stream=True))
            await client.read_until(b"tok1")
            left_s = CLOCK.monotonic_s()
            way(client)
            return await check_gone(serving, left_s)

    await prompt(call)
    end = await read_last_end(serving)
    usage, is_estimated = end.fields[10], end.fields[12]
    assert usage[3] >= 2  # what was produced until then
    assert is_estimated
    await check_nothing_left(serving)


async def test_a_client_that_pipelines_and_leaves_ends_its_call(serving: Serving) -> None:
    async def call() -> float:
        with RawClient(serving.gateway) as client:
            request = client.make_post(chat_body(SLOW_STREAM, stream=True))
            await client.send(request + request)
            await client.read_until(b"tok1")
            left_s = CLOCK.monotonic_s()
            client.leave()
            return await check_gone(serving, left_s)

    await prompt(call)
    await check_nothing_left(serving)


async def test_a_reader_that_never_reads_is_dropped(serving: Serving) -> None:
    memory = psutil.Process(serving.gateway.pid).memory_info
    before = memory().rss

    async def call() -> float:
        asked = len(serving.upstream.requests)
        with RawClient(serving.gateway, receive_buffer=4096) as client:
            await client.post(chat_body({"fault": "firehose", "bytes": 20_000}, stream=True))
            await until(lambda: len(serving.upstream.requests) > asked, "the upstream's turn")
            end = await read_last_end(serving)
            assert end.outcome == "reader_stalled"
            assert b"[DONE]" not in await client.read_all()
            return await late_by(serving, end.at_s)

    await prompt(call)
    assert memory().rss - before < 20e6
    await check_nothing_left(serving)


async def test_a_call_that_is_stopped_before_it_was_sent_costs_nothing(serving: Serving) -> None:
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # nobody accepts, so soon no connection is made any more
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        serving.world.point({"dep_a": deaf.getsockname()[1]})
        case = Case(outcome="deadline", status=504, code="deadline")
        while (response := await make_call(serving, case)).status_code == 200:
            pass  # the gateway has not heard of the change
        check_answer(response, case)
        end = await read_last_end(serving)
    cost_nano, is_estimated, attempts = end.fields[11], end.fields[12], end.fields[16]
    assert (end.outcome, cost_nano, is_estimated, attempts) == ("deadline", 0, False, 1)
    await check_nothing_left(serving)


async def test_a_drain_lets_streams_go_on_and_says_so_at_its_end(tmp_path: Path) -> None:
    settings = {"gateway": {"drain_timeout": "800ms"}}
    async with (
        serve_world(tmp_path, settings) as serving,
        make_http(serving.gateway) as http,
        http.stream("POST", "/v1/chat/completions", json=chat_body(SLOW_STREAM, stream=True)) as s,
    ):
        parts = s.aiter_text()
        seen = await anext(parts)
        assert serving.gateway.process is not None
        serving.gateway.process.terminate()
        await until_draining(serving)
        async with make_http(serving.gateway) as other:
            assert code_of(await other.get("/readyz")) == "draining"
            refused = await other.post("/v1/chat/completions", json=chat_body())
        assert (refused.status_code, code_of(refused)) == (503, "draining")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["connection"] == "close"
        sent = serving.upstream.requests[0].chunks_sent
        await until(lambda: serving.upstream.requests[0].chunks_sent > sent, "the stream to go on")
        async for part in parts:
            seen += part
        assert await serving.gateway.process.wait() == 0
    shown = read_stream(seen)
    assert (shown.error, shown.is_done) == ("draining", False)
    assert shown.text.startswith(FIVE)
    [[end]] = read_ends(serving.world.spool).values()
    assert end.outcome == "draining"
    assert "ASGI" not in serving.gateway.log()


async def test_a_drain_ends_when_the_last_stream_has(tmp_path: Path) -> None:
    async with serve_world(tmp_path) as serving, make_http(serving.gateway) as http:
        body = chat_body({"chunks": 20, "delay_ms": 20}, stream=True)
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            parts = response.aiter_text()
            seen = await anext(parts)
            assert serving.gateway.process is not None
            serving.gateway.process.terminate()
            async for part in parts:
                seen += part
        assert read_stream(seen).is_done
        assert await serving.gateway.process.wait() == 0
    [[end]] = read_ends(serving.world.spool).values()
    assert end.outcome == "ok"


async def test_a_second_signal_ends_the_drain_at_once(tmp_path: Path) -> None:
    async with serve_world(tmp_path) as serving, make_http(serving.gateway) as http:
        body = chat_body(SLOW_STREAM, stream=True)
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            parts = response.aiter_text()
            seen = await anext(parts)
            assert serving.gateway.process is not None
            serving.gateway.process.terminate()
            await until_draining(serving)
            signalled_s = CLOCK.monotonic_s()
            serving.gateway.process.terminate()
            async for part in parts:
                seen += part
        assert read_stream(seen).error == "draining"
        assert await serving.gateway.process.wait() == 0
        assert CLOCK.monotonic_s() - signalled_s < 5  # the drain would have taken 30
    [[end]] = read_ends(serving.world.spool).values()
    assert end.outcome == "draining"


async def make_call(serving: Serving, case: Case) -> Any:  # noqa: ANN401
    async with make_http(serving.gateway) as http:
        body = chat_body(case.plan, stream=case.is_stream)
        headers = {"x-pilotage-purpose": case.purpose}
        return await http.post("/v1/chat/completions", json=body, headers=headers)


def check_answer(response: Any, case: Case) -> None:  # noqa: ANN401
    assert response.status_code == case.status
    if case.text is not None:
        shown = read_stream(response.text)
        assert shown.text.startswith(case.text)
        assert (shown.error, shown.is_done) == (case.code, case.outcome == "ok")
        assert response.headers["x-pilotage-model-version"] == "model-dep_a@1.0.0"
    elif case.code:
        assert code_of(response) == case.code
    else:
        assert response.json()["choices"][0]["message"]["content"] == FIVE
    if case.plan.get("retry_after"):
        assert response.headers["retry-after"] == "7"


async def read_last_end(serving: Serving) -> RawFrame:
    """Wait until every call that began has ended, once; return the last end."""

    def is_settled() -> bool:
        ends = read_ends(serving.world.spool)
        return bool(ends) and all(ends.values())

    await until(is_settled, "the end of every call")
    ends = read_ends(serving.world.spool)
    assert [len(each) for each in ends.values()] == [1] * len(ends)
    return [frame for frame in read_frames(serving.world.spool) if frame.tag == "ended"][-1]


async def check_gone(serving: Serving, left_s: float) -> float:
    end = await read_last_end(serving)
    assert end.outcome == "client_gone"
    return await late_by(serving, left_s)


async def late_by(serving: Serving, ended_s: float) -> float:
    """Return how long after an end the upstream, if it was still at work, saw its client leave."""
    request = serving.upstream.requests[-1]
    await until(
        lambda: request.client_closed_s is not None or request.finished_s is not None,
        "an upstream that is no longer at work",
    )
    return (request.client_closed_s or ended_s) - ended_s


async def prompt(call: Callable[[], Awaitable[float]]) -> None:
    """Make a call until its upstream was closed in time; a busy machine gets another chance."""
    late = [await call()]
    while late[-1] > CLOSED_WITHIN_S and len(late) < TRIES:
        late.append(await call())
    assert late[-1] <= CLOSED_WITHIN_S, late


async def check_nothing_left(serving: Serving, *, is_logged: bool = False) -> None:
    """A drain with nothing running ends at once; with a call left it would take 30 s."""
    assert await serving.gateway.stop() == 0
    await until(lambda: serving.upstream.open_connections == 0, "no connection upstream")
    assert all(len(ends) == 1 for ends in read_ends(serving.world.spool).values())
    log = serving.gateway.log()
    assert "ASGI" not in log
    assert ('"level":"error"' in log) == is_logged, log


async def until_draining(serving: Serving) -> None:
    async with make_http(serving.gateway) as http:
        while (await http.get("/readyz")).status_code == 200:
            pass

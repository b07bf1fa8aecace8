"""The faulty model server itself: run alone, driven by a real SDK, and honest about what it saw."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI, InternalServerError

import faulty_upstream
from faulty_upstream import FaultyUpstream
from upstream_calls import HEAD, ask, fetch, pool_to, until


async def seen_by(port: int) -> list[dict[str, Any]]:
    """Return what the server says it saw."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /requests HTTP/1.1\r\nhost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    seen: list[dict[str, Any]] = json.loads(await reader.readexactly(size))
    writer.close()
    await writer.wait_closed()
    return seen


async def test_it_runs_alone_and_tells_other_processes_what_it_saw() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(faulty_upstream.__file__)),
        "--defaults",
        '{"chunks": 2}',
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        port = json.loads(await process.stdout.readline())["port"]
        async with pool_to(port) as pool:
            good = json.loads(await fetch(pool, ask(stream=False)))
            assert good["usage"]["completion_tokens"] == 2
            left = await pool.post(HEAD, ask({"fault": "stall_mid_stream", "after": 1}))
            await left.read()
            left.close()
            async with asyncio.timeout(5):
                while (await seen_by(port))[1]["client_closed_s"] is None:
                    pass  # asking is a round trip already
        first, second = await seen_by(port)
        assert first["body"]["model"] == "m"
        assert (first["fault"], first["client_closed_s"]) == ("none", None)
        assert first["finished_s"] >= first["received_s"]
        assert (second["fault"], second["chunks_sent"]) == ("stall_mid_stream", 1)
        assert second["finished_s"] is None
        assert second["bytes_sent"] > 0
    finally:
        process.terminate()
        assert await process.wait() == 0


def messages(plan: dict[str, Any]) -> Any:  # noqa: ANN401 - the SDK's union of message types
    """Return the messages that carry a plan."""
    return [{"role": "system", "content": "x"}, {"role": "user", "content": json.dumps(plan)}]


async def test_the_openai_sdk_takes_its_good_answers_and_stumbles_over_its_faults() -> None:
    async with (
        FaultyUpstream() as upstream,
        AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="marker", max_retries=0) as client,
    ):
        whole = await client.chat.completions.create(
            model="m", messages=messages({"chunks": 2, "prompt_tokens": 4})
        )
        assert (whole.model, whole.choices[0].message.content) == ("m", "tok0 tok1 ")
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (4, 2)
        stream = await client.chat.completions.create(
            model="m", messages=messages({"fault": "chunk_split", "chunks": 2}), stream=True
        )
        words = [chunk.choices[0].delta.content async for chunk in stream]
        assert words == ["", "tok0 ", "tok1 ", None]
        with pytest.raises(InternalServerError, match="as you wished"):
            await client.chat.completions.create(
                model="m", messages=messages({"fault": "status", "status": 503})
            )
        broken = await client.chat.completions.create(
            model="m", messages=messages({"fault": "error_in_stream"}), stream=True
        )
        with pytest.raises(APIError, match="fell over"):
            _ = [chunk async for chunk in broken]
        assert {request.authorization for request in upstream.requests} == {"Bearer marker"}


async def test_a_fault_can_be_committed_so_many_times_only() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        plan = {"fault": "status", "status": 503, "times": 2}
        statuses = []
        for _ in range(4):
            exchange = await pool.post(HEAD, ask(plan, stream=False))
            await exchange.read_all()
            exchange.close()
            statuses.append(exchange.status)
        assert statuses == [503, 503, 200, 200]


@pytest.mark.parametrize("plan", [{"fault": "typo"}, {"chunk": 3}], ids=["fault", "key"])
async def test_a_plan_it_does_not_know_is_refused(plan: dict[str, Any]) -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        exchange = await pool.post(HEAD, ask(plan))
        assert exchange.status == 400
        assert next(iter(plan.values() if "fault" in plan else plan)) in str(
            await exchange.read_all()
        )
        exchange.close()


async def test_a_delay_between_chunks_is_kept() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        await fetch(pool, ask({"chunks": 3, "delay_ms": 10}))
        (request,) = upstream.requests
        await until(lambda: request.finished_s is not None, "the answer is complete")
        assert request.finished_s is not None
        assert request.finished_s - request.received_s >= 0.03

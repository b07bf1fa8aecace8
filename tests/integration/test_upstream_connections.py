"""How long the upstream client's connections live: cancelled, reused, capped, held back."""

import asyncio
import time
from typing import Any

import pytest

from faulty_upstream import FaultyUpstream
from pilotage.gateway.transport.connection import HIGH_WATER_BYTES
from pilotage.gateway.transport.upstream import Origin, Pool, UpstreamFailure
from upstream_calls import (
    HEAD,
    ask,
    certificate,
    events_of,
    fail,
    fetch,
    on_both_loops,
    pool_to,
    raw_server,
    read_request,
    saying,
    tls_or_not,
    until,
    until_held_back,
)

SEEN_WITHIN_S = 0.05

# Cancelling ends the connection at once.


async def leave(upstream: FaultyUpstream, task: asyncio.Task[Any]) -> float:
    """Cancel a call and return after how many seconds the upstream saw its client go."""
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (request,) = upstream.requests
    await until(lambda: request.client_closed_s is not None, "the upstream sees the close")
    assert request.client_closed_s is not None
    return request.client_closed_s - started


@on_both_loops
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
async def test_cancel_before_the_head_is_seen_upstream_at_once(is_tls: bool) -> None:
    async with FaultyUpstream(tls=tls_or_not(is_tls)) as upstream, pool_to(upstream) as pool:
        call = asyncio.ensure_future(pool.post(HEAD, ask({"fault": "hang_before_headers"})))
        await until(lambda: bool(upstream.requests), "the request has arrived")
        assert await leave(upstream, call) < SEEN_WITHIN_S
        assert (pool.open, pool.idle) == (0, 0)


@on_both_loops
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
async def test_cancel_within_the_stream_is_seen_upstream_at_once(is_tls: bool) -> None:
    async def stream() -> None:
        exchange = await pool.post(HEAD, ask({"fault": "stall_mid_stream"}))
        try:
            await exchange.read_all()
        finally:
            exchange.close()

    async with FaultyUpstream(tls=tls_or_not(is_tls)) as upstream, pool_to(upstream) as pool:
        call = asyncio.ensure_future(stream())
        await until(
            lambda: bool(upstream.requests) and upstream.requests[0].chunks_sent == 2,
            "two chunks were sent",
        )
        assert await leave(upstream, call) < SEEN_WITHIN_S
        assert (pool.open, pool.idle) == (0, 0)


@on_both_loops
async def test_cancel_within_the_handshake_closes_the_socket() -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        arrived.set()
        await reader.read()
        left.set()

    async with raw_server(answer) as port:
        pool = Pool(Origin(host="127.0.0.1", port=port, tls=certificate().client))
        call = asyncio.ensure_future(pool.post(HEAD, ask()))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert pool.open == 0
        await asyncio.wait_for(left.wait(), 5)


@on_both_loops
async def test_close_within_the_stream_is_seen_at_once_and_may_be_repeated() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        exchange = await pool.post(HEAD, ask({"fault": "stall_mid_stream"}))
        (request,) = upstream.requests
        await exchange.read()
        started = time.monotonic()
        exchange.close()
        exchange.close()
        assert pool.open == 0
        await until(lambda: request.client_closed_s is not None, "the upstream sees the close")
        assert request.client_closed_s is not None
        assert request.client_closed_s - started < SEEN_WITHIN_S
        with pytest.raises(RuntimeError, match="closed"):
            await exchange.read()


@on_both_loops
async def test_close_within_a_paused_firehose_is_seen_at_once() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        exchange = await pool.post(HEAD, ask({"fault": "firehose"}))
        (request,) = upstream.requests
        await until_held_back(request)
        started = time.monotonic()
        exchange.close()
        await until(lambda: request.client_closed_s is not None, "the upstream sees the close")
        assert request.client_closed_s is not None
        assert request.client_closed_s - started < SEEN_WITHIN_S


# Connections are kept, replaced when stale, and never trusted further than one response.


@on_both_loops
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
async def test_fifty_calls_share_one_connection(is_tls: bool) -> None:
    async with FaultyUpstream(tls=tls_or_not(is_tls)) as upstream, pool_to(upstream) as pool:
        for n in range(50):
            await fetch(pool, ask({"chunks": n % 3}, stream=bool(n % 2)))
        assert (pool.opened_total, pool.open, pool.idle) == (1, 1, 1)
        assert {request.connection for request in upstream.requests} == {1}
        assert len(upstream.requests) == 50


@on_both_loops
@pytest.mark.parametrize("fault", ["cut_before_headers", "refuse"])
async def test_a_stale_connection_is_replaced_once(fault: str) -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream, max_connections=1) as pool:
        await fetch(pool, ask())
        exchange = await pool.post(HEAD, ask({"fault": fault, "times": 1}))
        events_of(await exchange.read_all())
        exchange.close()
        assert exchange.attempts == 2
        assert [request.connection for request in upstream.requests] == [1, 1, 2]
        assert (pool.open, pool.idle, pool.opened_total) == (1, 1, 2)


@on_both_loops
async def test_a_fresh_connection_that_fails_too_is_not_replaced_again() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        await fetch(pool, ask())
        with pytest.raises(UpstreamFailure) as caught:
            await pool.post(HEAD, ask({"fault": "cut_before_headers"}))
        assert (caught.value.kind, caught.value.attempts) == ("reset_before_headers", 2)
        assert (len(upstream.requests), pool.open) == (3, 0)


@on_both_loops
async def test_a_reused_connection_that_breaks_within_the_head_is_not_tried_again() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for said in (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"HTTP/1.1 2"):
            await read_request(reader)
            writer.write(said)

    async with raw_server(answer) as port, pool_to(port) as pool:
        assert await fetch(pool, b"{}") == b"hi"
        _, failure = await fail(pool, b"{}")
        assert (failure.kind, failure.attempts) == ("reset_before_headers", 1)
        assert pool.opened_total == 1


@on_both_loops
async def test_a_reused_connection_that_only_hangs_is_not_tried_again() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        await fetch(pool, ask())
        with pytest.raises(UpstreamFailure) as caught:
            await pool.post(HEAD, ask({"fault": "hang_before_headers"}), headers_timeout_s=0.1)
        assert (caught.value.kind, caught.value.attempts) == ("stall", 1)
        assert len(upstream.requests) == 2


@on_both_loops
async def test_a_connection_that_the_upstream_closes_while_idle_leaves_the_pool() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        await fetch(pool, ask())
        upstream.close_idle()
        await until(lambda: pool.open == 0, "the closed connection is dropped")
        exchange = await pool.post(HEAD, ask())
        await exchange.read_all()
        exchange.close()
        assert (exchange.attempts, pool.opened_total, pool.idle) == (1, 2, 1)


@on_both_loops
async def test_a_connection_that_was_idle_for_too_long_is_not_used_again() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream, idle_s=0.02) as pool:
        await fetch(pool, ask())
        assert pool.idle == 1
        over = time.monotonic() + 0.03
        await until(lambda: time.monotonic() > over, "the idle time is over")
        await fetch(pool, ask())
        assert (pool.opened_total, pool.open, pool.idle) == (2, 1, 1)
        await until(lambda: upstream.open_connections == 1, "the old connection is closed")


@on_both_loops
async def test_old_idle_connections_go_even_if_a_younger_one_serves_all_calls() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream, idle_s=0.05) as pool:
        exchanges = [await pool.post(HEAD, ask()) for _ in range(3)]
        for exchange in exchanges:
            await exchange.read_all()
            exchange.close()
        assert pool.idle == 3
        async with asyncio.timeout(5):
            while pool.open > 1:
                await fetch(pool, ask())
        assert (pool.idle, pool.opened_total) == (1, 3)


@on_both_loops
@pytest.mark.parametrize("is_apart", [False, True], ids=["at once", "later"])
async def test_a_second_response_to_one_request_ends_the_connection(is_apart: bool) -> None:
    first = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"
    second = first.replace(b"first", b"other")
    pieces = (first, second) if is_apart else (first + second,)
    async with raw_server(saying(*pieces)) as port, pool_to(port) as pool:
        for _ in range(3):
            exchange = await pool.post(HEAD, b"{}")
            assert await exchange.read_all() == b"first"
            assert len(exchange.headers) == 1
            exchange.close()
            await until(lambda: pool.open == 0, "the connection is dropped")
        assert pool.opened_total == 3


@on_both_loops
async def test_an_answer_that_overtakes_its_request_ends_the_connection() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await left.wait()

    left = asyncio.Event()
    async with raw_server(answer) as port, pool_to(port) as pool:
        exchange = await pool.post(HEAD, b"x" * 20_000_000)
        assert (exchange.status, await exchange.read_all()) == (413, b"no")
        exchange.close()
        assert (pool.open, pool.idle) == (0, 0)
        left.set()


@on_both_loops
async def test_an_upstream_that_hangs_up_on_a_large_request_is_noticed_at_once() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await left.wait()

    left = asyncio.Event()
    async with raw_server(answer) as port, pool_to(port) as pool:
        async with asyncio.timeout(5):
            _, failure = await fail(pool, b"x" * 20_000_000)
        left.set()
        assert (failure.kind, failure.sent) == ("reset_before_headers", True)


@on_both_loops
async def test_a_connection_that_the_upstream_means_to_close_is_not_kept() -> None:
    said = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"
    async with raw_server(saying(said)) as port, pool_to(port) as pool:
        assert await fetch(pool, b"{}") == b"hi"
        assert (pool.open, pool.idle) == (0, 0)


@on_both_loops
async def test_a_connection_whose_reading_is_paused_is_not_kept() -> None:
    body = b"x" * (HIGH_WATER_BYTES + 1)  # the last byte both pauses and completes
    said = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with raw_server(saying(said)) as port, pool_to(port) as pool:
        exchange = await pool.post(HEAD, b"{}")
        await until(lambda: exchange._conn is not None and exchange._conn.is_done, "all is here")
        exchange.close()
        assert await fetch(pool, b"{}") == body
        assert pool.idle == 1


@on_both_loops
async def test_a_stream_may_last_longer_than_it_may_be_silent() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream, stall_timeout_s=0.2) as pool:
        started = time.monotonic()
        events_of(await fetch(pool, ask({"chunks": 15, "delay_ms": 20})))
        assert time.monotonic() - started > 0.3


@on_both_loops
async def test_a_closed_exchange_cannot_disturb_the_next_user_of_its_connection() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        first = await pool.post(HEAD, ask())
        await first.read_all()
        first.close()
        second = await pool.post(HEAD, ask({"chunks": 1}))
        first.close()
        assert len(events_of(await second.read_all())) == 4
        second.close()
        assert (pool.open, pool.idle, pool.opened_total) == (1, 1, 1)
        assert (first.status, first.headers[1]) == (200, (b"content-type", b"text/event-stream"))


@on_both_loops
async def test_two_readers_of_one_exchange_are_a_mistake() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        exchange = await pool.post(HEAD, ask({"fault": "stall_mid_stream", "after": 0}))
        await exchange.read()
        reader = asyncio.ensure_future(exchange.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks"):
            await exchange.read()
        exchange.close()
        with pytest.raises(UpstreamFailure, match="cut"):
            await reader


# The cap holds, first come is first served, and no permit is lost.


@on_both_loops
async def test_who_finds_every_connection_busy_waits_no_longer_than_for_a_connection() -> None:
    async with (
        FaultyUpstream() as upstream,
        pool_to(upstream, max_connections=2, connect_timeout_s=0.1) as pool,
    ):
        held = [await pool.post(HEAD, ask({"fault": "stall_mid_stream"})) for _ in range(2)]
        with pytest.raises(UpstreamFailure) as caught:
            await pool.post(HEAD, ask())
        assert (caught.value.kind, caught.value.sent) == ("busy", False)
        assert (pool.open, len(upstream.requests)) == (2, 2)
        for exchange in held:
            exchange.close()
        assert pool.open == 0
        events_of(await fetch(pool, ask()))


@on_both_loops
@pytest.mark.parametrize("ends_well", [True, False], ids=["connection", "permit"])
async def test_waiters_are_served_in_the_order_they_came(ends_well: bool) -> None:
    served: list[int] = []

    async def call(n: int) -> None:
        exchange = await pool.post(HEAD, ask({"fault": "none" if ends_well else "no_done"}))
        served.append(n)
        if ends_well:
            await exchange.read_all()
        exchange.close()

    async with FaultyUpstream() as upstream, pool_to(upstream, max_connections=1) as pool:
        holder = await pool.post(HEAD, ask())
        async with asyncio.TaskGroup() as calls:
            for n in range(8):
                calls.create_task(call(n))
                await asyncio.sleep(0)
            await holder.read_all()
            holder.close()
        assert served == list(range(8))
        assert pool.open == pool.idle


@on_both_loops
@pytest.mark.parametrize("ends_well", [True, False], ids=["connection", "permit"])
async def test_a_waiter_cancelled_in_the_moment_it_is_served_leaks_nothing(ends_well: bool) -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream, max_connections=1) as pool:
        holder = await pool.post(HEAD, ask())
        if ends_well:
            await holder.read_all()
        waiter = asyncio.ensure_future(pool.post(HEAD, ask()))
        await asyncio.sleep(0)
        holder.close()
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert pool.open == pool.idle
        events_of(await fetch(pool, ask()))
        assert (pool.open, pool.idle) == (1, 1)


@on_both_loops
async def test_a_storm_of_cancelled_calls_leaks_nothing() -> None:
    plans = [{"fault": "none"}, {"fault": "hang_before_headers"}, {"fault": "cut_mid_stream"}]

    async def call(n: int) -> None:
        with pytest.raises((UpstreamFailure, asyncio.CancelledError, Done)):
            await fetch(pool, ask(plans[n % 3]))
            raise Done

    async with (
        FaultyUpstream() as upstream,
        pool_to(upstream, max_connections=3, connect_timeout_s=30) as pool,
    ):
        calls = [asyncio.ensure_future(call(n)) for n in range(90)]
        for turn in range(90):
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            calls[(turn * 37) % 90].cancel()
            assert pool.open <= 3
        await asyncio.gather(*calls, return_exceptions=True)
        assert pool.open == pool.idle
        await asyncio.gather(*(fetch(pool, ask()) for _ in range(6)))
        assert pool.open == pool.idle <= 3


class Done(Exception):  # noqa: N818 - not an error
    """A call of the storm that came through."""


@on_both_loops
async def test_closing_the_pool_ends_everything() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream, max_connections=3) as pool:
        exchange = await pool.post(HEAD, ask({"fault": "stall_mid_stream"}))
        await exchange.read()
        idle, reading = await pool.post(HEAD, ask()), asyncio.ensure_future(exchange.read())
        hanging = asyncio.ensure_future(pool.post(HEAD, ask({"fault": "hang_before_headers"})))
        await until(lambda: len(upstream.requests) == 3, "the third request has arrived")
        waiting = asyncio.ensure_future(pool.post(HEAD, ask()))
        await asyncio.sleep(0)
        await idle.read_all()
        pool.close()
        idle.close()
        kinds = []
        for call in (reading, hanging, waiting, pool.post(HEAD, ask())):
            with pytest.raises(UpstreamFailure) as caught:
                await call
            kinds.append((caught.value.kind, caught.value.sent))
        exchange.close()
        assert kinds == [
            ("cut", True),
            ("reset_before_headers", True),
            ("connect", False),
            ("connect", False),
        ]
        assert (pool.open, pool.idle) == (0, 0)
        await until(lambda: upstream.open_connections == 0, "every connection is closed")


@on_both_loops
async def test_closing_the_pool_ends_a_call_that_is_connecting() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        call = asyncio.ensure_future(pool.post(HEAD, ask()))
        await asyncio.sleep(0)
        pool.close()
        with pytest.raises(UpstreamFailure) as caught:
            await call
        assert (caught.value.kind, caught.value.sent) == ("connect", False)
        assert (pool.open, upstream.requests) == (0, [])
        await until(lambda: upstream.open_connections == 0, "the connection is closed")


@on_both_loops
async def test_who_gives_up_waiting_is_forgotten() -> None:
    async with (
        FaultyUpstream() as upstream,
        pool_to(upstream, max_connections=1, connect_timeout_s=0.05) as pool,
    ):
        holder = await pool.post(HEAD, ask())
        waiters = [asyncio.ensure_future(pool.post(HEAD, ask())) for _ in range(20)]
        await asyncio.sleep(0)
        assert len(pool._waiters) == 20
        for waiter in waiters[::2]:
            waiter.cancel()
        ends = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError, UpstreamFailure] * 10
        assert len(pool._waiters) == 0
        holder.close()


# A reader that does not read holds the upstream back.


@on_both_loops
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
async def test_a_firehose_is_held_back_until_it_is_read(is_tls: bool) -> None:
    async with FaultyUpstream(tls=tls_or_not(is_tls)) as upstream, pool_to(upstream) as pool:
        exchange = await pool.post(HEAD, ask({"fault": "firehose", "bytes": 20_000}))
        (request,) = upstream.requests
        held_at = await until_held_back(request)
        assert held_at < 16_000_000  # kernel buffers of both sides, and ours
        part = await exchange.read()
        assert 256 * 1024 < len(part) <= 1024 * 1024
        read = len(part)
        while read < 3 * held_at:
            part = await exchange.read()
            assert len(part) <= 1024 * 1024
            read += len(part)
        assert request.bytes_sent > held_at
        exchange.close()

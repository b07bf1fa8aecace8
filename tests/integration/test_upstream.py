"""The upstream client's responses and failures, against a real server that misbehaves."""

import asyncio
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faulty_upstream import FaultyUpstream
from pilotage.gateway.transport.upstream import Limits, Origin, Pool, UpstreamFailure
from upstream_calls import (
    HEAD,
    LOOPS,
    ask,
    certificate,
    events_of,
    fail,
    fetch,
    on_both_loops,
    pool_to,
    raw_server,
    read_request,
    read_until_failure,
    saying,
    tls_or_not,
    until,
)

# What a good upstream says arrives whole and unchanged.


@on_both_loops
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
async def test_a_plain_answer_arrives_with_its_head_and_the_request_as_it_was_given(
    is_tls: bool,
) -> None:
    async with FaultyUpstream(tls=tls_or_not(is_tls)) as upstream, pool_to(upstream) as pool:
        head = HEAD + b"authorization: Bearer marker\r\n"
        body = ask({"prompt_tokens": 3, "completion_tokens": 4}, stream=False)
        exchange = await pool.post(head, body)
        answer = json.loads(await exchange.read_all())
        exchange.close()
        assert exchange.status == 200
        assert (b"content-type", b"application/json") in exchange.headers
        assert exchange.attempts == 1
        assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        (request,) = upstream.requests
        assert request.body == json.loads(body)
        assert request.authorization == "Bearer marker"
        assert request.headers["accept-encoding"] == "identity"
        assert (pool.open, pool.idle, pool.opened_total) == (1, 1, 1)


@on_both_loops
@pytest.mark.parametrize("fault", ["none", "chunk_split", "trickle", "1xx", "close_delimited"])
async def test_a_stream_is_the_same_however_it_is_sent(fault: str) -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        plan = {"fault": fault, "chunks": 3, "delay_ms": 1}
        exchange = await pool.post(HEAD, ask(plan))
        events = events_of(await exchange.read_all())
        exchange.close()
        assert exchange.status == 200
        assert (b"content-type", b"text/event-stream") in exchange.headers
        assert [name for name, _ in exchange.headers].count(b"link") == 0  # of the interim head
        words = [
            event["choices"][0]["delta"].get("content") for event in events if event["choices"]
        ]
        assert words == ["", "tok0 ", "tok1 ", "tok2 ", None]
        assert events[-2]["choices"][0]["finish_reason"] == "stop"
        assert events[-1]["usage"]["completion_tokens"] == 3
        assert pool.open == pool.idle == (0 if fault == "close_delimited" else 1)


@on_both_loops
async def test_a_chunk_is_handed_on_before_the_next_is_sent() -> None:
    release = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await release.wait()
        writer.write(b"3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")
        await reader.read()

    async with raw_server(answer) as port, pool_to(port) as pool:
        exchange = await pool.post(HEAD, b"{}")
        assert await exchange.read() == b"one"
        release.set()
        assert await exchange.read() == b"twothree"
        assert await exchange.read() == b""
        assert await exchange.read() == b""
        exchange.close()
        assert pool.idle == 1


@on_both_loops
@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_an_error_status_is_an_answer_like_any_other(status: int) -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        plan = {"fault": "status", "status": status, "retry_after": 1, "body": {"why": "so"}}
        exchange = await pool.post(HEAD, ask(plan))
        assert exchange.status == status
        assert (b"retry-after", b"1") in exchange.headers
        assert json.loads(await exchange.read_all()) == {"why": "so"}
        exchange.close()
        assert pool.idle == 1


@on_both_loops
@pytest.mark.parametrize(
    ("fault", "found", "missing"),
    [
        ("no_done", b'"finish_reason": "stop"', b"[DONE]"),
        ("garbage_chunk", b'{"choices": [{"del\xff', b"nothing"),
        ("wrong_model", b'"model": "someone-else"', b'"model": "m"'),
        ("error_in_stream", b'{"error": {', b"[DONE]"),
        ("lie_usage", b'"total_tokens": -1', b"nothing"),
    ],
)
async def test_what_is_wrong_in_the_events_is_passed_on_for_others_to_judge(
    fault: str, found: bytes, missing: bytes
) -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        stream = await fetch(pool, ask({"fault": fault}))
        assert found in stream
        assert missing not in stream
        assert pool.idle == 1


@on_both_loops
async def test_header_names_are_lower_case_duplicates_stay_and_trailers_are_none() -> None:
    pieces = (
        (
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Empty:\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
        ),
        b"0\r\nx-trailer: late\r\n\r\n",
    )
    expected = [
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-empty", b""),
        (b"transfer-encoding", b"chunked"),
    ]
    async with raw_server(saying(*pieces)) as port, pool_to(port) as pool:
        for _ in range(3):  # a trailer must not leak into the next head either
            exchange = await pool.post(HEAD, b"{}")
            assert await exchange.read_all() == b"hi"
            assert exchange.headers == expected
            exchange.close()
        assert pool.opened_total == 1


@on_both_loops
async def test_an_answer_without_a_body_is_complete_with_its_head() -> None:
    async with (
        raw_server(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as port,
        pool_to(port) as pool,
    ):
        exchange = await pool.post(HEAD, b"{}")
        assert (exchange.status, await exchange.read_all()) == (204, b"")
        exchange.close()
        assert pool.idle == 1


@on_both_loops
async def test_a_unix_socket_serves_like_any_other(tmp_path: Path) -> None:
    path = str(tmp_path / "up.sock")
    async with FaultyUpstream(unix_path=path) as upstream, pool_to(upstream) as pool:
        for _ in range(3):
            assert len(events_of(await fetch(pool, ask({"chunks": 2})))) == 5
        assert (pool.opened_total, len(upstream.requests)) == (1, 3)


# What goes wrong is told with how far the call had come.

QUICK = {"headers_timeout_s": 0.1, "stall_timeout_s": 0.1}


@on_both_loops
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize(
    ("plan", "kind", "got_headers"),
    [
        ({"fault": "refuse"}, "reset_before_headers", False),
        ({"fault": "cut_before_headers"}, "reset_before_headers", False),
        ({"fault": "hang_before_headers"}, "stall", False),
        ({"fault": "garbage_head"}, "invalid", False),
        ({"fault": "endless_head"}, "invalid", False),
        ({"fault": "cut_mid_stream"}, "cut", True),
        ({"fault": "rst_mid_stream"}, "cut", True),
        ({"fault": "stall_mid_stream"}, "stall", True),
        ({"fault": "cut_after_finish"}, "cut", True),
        ({"fault": "garbage_framing"}, "invalid", True),
        ({"fault": "firehose", "bytes": 60_000}, "too_large", True),
        ({"fault": "big_body", "bytes": 300_000}, "too_large", True),
    ],
    ids=lambda value: value.get("fault") if isinstance(value, dict) else None,
)
async def test_each_fault_has_its_kind(
    plan: dict[str, Any], kind: str, got_headers: bool, stream: bool, is_tls: bool
) -> None:
    async with (
        FaultyUpstream(tls=tls_or_not(is_tls)) as upstream,
        pool_to(upstream, max_body_bytes=200_000, **QUICK) as pool,
    ):
        _, failure = await fail(pool, ask(plan, stream=stream))
        assert (failure.kind, failure.sent, failure.got_headers, failure.attempts) == (
            kind,
            True,
            got_headers,
            1,
        )
        assert (pool.open, pool.idle) == (0, 0)
        assert (pool.shunned_until_s > 0) == (kind in ("reset_before_headers", "cut"))
        await until(lambda: upstream.open_connections == 0, "the connection is gone")


@on_both_loops
async def test_bytes_that_arrived_before_a_cut_are_read_before_it_is_raised() -> None:
    async with FaultyUpstream() as upstream, pool_to(upstream) as pool:
        exchange = await pool.post(HEAD, ask({"fault": "cut_mid_stream", "after": 2}))
        await until(lambda: upstream.open_connections == 0, "the upstream has cut")
        arrived, failure = await read_until_failure(exchange)
        assert str(failure) == "cut (sent, headers received)"
        assert arrived.count(b"\n\n") == 3
        assert b"tok1" in arrived


@on_both_loops
async def test_a_connection_that_is_closed_when_accepted_is_a_reset() -> None:
    async with FaultyUpstream(refuses=True) as upstream, pool_to(upstream) as pool:
        with pytest.raises(UpstreamFailure) as caught:
            await pool.post(HEAD, ask())
        assert caught.value.kind == "reset_before_headers"
        assert (pool.open, upstream.requests) == (0, [])


@on_both_loops
@pytest.mark.parametrize("host", ["127.0.0.1", f"{'x' * 70}.example"], ids=["refused", "no name"])
async def test_an_upstream_that_cannot_be_reached_was_sent_nothing(host: str) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        pool = Pool(Origin(host=host, port=taken.getsockname()[1]))
        with pytest.raises(UpstreamFailure) as caught:
            await pool.post(HEAD, ask())
    assert (caught.value.kind, caught.value.sent, caught.value.got_headers) == (
        "connect",
        False,
        False,
    )
    assert (pool.open, pool.opened_total) == (0, 0)


@on_both_loops
@pytest.mark.parametrize(
    ("tls", "server_name"),
    [(ssl.create_default_context(), None), (None, "someone.else")],
    ids=["unknown issuer", "other name"],
)
async def test_a_certificate_that_is_not_trusted_is_no_connection(
    tls: ssl.SSLContext | None, server_name: str | None
) -> None:
    async with FaultyUpstream(tls=certificate().server) as upstream:
        origin = Origin(
            host="127.0.0.1",
            port=upstream.port,
            tls=tls or certificate().client,
            server_name=server_name,
        )
        pool = Pool(origin)
        with pytest.raises(UpstreamFailure) as caught:
            await pool.post(HEAD, ask())
        assert (caught.value.kind, caught.value.sent) == ("connect", False)
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert (pool.open, upstream.requests) == (0, [])


@on_both_loops
async def test_a_handshake_that_never_ends_is_a_connect_timeout() -> None:
    async with raw_server(saying()) as port:
        origin = Origin(host="127.0.0.1", port=port, tls=certificate().client)
        pool = Pool(origin, Limits(connect_timeout_s=0.1))
        with pytest.raises(UpstreamFailure) as caught:
            await pool.post(HEAD, ask())
        assert (caught.value.kind, caught.value.sent) == ("connect_timeout", False)
        assert pool.open == 0


@on_both_loops
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
    ids=["upgrade", "no status", "two lengths", "two framings"],
)
async def test_a_head_that_cannot_be_trusted_is_invalid(head: bytes) -> None:
    async with raw_server(saying(head)) as port, pool_to(port) as pool:
        with pytest.raises(UpstreamFailure) as caught:
            await fetch(pool, b"{}")
        assert caught.value.kind == "invalid"
        assert pool.open == 0


@on_both_loops
async def test_interim_heads_without_end_are_refused() -> None:
    flood = b"HTTP/1.1 100 Continue\r\n\r\n" * 1000
    async with raw_server(saying(*[flood] * 10)) as port, pool_to(port) as pool:
        with pytest.raises(UpstreamFailure) as caught:
            await pool.post(HEAD, b"{}")
        assert (caught.value.kind, caught.value.got_headers) == ("invalid", False)


@on_both_loops
async def test_trailers_without_end_are_refused() -> None:
    start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: "
    async with raw_server(saying(start, *[b"m" * 20_000] * 10)) as port, pool_to(port) as pool:
        exchange = await pool.post(HEAD, b"{}")
        assert await exchange.read() == b"hi"
        with pytest.raises(UpstreamFailure, match="invalid"):
            await exchange.read()
        exchange.close()


@on_both_loops
async def test_a_body_that_ends_with_the_connection_is_cut_by_a_reset() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0)
        sock = writer.get_extra_info("socket")
        linger = (1).to_bytes(4, "little") + bytes(4)
        with socket.fromfd(sock.fileno(), sock.family, sock.type) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with raw_server(answer) as port, pool_to(port) as pool:
        with pytest.raises(UpstreamFailure, match="cut"):
            await fetch(pool, b"{}")


@on_both_loops
@pytest.mark.parametrize(
    "framing", [b"content-length: 1000\r\n", b"transfer-encoding: chunked\r\n"]
)
async def test_a_body_above_the_limit_is_read_up_to_it(framing: bytes) -> None:
    body = b"1f4\r\n" + b"x" * 500 + b"\r\n" if b"chunked" in framing else b"x" * 500
    head = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n"
    async with (
        raw_server(saying(head, body, body)) as port,
        pool_to(port, max_body_bytes=700) as pool,
    ):
        arrived, failure = await fail(pool, b"{}")
        assert failure.kind == "too_large"
        assert 500 <= len(arrived) <= 700
        assert (pool.open, pool.idle) == (0, 0)


# However the bytes are cut, the response is the same; wherever they end, the failure is right.


@st.composite
def responses(draw: st.DrawFn, framings: tuple[str, ...]) -> tuple[bytes, bytes, bytes, bool]:
    """Draw a valid response: interim heads and head, encoded body, plain body, keeps alive."""
    body = draw(st.binary(max_size=400))
    framing = draw(st.sampled_from(framings))
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" * draw(st.integers(0, 2))
    lines = [b"HTTP/1.1 200 OK", b"X-A: 1", b"x-a: 2"]
    encoded = body
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        size = draw(st.integers(1, 100))
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        trailer = draw(st.sampled_from([b"", b"x-late: 1\r\n", b"x-late: 1\r\nx-later: 2\r\n"]))
        encoded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        encoded += b"0\r\n" + trailer + b"\r\n"
    return interim + b"\r\n".join(lines) + b"\r\n\r\n", encoded, body, framing != "close"


@pytest.mark.parametrize("loop_name", list(LOOPS))
@settings(max_examples=60)
@given(data=st.data())
def test_any_chunking_of_a_response_gives_the_same_response(
    loop_name: str, data: st.DataObject
) -> None:
    head, encoded, body, keeps = data.draw(responses(("length", "chunked", "close")))
    whole = head + encoded
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=40)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    async def scenario() -> None:
        async with raw_server(saying(*pieces, keeps=keeps)) as port, pool_to(port) as pool:
            for _ in range(2):
                exchange = await pool.post(HEAD, b"{}")
                assert await exchange.read_all() == body
                assert exchange.status == 200
                assert exchange.headers[:2] == [(b"x-a", b"1"), (b"x-a", b"2")]
                assert len(exchange.headers) == 3 - (not keeps)
                exchange.close()
            assert (pool.opened_total, pool.idle) == ((1, 1) if keeps else (2, 0))

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop_name", list(LOOPS))
@settings(max_examples=60)
@given(data=st.data())
def test_wherever_a_response_is_cut_the_failure_says_how_far_it_came(
    loop_name: str, data: st.DataObject
) -> None:
    head, encoded, body, _ = data.draw(responses(("length", "chunked")))
    whole = head + encoded
    end = data.draw(st.integers(0, len(whole) - 1))

    async def scenario() -> None:
        async with raw_server(saying(whole[:end], keeps=False)) as port, pool_to(port) as pool:
            arrived, failure = await fail(pool, b"{}")
            got_headers = end >= len(head)
            assert failure.got_headers == got_headers
            assert failure.kind == ("cut" if got_headers else "reset_before_headers")
            assert body.startswith(arrived)
            assert pool.open == 0

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(scenario())

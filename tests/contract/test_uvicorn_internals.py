"""What the gateway's server reaches into: the pinned uvicorn must behave the way it relies on."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import requires, version
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pilotage.gateway.http import CONNECTION, CYCLE
from pilotage.gateway.server import (
    MAX_HEAD_BYTES,
    GatewayProtocol,
    GatewayServer,
    make_server,
)
from pilotage.kit.resources import Background
from upstream_calls import on_both_loops, until

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
App = Callable[[Scope, Receive, Any], Awaitable[None]]

GET = b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n"
STREAM = b"HTTP/1.1 200 OK\r\n"
LARGE = 200_000  # above the 64 KiB at which uvicorn stops reading
HUGE = 16_000_000  # above what sockets buffer
DRAIN_S = 7.0


class Plane:
    """What the server drains: notes how long it may take, and ends when told."""

    def __init__(self) -> None:
        self.given_s: list[float] = []
        self.may_end = asyncio.Event()

    async def drain(self, timeout_s: float) -> None:
        self.given_s.append(timeout_s)
        await self.may_end.wait()


class Running:
    """A server of an application, on a socket of its own."""

    def __init__(self, server: GatewayServer, plane: Plane, port: int) -> None:
        self.server = server
        self.plane = plane
        self.port = port
        self.clients: list[Client] = []

    def connect(self) -> "Client":
        self.clients.append(Client(self.port))
        return self.clients[-1]


class Client:
    """A socket that sends what it is told and reads when it is told."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.seen = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def read_until(self, marker: bytes) -> bytes:
        async with asyncio.timeout(10):
            while marker not in self.seen:
                assert await self.read_on(), f"{marker!r} never came, but {self.seen!r}"
        return self.seen

    async def read_all(self) -> bytes:
        async with asyncio.timeout(10):
            while await self.read_on():
                pass
        return self.seen

    async def read_on(self) -> bool:
        try:
            part = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20)
        except ConnectionResetError:
            return False
        self.seen += part
        return bool(part)

    def leave(self) -> None:
        """FIN."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset(self) -> None:
        """RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[Running]:
    listener = socket.create_server(("127.0.0.1", 0))
    plane = Plane()
    async with Background() as background:
        server = make_server(app, plane, background, DRAIN_S)
        served = background.start(server.serve(sockets=[listener]), "server")
        await until(lambda: server.started, "a server")
        running = Running(server, plane, listener.getsockname()[1])
        try:
            yield running
        finally:
            server.should_exit = server.force_exit = True
            await served
            for client in running.clients:
                client.socket.close()


def test_it_is_the_pinned_one() -> None:
    pinned = [line for line in requires("pilotage") or [] if line.startswith("uvicorn")]
    assert pinned == [f"uvicorn=={version('uvicorn')}"]


@on_both_loops
async def test_each_request_has_its_own_cycle_on_one_connection() -> None:
    seen: list[tuple[GatewayProtocol, RequestResponseCycle]] = []

    async def app(scope: Scope, receive: Receive, send: object) -> None:
        connection, cycle = scope[CONNECTION], scope[CYCLE]
        seen.append((connection, cycle))
        assert cycle.scope is scope  # what the protocol puts into it is what the application gets
        assert not cycle.more_body
        connection.respond(cycle, OK % 2, b"%d\n" % len(seen))

    async with serving(app) as running:
        client = running.connect()
        await client.send(GET + GET)  # the second is parsed before the first is answered
        answer = await client.read_until(b"2\n")
        await client.send(GET.replace(b"h\r\n\r\n", b"h\r\nconnection: close\r\n\r\n"))
        last = await client.read_all()
    (one, first), (other, second), _ = seen
    assert isinstance(one, HttpToolsProtocol)
    assert one is other
    assert first is not second
    assert first.response_complete
    assert answer.count(b"200 OK") == answer.count(b"\r\ndate: ") == 2
    assert b"connection" not in answer
    assert b"connection: close" in last


@on_both_loops
@pytest.mark.parametrize("way", [Client.leave, Client.reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("asked", [GET, GET + GET], ids=["one", "pipelined"])
async def test_a_client_that_leaves_is_noticed_before_anything_is_written(
    way: Callable[[Client], None], asked: bytes
) -> None:
    gone, cycles = asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: object) -> None:
        connection, cycle = scope[CONNECTION], scope[CYCLE]
        cycles.append(cycle)
        connection.open_stream(cycle, STREAM, b"first")
        connection.watch(cycle, gone.set)
        await gone.wait()
        assert cycle.disconnected
        connection.write_part(cycle, b"second")  # nothing, and no error
        connection.close_stream(cycle, b"third")

    async with serving(app) as running:
        client = running.connect()
        await client.send(asked)
        await client.read_until(b"first")
        way(client)
        await until(gone.is_set, "the client's leaving")
        await until(lambda: not running.server.server_state.tasks, "the end of the application")
    assert len(cycles) == 1
    assert not cycles[0].response_complete


@on_both_loops
async def test_a_call_that_watches_reads_on_after_a_large_body() -> None:
    gone, states = asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: object) -> None:
        connection, cycle = scope[CONNECTION], scope[CYCLE]
        states.append(cycle.more_body)
        while (await receive())["more_body"]:
            pass
        connection.flow.pause_reading()  # as uvicorn does if 64 KiB came while it was waited for
        connection.watch(cycle, gone.set)
        states.append(connection.flow.read_paused)
        await gone.wait()

    async with serving(app) as running:
        client = running.connect()
        await client.send(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % LARGE)
        await until(lambda: states == [True], "a request whose body is still to come")
        await client.send(bytes(LARGE))
        await until(lambda: len(states) == 2, "the whole body")
        client.leave()
        await until(gone.is_set, "the client's leaving")
    assert states == [True, False]


@on_both_loops
async def test_a_slow_reader_pauses_writing_until_it_reads() -> None:
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: object) -> None:
        connection, cycle = scope[CONNECTION], scope[CYCLE]
        connection.open_stream(cycle, STREAM, b"first")
        assert not connection.is_write_paused
        while not connection.is_write_paused:
            connection.write_part(cycle, bytes(100_000))
        steps.append("paused")
        await connection.wait_writable()
        assert not connection.is_write_paused
        steps.append("writable")
        connection.close_stream(cycle, b"last")

    async with serving(app) as running:
        client = running.connect()
        await client.send(GET)
        await until(lambda: steps == ["paused"], "a paused writer")
        await client.read_until(b"last\r\n0\r\n\r\n")
    assert steps == ["paused", "writable"]


@on_both_loops
async def test_an_aborted_connection_is_gone_at_once() -> None:
    async def app(scope: Scope, receive: Receive, send: object) -> None:
        connection, cycle = scope[CONNECTION], scope[CYCLE]
        connection.open_stream(cycle, STREAM, bytes(HUGE))
        connection.abort()
        assert connection.is_closing
        await asyncio.sleep(0)
        assert cycle.disconnected  # else the server would complain of an incomplete response

    async with serving(app) as running:
        client = running.connect()
        await client.send(GET)
        assert len(await client.read_all()) < HUGE
        assert not running.server.server_state.connections


@on_both_loops
async def test_who_never_reads_its_reply_is_dropped_and_who_reads_is_not() -> None:
    async def app(scope: Scope, receive: Receive, send: object) -> None:
        connection = scope[CONNECTION]
        connection.timeout_keep_alive = 0.2
        connection.respond(scope[CYCLE], OK % HUGE, bytes(HUGE))

    async with serving(app) as running:
        idle, reader = running.connect(), running.connect()
        await idle.send(GET)
        await until(lambda: running.server.server_state.total_requests == 1, "a written reply")
        await reader.send(GET)
        body = await reader.read_all()  # to the end: an idle connection is closed
        await until(lambda: not running.server.server_state.connections, "no connection")
        assert len(await idle.read_all()) < HUGE
    assert len(body.partition(b"\r\n\r\n")[2]) == HUGE


@on_both_loops
async def test_a_stream_is_chunked_except_for_who_knows_no_chunks() -> None:
    async def app(scope: Scope, receive: Receive, send: object) -> None:
        connection, cycle = scope[CONNECTION], scope[CYCLE]
        connection.open_stream(cycle, STREAM, b"one ")
        connection.write_part(cycle, b"two ")
        connection.close_stream(cycle, b"three")

    async with serving(app) as running:
        client = running.connect()
        await client.send(GET)
        chunked = await client.read_until(b"0\r\n\r\n")
        old = running.connect()
        await old.send(GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
        plain = await old.read_all()
    assert b"\r\ntransfer-encoding: chunked\r\n" in chunked
    assert chunked.endswith(b"\r\n\r\n4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n")
    assert b"transfer-encoding" not in plain
    assert b"\r\nconnection: close\r\n" in plain
    assert plain.endswith(b"\r\n\r\none two three")


UPGRADES = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
    "websocket": b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
}
BODIES = {
    "length": (b"content-length: %d\r\n" % len(GET), GET),
    "chunks": (b"transfer-encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(GET), GET)),
}


@on_both_loops
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("is_split", [False, True])
async def test_who_offers_another_protocol_is_answered_in_this_one(
    upgrade: str, body: str, is_split: bool
) -> None:
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: object) -> None:
        parts, more = b"", True
        while more:
            message = await receive()
            parts, more = parts + message["body"], message["more_body"]
        seen.append((scope["method"], parts))
        scope[CONNECTION].respond(scope[CYCLE], OK % 2, b"%d\n" % len(seen))

    framing, content = BODIES[body]
    head = b"POST /x?q=1 HTTP/1.1\r\nhost: h\r\n%b%b\r\n" % (framing, UPGRADES[upgrade])
    async with serving(app) as running:
        client = running.connect()
        for part in [head, content] if is_split else [head + content]:
            await client.send(part)
            await asyncio.sleep(0)
        await client.read_until(b"1\n")
        await client.send(GET)
        await client.read_until(b"2\n")
    assert seen == [("POST", GET), ("GET", b"")]  # what was a body is no request


ENDLESS = {
    "head": (b"GET /x HTTP/1.1\r\n", b"a: b\r\n"),
    "url": (b"GET /", b"a"),
    "header": (b"GET /x HTTP/1.1\r\na: ", b"a"),
    "trailers": (b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    "blank lines": (b"", b"\r\n"),
}


@on_both_loops
@pytest.mark.parametrize("kind", ENDLESS)
async def test_what_does_not_end_is_refused_before_it_is_large(kind: str) -> None:
    async def app(scope: Scope, receive: Receive, send: object) -> None:
        ends.append((await receive())["type"])

    ends: list[str] = []
    begin, more = ENDLESS[kind]
    async with serving(app) as running:
        client = running.connect()
        await client.send(begin + more * (MAX_HEAD_BYTES // 2 // len(more)))
        await until(lambda: len(running.server.server_state.connections) == 1, "a connection")
        await client.send(more * (MAX_HEAD_BYTES // len(more) + 1))
        if kind == "trailers":  # what came in one piece with the head counts with that
            with contextlib.suppress(ConnectionError):
                await client.send(more * 200_000)
        seen = await client.read_all()
    if kind == "trailers":  # it had begun
        assert (seen, ends) == (b"", ["http.disconnect"])
    else:
        assert seen.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert ends == []


@on_both_loops
async def test_a_client_that_does_not_come_to_the_point_is_dropped() -> None:
    async def app(scope: Scope, receive: Receive, send: object) -> None:
        if scope["method"] == "PUT":
            await receive()
        scope[CONNECTION].respond(scope[CYCLE], OK % 3, b"yes")

    async with serving(app) as running:
        server = running.server
        server.on_tick = partial(uvicorn.Server.on_tick, server)  # type: ignore[method-assign]
        connections = cast("set[GatewayProtocol]", server.server_state.connections)
        slow = [
            b"",  # nothing
            b"GET /x HTTP/1.1\r\nho",
            GET,  # and then "GE"
            # answered before its body came, which never ends
            b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n1",
        ]
        fine = [GET, b"PUT /x HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n"]
        clients = [running.connect() for _ in slow + fine]
        await until(lambda: len(connections) == len(clients), "all connections")
        for client, sent in zip(clients, slow + fine, strict=True):
            await client.send(sent)
        for number in (2, 3, 4):
            await clients[number].read_until(b"yes")
        await clients[2].send(b"GE")
        await clients[3].send(b"2")

        def look(now_s: float) -> None:
            for connection in tuple(connections):
                connection.look(now_s)

        def count_untimed() -> int:
            return sum(each.timeout_keep_alive_task is None for each in connections)

        await until(lambda: count_untimed() == len(slow) + 1, "all that was sent")
        look(1000.0)
        look(1064.0)
        await asyncio.sleep(0)
        assert len(connections) == len(clients)
        await clients[1].send(b"s")  # slowly is not enough
        look(1065.0)
        await until(lambda: len(connections) == len(fine), "the end of the slow ones")
        for client in clients[: len(slow)]:
            await client.read_all()
        await clients[-1].send(bytes(9))
        await clients[-1].read_until(b"yes")


@on_both_loops
async def test_signals_drain_first_and_hurry_then() -> None:
    async def app(scope: Scope, receive: Receive, send: object) -> None:
        scope[CONNECTION].respond(scope[CYCLE], OK % 3, b"yes")

    async with serving(app) as running:
        before = signal.getsignal(signal.SIGTERM)
        assert before == running.server.handle_exit
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: running.plane.given_s == [DRAIN_S], "a drain")
        client = running.connect()  # the listener is open until the drain is over
        await client.send(GET)
        await client.read_until(b"yes")
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: running.plane.given_s == [DRAIN_S, 0.0], "a hurried drain")
        assert not running.server.should_exit
        running.plane.may_end.set()
        await until(lambda: running.server.should_exit, "the exit")
    assert running.server._captured_signals == []  # else uvicorn would raise them again


@on_both_loops
async def test_a_third_signal_waits_for_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: object) -> None:
        raise AssertionError("nobody calls")

    async with serving(app) as running:
        for _ in range(3):
            running.server.handle_exit(signal.SIGTERM, None)
        assert running.server.should_exit
        assert running.server.force_exit
        running.plane.may_end.set()

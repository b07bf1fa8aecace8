"""What a faulty model server does with one request: the correct answer and the faults.

Faults of a stream (``no_done``, ``garbage_chunk``, ...) send one also to who asked for none.
"""

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from upstream_wires import Chat, Dialect, Event, Plan


@dataclass(slots=True, kw_only=True)
class Request:
    """One request as the server saw it; times are of the monotonic clock, in seconds."""

    id: int
    connection: int
    method: str
    path: str
    authorization: str | None
    headers: dict[str, str]
    received_s: float
    body: Any = None
    fault: str = "none"
    status: int = 0
    chunks_sent: int = 0
    bytes_sent: int = 0
    finished_s: float | None = None
    client_closed_s: float | None = None


class Peer(Protocol):
    """The client's end of a connection, as an answer sees it."""

    gone: asyncio.Event
    writable: asyncio.Event
    transport: asyncio.Transport


class Answer:
    """The means of one answer; the functions below use them well or badly."""

    def __init__(
        self, peer: Peer, request: Request, plan: Plan, dialect: type[Dialect] = Chat
    ) -> None:
        self.peer = peer
        self.request = request
        self.plan = plan
        body = request.body if isinstance(request.body, dict) else {}
        is_streaming_path = request.path.endswith(":streamRawPredict")
        self.is_stream = bool(body.get("stream")) or is_streaming_path
        self.dialect = dialect(plan, body, request.id)

    async def write(self, data: bytes) -> None:
        """Send bytes; wait while the client does not read."""
        await self.peer.writable.wait()
        if self.peer.gone.is_set() or self.peer.transport.is_closing():
            raise ConnectionResetError
        self.request.bytes_sent += len(data)
        self.peer.transport.write(data)

    async def write_chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body."""
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def send_head(self, status: int, *lines: str) -> None:
        """Send a status line and headers."""
        self.request.status = status
        head = [f"HTTP/1.1 {status} Made", f"x-request-id: up-{self.request.id}", *lines, "", ""]
        await self.write("\r\n".join(head).encode())

    async def open_stream(self) -> None:
        """Send the head of an event stream."""
        await self.send_head(200, "content-type: text/event-stream", "transfer-encoding: chunked")

    async def send_event(self, event: Event) -> None:
        """Send one event of the stream."""
        await self.write_chunk(encode_event(event))

    async def send_contents(self, count: int | None = None) -> None:
        """Send what opens the stream and so many (or all) content chunks, at the plan's pace."""
        for event in self.dialect.open():
            await self.send_event(event)
        for n, events in enumerate(self.dialect.contents()):
            if n == count:
                break
            await self.pause()
            for event in events:
                await self.send_event(event)
            self.request.chunks_sent += 1

    async def pause(self) -> None:
        """Wait the plan's delay between chunks."""
        if self.plan.delay_ms:
            await asyncio.sleep(self.plan.delay_ms / 1000)

    async def finish(self, *, done: bool = True) -> None:
        """Send what ends a good stream: finish reason, usage, terminator, last chunk."""
        for event in (*self.dialect.finish(), *self.dialect.count()):
            await self.send_event(event)
        if done:
            await self.write_chunk(self.dialect.done)
        await self.write(b"0\r\n\r\n")
        self.end()

    def list_events(self) -> list[bytes]:
        """Return a whole good stream, event by event."""
        spoken = self.dialect
        contents = [event for events in spoken.contents() for event in events]
        events = [*spoken.open(), *contents, *spoken.finish(), *spoken.count()]
        return [*(encode_event(event) for event in events), spoken.done]

    async def send_json(self, status: int, body: object, *lines: str) -> None:
        """Send a whole JSON answer."""
        payload = json.dumps(body).encode()
        kind = "content-type: application/json"
        await self.send_head(status, kind, f"content-length: {len(payload)}", *lines)
        await self.write(payload)
        self.end()

    def end(self) -> None:
        """Note that the answer is complete."""
        self.request.finished_s = time.monotonic()

    async def hang(self) -> None:
        """Say nothing more until the client leaves."""
        await self.peer.gone.wait()

    def cut(self) -> None:
        """Flush, then close the connection (FIN)."""
        self.end()
        self.peer.transport.close()

    def reset(self) -> None:
        """Close the connection with a reset (RST)."""
        self.end()
        sock = self.peer.transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(sock.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.transport.abort()


async def _behave(answer: Answer) -> None:
    """Give the correct answer (also with another model's name, false usage, or slowly)."""
    if answer.is_stream:
        await answer.open_stream()
        await answer.send_contents()
        await answer.finish()
    else:
        await answer.pause()
        await answer.send_json(200, answer.dialect.whole())


async def _trickle(answer: Answer) -> None:
    answer.plan.delay_ms = answer.plan.delay_ms or 20.0
    await _behave(answer)


async def _status(answer: Answer) -> None:
    plan = answer.plan
    kind = "rate_limit_error" if plan.status == 429 else "server_error"
    body = answer.dialect.error("as you wished", kind) if plan.body is None else plan.body
    lines = [] if plan.retry_after is None else [f"retry-after: {plan.retry_after:g}"]
    await answer.send_json(plan.status, body, *lines)


async def _refuse(answer: Answer) -> None:
    answer.reset()


async def _cut_before_headers(answer: Answer) -> None:
    answer.cut()


async def _hang_before_headers(answer: Answer) -> None:
    await answer.hang()


async def _begin(answer: Answer) -> None:
    """Send the first part of an answer: ``after`` chunks of a stream, or half a JSON body."""
    if answer.is_stream:
        await answer.open_stream()
        await answer.send_contents(answer.plan.after)
        return
    payload = json.dumps(answer.dialect.whole()).encode()
    await answer.send_head(200, "content-type: application/json", f"content-length: {len(payload)}")
    await answer.write(payload[: len(payload) // 2])


async def _cut_mid_stream(answer: Answer) -> None:
    await _begin(answer)
    answer.cut()


async def _rst_mid_stream(answer: Answer) -> None:
    await _begin(answer)
    while answer.peer.transport.get_write_buffer_size():  # noqa: ASYNC110 - no event for "empty"
        await asyncio.sleep(0)
    answer.reset()


async def _stall_mid_stream(answer: Answer) -> None:
    await _begin(answer)
    await answer.hang()


async def _no_done(answer: Answer) -> None:
    await answer.open_stream()
    await answer.send_contents()
    await answer.finish(done=False)


async def _cut_after_finish(answer: Answer) -> None:
    await answer.open_stream()
    await answer.send_contents()
    for event in answer.dialect.finish():
        await answer.send_event(event)
    answer.cut()


async def _garbage_chunk(answer: Answer) -> None:
    await answer.open_stream()
    await answer.send_contents(answer.plan.after)
    await answer.write_chunk(b'data: {"choices": [{"del\xff\n\n')
    await answer.finish()


async def _garbage_body(answer: Answer) -> None:
    payload = b"<html>\xff this is no JSON"
    await answer.send_head(200, "content-type: application/json", f"content-length: {len(payload)}")
    await answer.write(payload)
    answer.end()


async def _garbage_framing(answer: Answer) -> None:
    await answer.open_stream()
    await answer.send_contents(answer.plan.after)
    await answer.write(b"zz\r\nno chunk\r\n")
    await answer.hang()


async def _garbage_head(answer: Answer) -> None:
    await answer.write(b"220 this is another protocol\r\n\r\n")
    await answer.hang()


async def _endless_head(answer: Answer) -> None:
    await answer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        await answer.write(b"x-more: " + b"m" * 8000 + b"\r\n")


async def _firehose(answer: Answer) -> None:
    await answer.open_stream()
    answer.plan.text = "x" * answer.plan.bytes
    for event in answer.dialect.open():
        await answer.send_event(event)
    (first, *_) = answer.dialect.contents()
    await answer.send_event(first[0])
    while True:
        await answer.send_event(first[-1])
        answer.request.chunks_sent += 1


async def _chunk_split(answer: Answer) -> None:
    await answer.open_stream()
    stream = b"".join(answer.list_events())
    for n in range(len(stream)):
        await answer.write_chunk(stream[n : n + 1])
        await asyncio.sleep(0)
    await answer.write(b"0\r\n\r\n")
    answer.request.chunks_sent = answer.plan.chunks
    answer.end()


async def _error_in_stream(answer: Answer) -> None:
    await answer.open_stream()
    await answer.send_contents(answer.plan.after)
    await answer.send_event(("error", answer.dialect.error("it fell over", "api_error")))
    await answer.write(b"0\r\n\r\n")
    answer.end()


async def _deltas(answer: Answer) -> None:
    """Stream what the plan's body lists: a chat delta in each chunk, or whole events."""
    await answer.open_stream()
    for delta in answer.plan.body:
        await answer.pause()
        if isinstance(answer.dialect, Chat):
            await answer.send_event(answer.dialect.chunk(delta))
        else:
            await answer.send_event((delta["type"], delta))
    await answer.finish()


async def _interim_first(answer: Answer) -> None:
    await answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await answer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n")
    await asyncio.sleep(0)
    await _behave(answer)


async def _close_delimited(answer: Answer) -> None:
    if answer.is_stream:
        await answer.send_head(200, "content-type: text/event-stream", "connection: close")
        for event in answer.list_events():
            await answer.pause()
            await answer.write(event)
        answer.request.chunks_sent = answer.plan.chunks
    else:
        await answer.send_head(200, "content-type: application/json", "connection: close")
        await answer.write(json.dumps(answer.dialect.whole()).encode())
    answer.cut()


async def _big_body(answer: Answer) -> None:
    answer.plan.text = "x" * answer.plan.bytes
    await answer.send_json(200, answer.dialect.whole())


FAULTS: dict[str, Callable[[Answer], Awaitable[None]]] = {
    "none": _behave,
    "status": _status,
    "refuse": _refuse,
    "cut_before_headers": _cut_before_headers,
    "hang_before_headers": _hang_before_headers,
    "cut_mid_stream": _cut_mid_stream,
    "rst_mid_stream": _rst_mid_stream,
    "stall_mid_stream": _stall_mid_stream,
    "no_done": _no_done,
    "cut_after_finish": _cut_after_finish,
    "garbage_chunk": _garbage_chunk,
    "garbage_body": _garbage_body,
    "garbage_framing": _garbage_framing,
    "garbage_head": _garbage_head,
    "endless_head": _endless_head,
    "trickle": _trickle,
    "firehose": _firehose,
    "wrong_model": _behave,
    "chunk_split": _chunk_split,
    "error_in_stream": _error_in_stream,
    "deltas": _deltas,
    "lie_usage": _behave,
    "1xx": _interim_first,
    "close_delimited": _close_delimited,
    "big_body": _big_body,
}


def encode_event(event: Event) -> bytes:
    """Return the bytes of an event."""
    name, data = event
    line = b"data: " + json.dumps(data).encode() + b"\n\n"
    return f"event: {name}\n".encode() + line if name else line

"""What a faulty model server does with one request: the correct answer and the faults.

Faults of a stream (``no_done``, ``garbage_chunk``, ...) send one also to who asked for none.
"""

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

MODEL = "faulty-1"
_CREATED = 1_700_000_000


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


@dataclass(slots=True, kw_only=True)
class Plan:
    """What the last user message asks for."""

    fault: str = "none"
    chunks: int = 5
    delay_ms: float = 0.0
    prompt_tokens: int = 9
    completion_tokens: int | None = None
    after: int = 2
    status: int = 500
    retry_after: float | None = None
    body: Any = None
    bytes: int = 1_000_000
    times: int | None = None

    @property
    def usage(self) -> dict[str, int]:
        """Return the usage that belongs to the plan; ``lie_usage`` makes parts that cannot be."""
        completion = self.chunks if self.completion_tokens is None else self.completion_tokens
        total = self.prompt_tokens + completion
        if self.fault == "lie_usage":
            completion, total = completion * 1000 + 1, -1
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": total,
        }


class Peer(Protocol):
    """The client's end of a connection, as an answer sees it."""

    gone: asyncio.Event
    writable: asyncio.Event
    transport: asyncio.Transport


class Answer:
    """The means of one answer; the functions below use them well or badly."""

    def __init__(self, peer: Peer, request: Request, plan: Plan) -> None:
        self.peer = peer
        self.request = request
        self.plan = plan
        body = request.body if isinstance(request.body, dict) else {}
        self.is_stream = bool(body.get("stream"))
        self.wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.model = "someone-else" if plan.fault == "wrong_model" else body.get("model", MODEL)

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

    async def send_event(self, event: object) -> None:
        """Send one event of the stream."""
        await self.write_chunk(_sse(event))

    async def send_contents(self, count: int) -> None:
        """Send the role chunk and so many content chunks, at the plan's pace."""
        await self.send_event(self.chunk({"role": "assistant", "content": ""}))
        for n in range(count):
            await self.pause()
            await self.send_event(self.chunk({"content": f"tok{n} "}))
            self.request.chunks_sent += 1

    async def pause(self) -> None:
        """Wait the plan's delay between chunks."""
        if self.plan.delay_ms:
            await asyncio.sleep(self.plan.delay_ms / 1000)

    async def finish(self, *, done: bool = True) -> None:
        """Send what ends a good stream: finish reason, usage, terminator, last chunk."""
        for event in self.endings():
            await self.send_event(event)
        if done:
            await self.write_chunk(b"data: [DONE]\n\n")
        await self.write(b"0\r\n\r\n")
        self.end()

    def endings(self) -> Iterator[object]:
        """Give the events that end a good stream, without the terminator."""
        yield self.chunk({}, "stop")
        if self.wants_usage:
            yield {**self.chunk({}), "choices": [], "usage": self.plan.usage}

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

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """Return one chunk of a streamed completion."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._frame("chat.completion.chunk"), "choices": [choice]}

    def completion(self) -> dict[str, Any]:
        """Return a whole completion."""
        text = "".join(f"tok{n} " for n in range(self.plan.chunks))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        frame = self._frame("chat.completion")
        return {**frame, "choices": [choice], "usage": self.plan.usage}

    def _frame(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.request.id}",
            "object": kind,
            "created": _CREATED,
            "model": self.model,
        }


async def _behave(answer: Answer) -> None:
    """Give the correct answer (also with another model's name, false usage, or slowly)."""
    if answer.is_stream:
        await answer.open_stream()
        await answer.send_contents(answer.plan.chunks)
        await answer.finish()
    else:
        await answer.pause()
        await answer.send_json(200, answer.completion())


async def _trickle(answer: Answer) -> None:
    answer.plan.delay_ms = answer.plan.delay_ms or 20.0
    await _behave(answer)


async def _status(answer: Answer) -> None:
    plan = answer.plan
    kind = "rate_limit_error" if plan.status == 429 else "server_error"
    body = make_error("as you wished", kind) if plan.body is None else plan.body
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
    payload = json.dumps(answer.completion()).encode()
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
    await answer.send_contents(answer.plan.chunks)
    await answer.finish(done=False)


async def _cut_after_finish(answer: Answer) -> None:
    await answer.open_stream()
    await answer.send_contents(answer.plan.chunks)
    await answer.send_event(answer.chunk({}, "stop"))
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
    while True:
        await answer.send_event(answer.chunk({"content": "x" * answer.plan.bytes}))
        answer.request.chunks_sent += 1


async def _chunk_split(answer: Answer) -> None:
    await answer.open_stream()
    plan = answer.plan
    events = [answer.chunk({"role": "assistant", "content": ""})]
    events += [answer.chunk({"content": f"tok{n} "}) for n in range(plan.chunks)]
    stream = b"".join(_sse(event) for event in (*events, *answer.endings())) + b"data: [DONE]\n\n"
    for n in range(len(stream)):
        await answer.write_chunk(stream[n : n + 1])
        await asyncio.sleep(0)
    await answer.write(b"0\r\n\r\n")
    answer.request.chunks_sent = plan.chunks
    answer.end()


async def _error_in_stream(answer: Answer) -> None:
    await answer.open_stream()
    await answer.send_contents(answer.plan.after)
    await answer.send_event(make_error("the model fell over", "server_error"))
    await answer.write(b"0\r\n\r\n")
    answer.end()


async def _deltas(answer: Answer) -> None:
    """Stream what the plan's body lists, one delta in each chunk."""
    await answer.open_stream()
    for delta in answer.plan.body:
        await answer.pause()
        await answer.send_event(answer.chunk(delta))
    await answer.finish()


async def _interim_first(answer: Answer) -> None:
    await answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await answer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n")
    await asyncio.sleep(0)
    await _behave(answer)


async def _close_delimited(answer: Answer) -> None:
    if answer.is_stream:
        await answer.send_head(200, "content-type: text/event-stream", "connection: close")
        await answer.write(_sse(answer.chunk({"role": "assistant", "content": ""})))
        for n in range(answer.plan.chunks):
            await answer.pause()
            await answer.write(_sse(answer.chunk({"content": f"tok{n} "})))
            answer.request.chunks_sent += 1
        for event in answer.endings():
            await answer.write(_sse(event))
        await answer.write(b"data: [DONE]\n\n")
    else:
        await answer.send_head(200, "content-type: application/json", "connection: close")
        await answer.write(json.dumps(answer.completion()).encode())
    answer.cut()


async def _big_body(answer: Answer) -> None:
    completion = answer.completion()
    completion["choices"][0]["message"]["content"] = "x" * answer.plan.bytes
    await answer.send_json(200, completion)


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


def _sse(event: object) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def make_error(message: str, kind: str) -> dict[str, Any]:
    """Return an error as the OpenAI wire has it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}

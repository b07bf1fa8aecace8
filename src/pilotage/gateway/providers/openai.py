"""The provider that speaks the OpenAI wire to a replica: send, read, rename, count."""

import asyncio

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.providers.replicas import Replica, Replicas
from pilotage.gateway.upstream import Exchange, UpstreamFailure
from pilotage.gateway.wire import openai as wire
from pilotage.gateway.wire.sse import EventSplitter
from pilotage.kit.clock import Clock

LINGER_S = 1.0  # how long a connection is waited for whose answer is whole
MAX_RETRY_AFTER_S = 3600.0
_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}


class OpenAiProvider:
    """The innermost step. Success is a whole reply, or a stream that finished and said so."""

    def __init__(self, replicas: Replicas, clock: Clock) -> None:
        self._replicas = replicas
        self._clock = clock

    async def __call__(self, call: Call) -> Reply:
        """Ask a replica of the call's arm and return its reply under the alias's name."""
        arm = call.arm
        if arm is None:
            raise PilotageError("no_replica")
        replica = self._replicas.pick(arm.id)
        body = wire.limit_request(call.body, call.request, call.output_limit)
        exchange = await _post(call, replica, body)
        call.status = exchange.status
        if exchange.status != 200:
            raise translate_error(exchange.status, exchange.headers, await exchange.read_all())
        if call.request.stream:
            return await self._open_stream(call, exchange)
        payload = await exchange.read_all()
        completion = wire.decode_completion(payload)
        if completion.usage is not None:
            call.usage = wire.normalise_usage(completion.usage)
        call.answer_bytes = len(payload)
        return Reply(body=wire.rename_model(payload, completion.model, call.alias_name))

    async def _open_stream(self, call: Call, exchange: Exchange) -> Reply:
        chunks = ChunkStream(call, exchange, self._clock)
        await chunks.open()  # nothing is promised to the client before there is content
        return Reply(stream=chunks, terminator=wire.DONE)


class ChunkStream:
    """The chunks of one streamed answer, renamed, counted, and checked for a proper end."""

    def __init__(self, call: Call, exchange: Exchange, clock: Clock) -> None:
        self._call = call
        self._exchange = exchange
        self._clock = clock
        self._splitter = EventSplitter()
        self._first = b""
        self._held: list[bytes] = []
        self._is_finished = False
        self._is_terminated = False

    async def open(self) -> None:
        """Wait for the first content."""
        self._first = await self._read()

    async def read(self) -> bytes:
        """Return the next events as bytes, b"" at a proper end; raise if it ends otherwise."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._read()

    async def _read(self) -> bytes:
        while not self._is_terminated:
            part = await self._exchange.read()
            if not part:
                raise PilotageError("upstream_cut")
            out: list[bytes] = []
            for data in self._splitter.feed(part):
                if data == b"[DONE]":
                    self._is_terminated = True
                    break
                self._take(data, out)
            if out:
                return b"".join(out)
        await self._finish()
        return b""

    def _take(self, data: bytes, out: list[bytes]) -> None:
        call = self._call
        chunk = wire.decode_chunk(data)
        if chunk.error is not None:
            raise PilotageError("upstream_error", "The model broke off with an error.")
        if chunk.usage is not None:
            call.usage = wire.normalise_usage(chunk.usage)
            if not chunk.choices and not call.request.wants_usage:
                return
        line = b"data: " + wire.rename_model(data, chunk.model, call.alias_name) + b"\n\n"
        if chunk.is_final:
            self._is_finished = True
        if chunk.has_content:
            call.chunks += 1
            if call.ttft_us < 0:
                call.ttft_us = round((self._clock.monotonic_s() - call.started_s) * 1e6)
        if call.ttft_us < 0 and not self._is_finished:
            self._held.append(line)  # the role alone is no content
            return
        if self._held:
            out.extend(self._held)
            self._held.clear()
        out.append(line)

    async def _finish(self) -> None:
        if not self._is_finished:
            raise PilotageError("upstream_cut", "The model's answer ended without a finish reason.")
        if self._exchange.is_complete:
            return
        try:  # the answer is whole; this is only for the connection to be used again
            async with asyncio.timeout(LINGER_S):
                while await self._exchange.read():
                    pass
        except (TimeoutError, UpstreamFailure):
            return


async def _post(call: Call, replica: Replica, body: bytes) -> Exchange:
    replica.enter()
    call.at_end(replica.leave)
    call.attempts += 1
    try:
        exchange = await replica.pool.post(
            replica.head,
            body,
            headers_timeout_s=call.first_byte_timeout_s,
            on_write=call.note_sent,
        )
    except UpstreamFailure as failed:
        call.attempts += failed.attempts - 1
        raise
    call.attempts += exchange.attempts - 1
    call.at_end(exchange.close)
    return exchange


def translate_error(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> PilotageError:
    """Return our error for an upstream's: its 400 about the request stays one, all else is its."""
    found = wire.decode_error(body)
    if status in (400, 413, 422):
        if found.type in _CONTEXT_CODES or found.code in _CONTEXT_CODES:
            return PilotageError("context_length_exceeded", found.message, param="messages")
        return PilotageError(
            "invalid_request", found.message or "The model refused the request.", param=found.param
        )
    if status == 429:
        wait = next((value for name, value in headers if name == b"retry-after"), b"")
        return PilotageError(
            "unavailable",
            "The model is overloaded.",
            retry_after_s=min(float(wait), MAX_RETRY_AFTER_S) if wait.isdigit() else 1.0,
        )
    return PilotageError("upstream_error", f"The model answered with status {status}.")

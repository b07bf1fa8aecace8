"""The provider that speaks the OpenAI wire to a replica: send, read, rename, count."""

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.providers.replicas import Replica, Replicas
from pilotage.gateway.upstream import Exchange, UpstreamFailure
from pilotage.gateway.wire import openai as wire
from pilotage.gateway.wire.sse import EventSplitter
from pilotage.kit.clock import Clock

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
        if exchange.status != 200:  # noqa: PLR2004 - the one status that is success here
            raise translate_error(exchange.status, exchange.headers, await exchange.read_all())
        if call.request.stream:
            return await self._open_stream(call, exchange)
        payload = await exchange.read_all()
        completion = wire.decode_completion(payload)
        if completion.usage is not None:
            call.usage = wire.normalise_usage(completion.usage)
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
        """Return the next events as bytes, b"" at a proper end; raise if the stream ends otherwise."""
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
        has_content = False
        for choice in chunk.choices:
            if choice.finish_reason is not None:
                self._is_finished = True
            if choice.delta is not None and choice.delta.has_content:
                has_content = True
        if has_content:
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
        while await self._exchange.read():
            pass  # what follows the terminator is nothing; the connection may then be used again


async def _post(call: Call, replica: Replica, body: bytes) -> Exchange:
    replica.enter()
    call.at_end(replica.leave)
    call.is_sent = True
    try:
        exchange = await replica.pool.post(
            replica.head, body, headers_timeout_s=call.first_byte_timeout_s
        )
    except UpstreamFailure as failed:
        call.is_sent = failed.sent
        call.attempts += 1
        raise
    call.attempts += exchange.attempts
    call.at_end(exchange.close)
    return exchange


def translate_error(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> PilotageError:
    """Return our error for an upstream's: its 400 about the request stays one, all else is its failure."""
    found = wire.decode_error(body)
    if status in (400, 413, 422):
        if found.type in _CONTEXT_CODES or found.code in _CONTEXT_CODES:
            return PilotageError("context_length_exceeded", found.message, param="messages")
        return PilotageError(
            "invalid_request", found.message or "The model refused the request.", param=found.param
        )
    retry_after = next((value for name, value in headers if name == b"retry-after"), b"")
    if status == 429:  # noqa: PLR2004
        return PilotageError(
            "unavailable",
            "The model is overloaded.",
            retry_after_s=float(retry_after) if retry_after.isdigit() else 1.0,
        )
    return PilotageError("upstream_error", f"The model answered with status {status}.")

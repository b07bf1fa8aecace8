"""The gateway's HTTP door: a raw ASGI application in front of the data plane.

It authenticates from the headers before it reads the body, sends headers only with the first
content, and turns every failure into what an OpenAI client understands.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.plane import Caller, DataPlane
from pilotage.gateway.strangers import Strangers
from pilotage.gateway.wire import openai as wire
from pilotage.kit.clock import Clock

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

GONE = "pilotage.gone"  # scope key: what the protocol calls when the client has left
CONNECTION = "pilotage.connection"  # scope key: the protocol instance
JSON = (b"content-type", b"application/json")
DISCARD_FACTOR = (
    8  # a body up to this many times the limit is read away, so that its sender hears the 413
)


class Connection(Protocol):
    """What the door needs of the server's protocol instance."""

    @property
    def is_write_paused(self) -> bool:
        """Whether the client reads too slowly."""
        ...

    def abort(self) -> None:
        """Drop the connection at once, unsent bytes included."""
        ...


class GatewayDoor:
    """The ASGI application of a gateway process."""

    def __init__(
        self, plane: DataPlane, clock: Clock, *, max_body_bytes: int, reader_timeout_s: float
    ) -> None:
        self._plane = plane
        self._clock = clock
        self._max_body_bytes = max_body_bytes
        self._reader_timeout_s = reader_timeout_s
        self.strangers = Strangers(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway does not speak {scope['type']}")
        path = scope["path"]
        try:
            if path == "/v1/chat/completions":
                _expect(scope, "POST")
                await self._answer_chat(scope, receive, send)
            elif path == "/v1/models" or path.startswith("/v1/models/"):
                _expect(scope, "GET")
                await _send_json(send, 200, self._show_models(scope, path))
            elif path == "/healthz":
                await _send_json(send, 200, b'{"status":"ok"}')
            elif path == "/readyz":
                await self._answer_ready(send)
            else:
                raise PilotageError(
                    "unknown_url", f"There is no {path}.", hint="The API is below /v1."
                )
        except PilotageError as refused:
            self._count(scope, refused)
            await self._send_error(send, refused)

    async def _answer_ready(self, send: Send) -> None:
        problem = self._plane.find_problem()
        if problem:
            raise PilotageError("draining" if self._plane.is_draining else "not_ready", problem)
        await _send_json(send, 200, b'{"status":"ready"}')

    async def _answer_chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = self._clock.monotonic_s()
        headers = scope["headers"]
        caller, purpose, length = self._read_headers(headers)
        body = await _read_body(receive, length, self._max_body_bytes)
        if body is None:
            return
        call = self._plane.open_call(caller, wire.decode_request(body), body, started_s, purpose)
        scope[GONE] = lambda: call.stop(Outcome.CLIENT_GONE)
        answer = Answer(call, scope[CONNECTION], send, self._reader_timeout_s)
        with self._plane.running(call):
            async with call:
                await answer.run(await self._plane.chain(call))
            del scope[GONE]
        await answer.finish(self)

    def _read_headers(self, headers: Headers) -> tuple[Caller, str, int]:
        secret, purpose, length = b"", "", -1
        for name, value in headers:
            if name == b"authorization":
                secret = value[7:].strip() if value[:7].lower() == b"bearer " else b""
            elif name == b"content-length":
                length = int(value)
            elif name == b"x-pilotage-purpose":
                purpose = value.decode("latin-1")[:200]
        if not secret:
            raise PilotageError(
                "invalid_api_key", "There is no API key.", hint="Send 'Authorization: Bearer KEY'."
            )
        return self._plane.authenticate(secret), purpose, length

    def _show_models(self, scope: Scope, path: str) -> bytes:
        caller, _, _ = self._read_headers(scope["headers"])
        entries = [view.entry for view in caller.view.list_aliases(caller.tenant.project_id)]
        name = path.removeprefix("/v1/models").removeprefix("/")
        if not name:
            return wire.encode_models(
                [(entry.name, entry.created_at_us // 1_000_000) for entry in entries]
            )
        for entry in entries:
            if entry.name == name:
                return wire.encode_model(entry.name, entry.created_at_us // 1_000_000)
        raise PilotageError("model_not_found", f"The model {name!r} does not exist.", param="model")

    def _count(self, scope: Scope, refused: PilotageError) -> None:
        if refused.code in (
            "invalid_api_key",
            "request_too_large",
            "invalid_json",
            "invalid_request",
        ):
            client = scope.get("client")
            self.strangers.count(client[0] if client else "", refused.code)

    async def _send_error(
        self, send: Send, error: PilotageError, extra: Headers | None = None
    ) -> None:
        headers = list(extra or [])
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
            headers.append((b"retry-after-ms", b"%d" % round(error.retry_after_s * 1000)))
        if self._plane.is_draining or error.code == "request_too_large":
            headers.append((b"connection", b"close"))
        await _send_json(send, error.status, wire.encode_error(error), headers)

    async def send_call_error(self, send: Send, call: Call, error: PilotageError) -> None:
        """Send the error of a call of which nothing has been sent yet."""
        await self._send_error(send, error, _call_headers(call))


class Answer:
    """What one client gets: the reply as it comes, then its end or its error."""

    def __init__(
        self, call: Call, connection: Connection, send: Send, reader_timeout_s: float
    ) -> None:
        self._call = call
        self._connection = connection
        self._send = send
        self._reader_timeout_s = reader_timeout_s
        self._reply: Reply | None = None
        self._is_started = False

    async def run(self, reply: Reply) -> None:
        """Send everything but the end of the reply, while the call is open."""
        self._reply = reply
        if reply.stream is None:
            return
        async with aclosing(reply.stream) as parts:  # type: ignore[type-var]
            async for part in parts:
                if not self._is_started:
                    await self._start(reply, [(b"cache-control", b"no-cache")])
                await self._put(part)

    async def finish(self, door: GatewayDoor) -> None:
        """Send the end of the reply, or of the failure; the call is closed and on record."""
        call, reply = self._call, self._reply
        if call.error is None and reply is not None:
            if reply.stream is None:
                await self._start(reply, [(b"content-length", b"%d" % len(reply.body))])
            await self._send({"type": "http.response.body", "body": reply.body or reply.terminator})
        elif call.outcome is Outcome.CLIENT_GONE:
            return
        elif call.outcome is Outcome.READER_STALLED:
            self._connection.abort()
            await asyncio.sleep(0)  # the server must see the loss before this task ends
        elif not self._is_started:
            await door.send_call_error(
                self._send, call, call.error or PilotageError("internal_error")
            )
        elif self._connection.is_write_paused:
            self._connection.abort()
            await asyncio.sleep(0)
        else:
            frame = wire.encode_error(call.error or PilotageError("internal_error"))
            await self._send({"type": "http.response.body", "body": b"data: " + frame + b"\n\n"})

    async def _start(self, reply: Reply, headers: Headers) -> None:
        self._is_started = True
        headers = [(b"content-type", reply.content_type), *headers, *_call_headers(self._call)]
        await self._send(
            {"type": "http.response.start", "status": reply.status, "headers": headers}
        )

    async def _put(self, part: bytes) -> None:
        message = {"type": "http.response.body", "body": part, "more_body": True}
        if not self._connection.is_write_paused:
            await self._send(message)
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._reader_timeout_s, self._call.stop, Outcome.READER_STALLED)
        try:
            await self._send(message)
        finally:
            timer.cancel()


def _call_headers(call: Call) -> Headers:
    headers = [(b"x-request-id", call.id.encode())]
    if call.arm is not None:
        headers.append((b"x-pilotage-model-version", call.arm.model.encode()))
        headers.append((b"x-pilotage-arm", call.arm.id.encode()))
    return headers


def _expect(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise PilotageError("method_not_allowed", f"{scope['path']} takes {method}.")


async def _read_body(receive: Receive, length: int, limit: int) -> bytes | None:
    """Return the body, None if the client left; a too large one is read away as far as is decent."""
    if length > limit * DISCARD_FACTOR:
        raise _too_large(limit)
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > limit * DISCARD_FACTOR:
            raise _too_large(limit)
        if not message.get("more_body"):
            break
    if size > limit:
        raise _too_large(limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> PilotageError:
    return PilotageError("request_too_large", f"A body may have {limit} bytes at most.")


async def _send_json(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    headers = [JSON, (b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""The gateway's HTTP door: a raw ASGI application in front of the data plane.

It authenticates from the headers before it reads the body, sends headers only with the first
content, and turns every failure into what an OpenAI client understands.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, Protocol

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.key_scopes import FEEDBACK, MODELS, USAGE
from pilotage.core.money import format_usd
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.plane import Caller, DataPlane, Sent
from pilotage.gateway.predict import CallFailed, Prediction
from pilotage.gateway.strangers import Strangers
from pilotage.gateway.wire import anthropic, completions, embeddings, responses
from pilotage.gateway.wire import openai as wire
from pilotage.gateway.wire.door import Wire
from pilotage.gateway.wire.feedback import MAX_FEEDBACK_BYTES
from pilotage.gateway.wire.predict import find_endpoint
from pilotage.gateway.wire.usage import encode_uses
from pilotage.kit.clock import Clock, rfc3339

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_LOG = logging.getLogger("pilotage.gateway")

CONNECTION = "pilotage.connection"  # scope key: the server's protocol instance
CYCLE = "pilotage.cycle"  # scope key: the server's state of this one request
JSON = (b"content-type", b"application/json")
DISCARD_FACTOR = 8  # a body of so many limits is read away, so that its sender hears the 413
MAX_HEADER = 200  # letters of a header that are kept
WIRES: dict[str, Wire] = {
    "/v1/chat/completions": wire.CHAT,
    "/v1/completions": completions.COMPLETIONS,
    "/v1/embeddings": embeddings.EMBEDDINGS,
    "/v1/messages": anthropic.MESSAGES,
    "/v1/responses": responses.RESPONSES,
}
_SAID = {
    b"x-pilotage-purpose": "purpose",
    b"x-pilotage-feature": "feature",
    b"x-pilotage-user": "user",
    b"traceparent": "trace_parent",
    b"idempotency-key": "idempotency_key",
    b"x-pilotage-session": "session",
}
_NOTHING = Sent()
_VISIBLE = re.compile(r"[!-~]+").fullmatch
_NOT_AGAIN = frozenset({"insufficient_quota", "upstream_quota"})
_CLOSING = frozenset({"request_timeout", "request_too_large"})  # the rest of the body may follow


class Connection(Protocol):
    """What the door needs of the server's protocol instance.

    A connection runs one call at a time; ``on_gone`` is what :meth:`watch` was given for it.
    """

    on_gone: Callable[[], None] | None

    def watch(self, cycle: Any, on_gone: Callable[[], None]) -> None:  # noqa: ANN401
        """Have something called when the client leaves; it is noticed from now on."""
        ...

    @property
    def is_write_paused(self) -> bool:
        """Whether the client reads too slowly."""
        ...

    def abort(self) -> None:
        """Drop the connection at once, unsent bytes included."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether the connection is being given up."""
        ...

    async def wait_writable(self) -> None:
        """Return when the client has read enough."""
        ...

    def respond(self, cycle: Any, head: bytes, body: bytes) -> None:  # noqa: ANN401 - the server's own
        """Write a whole reply at once; ``head`` is its status line and header lines."""
        ...

    def open_stream(self, cycle: Any, head: bytes, part: bytes) -> None:  # noqa: ANN401
        """Write the head of a stream, which is told nothing of its framing, and its first part."""
        ...

    def write_part(self, cycle: Any, part: bytes) -> None:  # noqa: ANN401
        """Write a further part of a stream."""
        ...

    def close_stream(self, cycle: Any, part: bytes) -> None:  # noqa: ANN401
        """Write the last part of a stream and end it."""
        ...


class GatewayDoor:
    """The ASGI application of a gateway process."""

    def __init__(
        self,
        plane: DataPlane,
        clock: Clock,
        *,
        max_body_bytes: int,
        reader_timeout_s: float,
        show_metrics: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._plane = plane
        self._show_metrics = show_metrics
        self._clock = clock
        self._max_body_bytes = max_body_bytes
        self._reader_timeout_s = reader_timeout_s
        self._strangers = Strangers(clock)
        plane.strangers = self._strangers.by_code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway does not speak {scope['type']}")
        path = scope["path"]
        try:
            if path in WIRES:
                _expect(scope, "POST")
                await self._answer_call(scope, receive, send, WIRES[path])
            elif path.startswith("/v1/"):
                await self._answer_beside(scope, receive, send, path)
            elif path == "/metrics":
                _expect(scope, "GET")
                await self._answer_metrics(scope, send)
            elif path == "/healthz":
                await _send_json(send, 200, b'{"status":"ok"}')
            elif path == "/readyz":
                await self._answer_ready(send)
            else:
                raise _unknown(path)
        except PilotageError as refused:
            self._count(scope, refused)
            await self._send_error(send, refused, _find_wire(scope))
        except Exception:
            _LOG.exception("a request broke")
            broken = PilotageError("internal_error")
            await self._send_error(send, broken, _find_wire(scope))

    async def _answer_beside(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Answer what is asked of a key beside its calls."""
        if path == "/v1/models" or path.startswith("/v1/models/"):
            _expect(scope, "GET")
            await _send_json(send, 200, self._show_models(scope, path))
        elif path == "/v1/usage":
            _expect(scope, "GET")
            await _send_json(send, 200, await self._show_usage(scope))
        elif path == "/v1/feedback":
            _expect(scope, "POST")
            await self._answer_feedback(scope, receive, send)
        elif endpoint := find_endpoint(path):
            _expect(scope, "POST")
            await self._answer_prediction(scope, receive, send, endpoint)
        else:
            raise _unknown(path)

    async def _answer_ready(self, send: Send) -> None:
        problem = self._plane.find_problem()
        if problem:
            raise PilotageError("draining" if self._plane.is_draining else "not_ready", problem)
        await _send_json(send, 200, b'{"status":"ready"}')

    async def _answer_call(self, scope: Scope, receive: Receive, send: Send, spoken: Wire) -> None:
        started_s = self._clock.monotonic_s()
        headers = scope["headers"]
        caller, sent, length = self._read_headers(headers)
        body = await self._read_body(scope, receive, length, self._max_body_bytes)
        if body is None or scope[CONNECTION].is_closing:
            scope[CYCLE].disconnected = True  # the server knows that only of the last of several
            return
        call = self._plane.open_call(caller, spoken, body, started_s, sent)
        connection: Connection = scope[CONNECTION]
        answer = Answer(call, connection, scope[CYCLE], self._reader_timeout_s)
        self._plane.enter(call)
        connection.watch(scope[CYCLE], call.leave)
        try:
            async with call:
                await answer.run(await self._plane.chain(call))
        finally:
            connection.on_gone = None
            self._plane.leave(call)
        if not answer.finish():
            error = call.error or PilotageError("internal_error")
            await self._send_error(send, error, spoken, _call_headers(call))
        elif connection.is_closing:
            await asyncio.sleep(0)  # the server must see the loss before this task ends

    async def _answer_feedback(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take what a client says of the answer to one of its calls."""
        caller, _, length = self._read_headers(scope["headers"])
        caller.require(FEEDBACK)
        body = await self._read_body(scope, receive, length, MAX_FEEDBACK_BYTES)
        if body is not None:
            reply = await self._plane.feedback.take(caller.tenant, caller.key_id, body)
            await _send_json(send, 202, reply)

    async def _answer_prediction(
        self, scope: Scope, receive: Receive, send: Send, endpoint: str
    ) -> None:
        """Answer instances, each by a call of its own."""
        caller, sent, length = self._read_headers(scope["headers"])
        body = await self._read_body(scope, receive, length, self._max_body_bytes)
        if body is None:
            return
        prediction = Prediction(self._plane, self._clock, caller, sent)
        connection: Connection = scope[CONNECTION]
        connection.watch(scope[CYCLE], prediction.leave)
        try:
            reply = await prediction.run(endpoint, body)
        except CallFailed as failed:
            headers = _call_headers(failed.call)
            answer = self._send_error(send, failed.error, wire.CHAT, headers)
        else:
            answer = _send_json(send, 200, reply)
        finally:
            connection.on_gone = None
        await answer

    async def _read_body(
        self, scope: Scope, receive: Receive, length: int, limit: int
    ) -> bytes | None:
        if not scope[CYCLE].more_body:  # it came with the headers
            return await _read_body(receive, length, limit)
        try:
            async with asyncio.timeout(self._plane.call_timeout_s):
                return await _read_body(receive, length, limit)
        except TimeoutError:
            raise PilotageError("request_timeout") from None

    def _read_headers(self, headers: Headers) -> tuple[Caller, Sent, int]:
        secret, length = b"", -1
        said: dict[str, str] = {}
        for name, value in headers:
            if name == b"authorization":
                if value[:7].lower() == b"bearer ":  # another one is for who passed this on
                    secret = value[7:].strip()
            elif name == b"x-api-key":  # what Anthropic's clients send
                secret = secret or value.strip()
            elif name == b"content-length":
                length = int(value)
            elif name in _SAID:
                said[_SAID[name]] = value.decode("latin-1")
        if not secret:
            raise PilotageError(
                "invalid_api_key", "There is no API key.", hint="Send 'Authorization: Bearer KEY'."
            )
        return self._plane.authenticate(secret), _make_sent(said) if said else _NOTHING, length

    def _show_models(self, scope: Scope, path: str) -> bytes:
        caller, _, _ = self._read_headers(scope["headers"])
        caller.require(MODELS)
        views = caller.view.list_aliases(caller.tenant.project_id, caller.scope)
        entries = [view.entry for view in views]
        name = path.removeprefix("/v1/models").removeprefix("/")
        found = [entry for entry in entries if entry.name == name] if name else entries
        if name and not found:
            raise PilotageError(
                "model_not_found", f"The model {name!r} does not exist.", param="model"
            )
        if _is_anthropic(scope):
            dated = [(entry.name, rfc3339(entry.created_at_us)) for entry in found]
            return anthropic.encode_model(*dated[0]) if name else anthropic.encode_models(dated)
        counted = [(entry.name, entry.created_at_us // 1_000_000) for entry in found]
        return wire.encode_model(*counted[0]) if name else wire.encode_models(counted)

    async def _answer_metrics(self, scope: Scope, send: Send) -> None:
        """Show the metrics to this machine only: they tell of every tenant."""
        client = scope.get("client")
        if client is None or not ip_address(client[0]).is_loopback:
            raise PilotageError(
                "permission_denied",
                "Metrics are shown to this machine only.",
                hint="Scrape them from here, or through a proxy with its own authentication.",
            )
        page = await self._show_metrics()
        headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
        headers.append((b"content-length", b"%d" % len(page)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page})

    async def _show_usage(self, scope: Scope) -> bytes:
        """Return what the caller's limits allow, and how much of that is used and left."""
        caller, sent, _ = self._read_headers(scope["headers"])
        caller.require(USAGE)
        return encode_uses(await self._plane.list_uses(caller, sent.user))

    def _count(self, scope: Scope, refused: PilotageError) -> None:
        if refused.code in (
            "invalid_api_key",
            "request_too_large",
            "invalid_json",
            "invalid_request",
        ):
            client = scope.get("client")
            self._strangers.accuse(client[0] if client else "", refused.code)
        else:
            self._strangers.count(refused.code)

    async def _send_error(
        self, send: Send, error: PilotageError, spoken: Wire, extra: Headers | None = None
    ) -> None:
        headers = list(extra or [])
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
            headers.append((b"retry-after-ms", b"%d" % round(error.retry_after_s * 1000)))
        if self._plane.is_draining or error.code in _CLOSING:
            headers.append((b"connection", b"close"))
        if error.code in _NOT_AGAIN:
            headers.append((b"x-should-retry", b"false"))
        await _send_json(send, error.status, spoken.encode_error(error), headers)


class Answer:
    """What one client gets: the reply as it comes, then its end or its error."""

    def __init__(
        self,
        call: Call,
        connection: Connection,
        cycle: Any,  # noqa: ANN401 - the server's own
        reader_timeout_s: float,
    ) -> None:
        self._call = call
        self._connection = connection
        self._cycle = cycle
        self._reader_timeout_s = reader_timeout_s
        self._reply: Reply | None = None
        self.is_started = False

    async def run(self, reply: Reply) -> None:
        """Send everything but the end of the reply, while the call is open."""
        self._reply = reply
        stream, connection, cycle = reply.stream, self._connection, self._cycle
        if stream is None:
            return
        while part := await stream.read():
            if connection.is_write_paused:
                await self._wait_reader()
            if self.is_started:
                connection.write_part(cycle, part)
            else:
                self.is_started = True
                connection.open_stream(cycle, _make_head(self._call, reply), part)

    def finish(self) -> bool:
        """Send the end of the reply or of its failure; False if all of an error is due.

        The call is closed and on record by now.
        """
        call, reply, connection = self._call, self._reply, self._connection
        if call.outcome is Outcome.CLIENT_GONE:
            return True
        if call.error is None and reply is not None:
            if reply.stream is None:
                connection.respond(self._cycle, _make_head(call, reply), reply.body)
            elif self.is_started:
                connection.close_stream(self._cycle, reply.terminator)
            else:
                connection.open_stream(self._cycle, _make_head(call, reply), reply.terminator)
                connection.close_stream(self._cycle, b"")
        elif call.outcome is Outcome.READER_STALLED or (
            self.is_started and connection.is_write_paused
        ):
            connection.abort()
        elif self.is_started:
            error = call.error or PilotageError("internal_error")
            connection.close_stream(self._cycle, call.wire.encode_stream_error(error))
        else:
            return False
        return True

    async def _wait_reader(self) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._reader_timeout_s, self._call.stop, Outcome.READER_STALLED)
        try:
            await self._connection.wait_writable()
        finally:
            timer.cancel()


def _make_sent(said: dict[str, str]) -> Sent:
    """Return what headers say; a session cut short could be another's, and is refused."""
    session = said.get("session", "")
    if session and (len(session) > MAX_HEADER or not _VISIBLE(session)):
        raise PilotageError(
            "invalid_request",
            f"x-pilotage-session takes 1 to {MAX_HEADER} visible ASCII letters.",
            hint="Send an id of the conversation, or a hash of it.",
            param="x-pilotage-session",
        )
    return Sent(**{name: value[:MAX_HEADER] for name, value in said.items()})


def _make_head(call: Call, reply: Reply) -> bytes:
    own = b"x-request-id: %b\r\n%b%b" % (call.id.encode(), _list_origin(call), call.head_lines)
    if call.wire.id_header:
        own = b"%b: %b\r\n%b" % (call.wire.id_header, call.id.encode(), own)
    if call.attempts > 1:
        own += b"x-pilotage-attempts: %d\r\n" % call.attempts
    if reply.stream is not None:
        if call.tenant.shows and call.ttft_us >= 0:
            inside_ms = max(call.ttft_us / 1e3 - call.waited_s * 1e3, 0.0)
            own += b"x-pilotage-overhead-ms: %.2f\r\n" % inside_ms
        return _STREAM_HEAD + own
    if call.tenant.shows and call.bill is not None:  # a plain call has been billed by now
        inside_ms = max(call.ended_s - call.started_s - call.waited_s, 0.0) * 1e3
        cost = format_usd(call.bill.cost_nano).encode()
        own += b"x-pilotage-cost-usd: %b\r\nx-pilotage-overhead-ms: %.2f\r\n" % (cost, inside_ms)
    return _PLAIN_HEAD % (len(reply.body), own)


def _list_origin(call: Call) -> bytes:
    """Return the header lines that say who answered, where the tenant wants them."""
    arm = call.arm
    if arm is None or not call.tenant.shows:
        return b""
    return b"x-pilotage-model-version: %b\r\nx-pilotage-arm: %b\r\n" % (
        arm.model.encode(),
        arm.id.encode(),
    )


_PLAIN_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\n"
)


def _call_headers(call: Call) -> Headers:
    lines = _list_origin(call) + call.head_lines
    pairs = [line.partition(b": ") for line in lines.split(b"\r\n") if line]
    names = [b"x-request-id", *([call.wire.id_header] if call.wire.id_header else [])]
    ids = [(name, call.id.encode()) for name in names]
    return [*ids, *((name, value) for name, _, value in pairs)]


def _find_wire(scope: Scope) -> Wire:
    """Return the wire that whoever asked understands errors on."""
    found = WIRES.get(scope["path"])
    return found or (anthropic.MESSAGES if _is_anthropic(scope) else wire.CHAT)


def _is_anthropic(scope: Scope) -> bool:
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def _unknown(path: str) -> PilotageError:
    return PilotageError("unknown_url", f"There is no {path}.", hint="The API is below /v1.")


def _expect(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise PilotageError("method_not_allowed", f"{scope['path']} takes {method}.")


async def _read_body(receive: Receive, length: int, limit: int) -> bytes | None:
    """Return the body, None if the client left; a too large one is read away as far as decent."""
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

"""Calls to an upstream as tests make them: on both event loops, to scripted servers, over TLS."""

import asyncio
import inspect
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from faulty_upstream import FaultyUpstream, Request
from pilotage.gateway.transport.upstream import Exchange, Limits, Origin, Pool, UpstreamFailure

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: upstream\r\n"
    b"content-type: application/json\r\naccept-encoding: identity\r\n"
)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def on_both_loops(scenario: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test once on plain asyncio and once on uvloop."""

    def run(loop_name: str, **arguments: object) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(scenario(**arguments))

    asked = inspect.signature(scenario).parameters.values()
    loop = inspect.Parameter("loop_name", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([loop, *asked])  # type: ignore[attr-defined]
    run.__name__ = run.__qualname__ = scenario.__name__
    run.pytestmark = list(getattr(scenario, "pytestmark", []))  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.parametrize("loop_name", list(LOOPS))(run)
    return marked


def ask(plan: dict[str, Any] | None = None, *, stream: bool = True) -> bytes:
    """Return the body of a chat request whose message is the plan."""
    message = {"role": "user", "content": json.dumps(plan or {})}
    wish: dict[str, Any] = {"model": "m", "messages": [message], "stream": stream}
    if stream:
        wish["stream_options"] = {"include_usage": True}
    return json.dumps(wish).encode()


@asynccontextmanager
async def pool_to(upstream: FaultyUpstream | int, **limits: float) -> AsyncIterator[Pool]:
    """Give a pool to a server, and close it."""
    port = upstream if isinstance(upstream, int) else upstream.port
    unix_path, tls = None, None
    if isinstance(upstream, FaultyUpstream):
        unix_path = upstream.unix_path
        tls = certificate().client if upstream.tls else None
    pool = Pool(Origin(host="127.0.0.1", port=port, unix_path=unix_path, tls=tls), Limits(**limits))  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        pool.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def raw_server(answer: Raw) -> AsyncIterator[int]:
    """Listen with a function of our own that answers each connection; give the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request, return its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return await reader.readexactly(int(line.split(b":")[1]))
    raise AssertionError(head)


def saying(*pieces: bytes, keeps: bool = True) -> Raw:
    """Return a server that sends these pieces to each request, apart, then keeps or closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                for _ in range(2):
                    await asyncio.sleep(0)  # let the client read what is there
            if not keeps:
                return

    return answer


async def until(condition: Callable[[], bool], what: str, within_s: float = 5.0) -> None:
    """Wait for a condition; fail after a deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.001)


async def fetch(pool: Pool, body: bytes) -> bytes:
    """Make one whole call."""
    exchange = await pool.post(HEAD, body)
    try:
        return await exchange.read_all()
    finally:
        exchange.close()


def events_of(stream: bytes) -> list[Any]:
    """Return the events of a good stream, without its terminator."""
    *events, last, rest = stream.split(b"\n\n")
    assert (last, rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


class Certificate:
    """A certificate of our own for 127.0.0.1, as both sides need it."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream")])
        now = datetime.now(UTC)
        signed = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = signed.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with tempfile.NamedTemporaryFile() as file:
            file.write(pem + secret)
            file.flush()
            self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.server.load_cert_chain(file.name)
        self.client = ssl.create_default_context(cadata=pem.decode())


@cache
def certificate() -> Certificate:
    """Return the certificate, made once."""
    return Certificate()


def tls_or_not(is_tls: bool) -> ssl.SSLContext | None:
    """Return the server's TLS context if it shall speak TLS."""
    return certificate().server if is_tls else None


async def until_held_back(request: Request) -> int:
    """Wait until the server has sent nothing for a tenth of a second; return how much it sent."""
    sent, since = -1, time.monotonic()
    while time.monotonic() - since < 0.1 or not sent:
        if request.bytes_sent != sent:
            sent, since = request.bytes_sent, time.monotonic()
        await asyncio.sleep(0.001)
    return sent


async def read_until_failure(exchange: Exchange) -> tuple[bytes, UpstreamFailure]:
    """Read and close a response that breaks; return what arrived, and the failure."""
    arrived = b""
    try:
        while part := await exchange.read():
            arrived += part
    except UpstreamFailure as failure:
        return arrived, failure
    finally:
        exchange.close()
    raise AssertionError("the response ended well")


async def fail(pool: Pool, body: bytes) -> tuple[bytes, UpstreamFailure]:
    """Make a call that breaks; return what arrived, and the failure."""
    try:
        exchange = await pool.post(HEAD, body)
    except UpstreamFailure as failure:
        return b"", failure
    return await read_until_failure(exchange)

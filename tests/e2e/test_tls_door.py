"""The gateway's door with a certificate: all that plain HTTP does, to clients that trust it."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from faulty_upstream import FaultyUpstream
from gateway_cases import read_ends
from gateway_harness import ALIAS, GatewayProcess, World, chat_body, until
from pilotage.core.errors import PilotageError
from pilotage.kit.config import Settings
from pilotage.runtime.doors import Certificate, open_control_door, open_gateway_door
from private_ca import PrivateAuthority

ENDLESS = {"chunks": 100_000, "delay_ms": 20}
LARGE = {"fault": "big_body", "bytes": 4_000_000}


class Door(NamedTuple):
    """A gateway with a certificate, and what trusts it."""

    world: World
    upstream: FaultyUpstream
    gateway: GatewayProcess
    authority: PrivateAuthority
    certificate: Path
    key: Path
    trust: ssl.SSLContext

    @property
    def url(self) -> str:
        """The address of the gateway."""
        return f"https://127.0.0.1:{self.gateway.port}"

    def http(self) -> httpx.AsyncClient:
        """Return a client that trusts the authority, with the world's key."""
        headers = {"authorization": f"Bearer {self.world.secret}"}
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, verify=self.trust, trust_env=False, timeout=30
        )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TLS connection."""
        return await asyncio.open_connection("127.0.0.1", self.gateway.port, ssl=self.trust)

    def make_post(self, body: dict[str, Any]) -> bytes:
        """Return the bytes of a chat request."""
        payload = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
            f"authorization: Bearer {self.world.secret}\r\ncontent-length: {len(payload)}\r\n\r\n"
        )
        return head.encode() + payload


@asynccontextmanager
async def open_door(path: Path) -> AsyncIterator[Door]:
    authority = PrivateAuthority()
    certificate, key = path / "door.pem", path / "door.key"
    authority.write_pair(certificate, key, "127.0.0.1")
    trust = ssl.create_default_context(cafile=authority.write(path / "ca.pem"))
    files = {"tls_certificate": str(certificate), "tls_key": str(key)}
    settings = {"gateway": {**files, "reader_timeout": "500ms"}}
    world = World(path / "data")
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world, settings) as gateway:
            yield Door(world, upstream, gateway, authority, certificate, key, trust)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        yield opened


async def test_the_openai_package_talks_to_it_plainly_and_streamed(door: Door) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{door.url}/v1",
        api_key=door.world.secret,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(verify=door.trust, trust_env=False),
    ) as client:
        messages = chat_body({"chunks": 3})["messages"]
        answer = await client.chat.completions.create(model=ALIAS, messages=messages)
        assert answer.choices[0].message.content == "tok0 tok1 tok2 "
        stream = await client.chat.completions.create(model=ALIAS, messages=messages, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(texts) == "tok0 tok1 tok2 "
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{door.url}/healthz", trust_env=False)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{door.gateway.port}/healthz", trust_env=False)


async def test_large_and_endless_answers_pass_and_a_client_that_leaves_is_noticed(
    door: Door,
) -> None:
    async with door.http() as http:
        reply = await http.post("/v1/chat/completions", json=chat_body(LARGE))
        assert len(reply.content) > 4_000_000
        request = chat_body(ENDLESS, stream=True)
        async with http.stream("POST", "/v1/chat/completions", json=request) as stream:
            await anext(stream.aiter_lines())
            call_id = stream.headers["x-request-id"]
    await until(lambda: bool(read_ends(door.world.spool)[call_id]), "the end of the call")
    assert read_ends(door.world.spool)[call_id][0].outcome == "client_gone"

    _, writer = await door.connect()
    writer.write(door.make_post(request))
    await until(lambda: len(read_ends(door.world.spool)) == 3, "another call")
    writer.transport.abort()  # without a farewell in TLS
    await until(lambda: all(read_ends(door.world.spool).values()), "the end of both calls")
    await until(lambda: door.upstream.open_connections <= 1, "no upstream left open")


async def test_a_client_that_reads_nothing_is_given_up(door: Door) -> None:
    _, writer = await door.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(door.make_post(chat_body({"fault": "firehose", "bytes": 20_000}, stream=True)))
    await until(lambda: len(read_ends(door.world.spool)) == 1, "a call")
    await until(lambda: all(read_ends(door.world.spool).values()), "the end of the call")
    ((end,),) = read_ends(door.world.spool).values()
    assert end.outcome == "reader_stalled"
    await until(lambda: door.upstream.open_connections == 0, "no upstream left open")
    writer.transport.abort()


async def test_requests_may_follow_each_other_without_waiting(door: Door) -> None:
    reader, writer = await door.connect()
    posts = [door.make_post(chat_body({"chunks": count})) for count in (1, 2, 3)]
    writer.write(b"".join(posts))
    bodies = [await read_answer(reader) for _ in posts]
    texts = [body["choices"][0]["message"]["content"] for body in bodies]
    assert texts == ["tok0 ", "tok0 tok1 ", "tok0 tok1 tok2 "]
    writer.close()


async def read_answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200")
    size = next(line for line in head.splitlines() if line.startswith("content-length:"))
    body: dict[str, Any] = json.loads(await reader.readexactly(int(size.partition(":")[2])))
    return body


async def test_a_running_stream_ends_well_when_it_drains(door: Door) -> None:
    async with door.http() as http:
        request = chat_body({"chunks": 40, "delay_ms": 20}, stream=True)
        async with http.stream("POST", "/v1/chat/completions", json=request) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            assert door.gateway.process is not None
            door.gateway.process.terminate()
            rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert await asyncio.wait_for(door.gateway.process.wait(), 15) == 0


async def test_a_new_certificate_is_for_new_connections_and_old_ones_live_on(door: Door) -> None:
    old = await get_serial(door)
    reader, writer = await door.connect()
    writer.write(door.make_post(chat_body(ENDLESS, stream=True)))
    await reader.readuntil(b"tok0")
    good = door.certificate.read_bytes()
    door.certificate.write_bytes(b"half a pair")
    await until(lambda: "old certificate stays" in door.gateway.log(), "a pair that is refused")
    assert await get_serial(door) == old
    door.certificate.write_bytes(good)
    door.authority.write_pair(door.certificate, door.key, "127.0.0.1")
    await until(lambda: "a new certificate is in use" in door.gateway.log(), "the new pair")
    assert await get_serial(door) != old
    seen = await reader.readuntil(b"data:")
    assert seen  # the stream goes on over the old connection
    writer.transport.abort()


async def get_serial(door: Door) -> str:
    reader, writer = await door.connect()
    del reader
    serial = str(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
    writer.close()
    return serial


async def test_an_older_tls_is_refused(door: Door) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", door.gateway.port, ssl=old)


def make_settings(**gateway: object) -> Settings:
    from msgspec import convert

    return convert({"gateway": {"port": 0, **gateway}, "control": {"port": 0}}, Settings)


def test_plain_http_is_for_this_machine_unless_said_otherwise() -> None:
    for host in ("127.0.0.1", "localhost"):
        open_gateway_door(make_settings(host=host)).close()
    with pytest.raises(PilotageError, match="keys and prompts would travel") as refused:
        open_gateway_door(make_settings(host="0.0.0.0"))
    assert refused.value.code == "invalid_config"
    assert "gateway.tls_certificate" in refused.value.hint
    assert "gateway.plain_http to anywhere" in refused.value.hint
    open_gateway_door(make_settings(host="0.0.0.0", plain_http="anywhere")).close()


def test_the_control_api_is_for_this_machine_unless_said_otherwise() -> None:
    from msgspec import convert

    exposed = {"host": "0.0.0.0", "port": 0}
    with pytest.raises(PilotageError, match="credentials would travel") as refused:
        open_control_door(convert({"control": exposed}, Settings))
    assert "control.plain_http to anywhere" in refused.value.hint
    settings = convert({"control": {**exposed, "plain_http": "anywhere"}}, Settings)
    open_control_door(settings).close()


def test_a_certificate_opens_the_door_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    authority = PrivateAuthority()
    authority.write_pair(certificate, key, "127.0.0.1")
    named = {"tls_certificate": str(certificate), "tls_key": str(key)}
    open_gateway_door(make_settings(host="0.0.0.0", **named)).close()
    with pytest.raises(PilotageError, match="must both be set"):
        open_gateway_door(make_settings(tls_certificate=str(certificate)))
    with pytest.raises(PilotageError, match=r"gateway.tls_key: .* cannot be read: No such file"):
        open_gateway_door(make_settings(**named | {"tls_key": str(tmp_path / "b")}))
    authority.write_pair(certificate, tmp_path / "other.key", "127.0.0.1")
    with pytest.raises(PilotageError, match="are no certificate and its key: KEY_VALUES_MISMATCH"):
        open_gateway_door(make_settings(**named))
    encrypted = ["openssl", "ec", "-aes256", "-in", str(key), "-passout", "pass:x", "-out"]
    subprocess.run([*encrypted, str(tmp_path / "locked.key")], check=True, capture_output=True)
    with pytest.raises(PilotageError, match="are no certificate and its key: the key has a pass"):
        open_gateway_door(make_settings(**named | {"tls_key": str(tmp_path / "locked.key")}))


def test_half_a_pair_changes_nothing(tmp_path: Path) -> None:
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    authority = PrivateAuthority()
    authority.write_pair(certificate, key, "127.0.0.1")
    opened = Certificate(str(certificate), str(key))
    assert not opened.refresh()
    authority.write_pair(certificate, tmp_path / "new.key", "127.0.0.1")
    assert not opened.refresh()
    (tmp_path / "new.key").replace(key)
    assert opened.refresh()
    assert not opened.refresh()

"""How providers are reached: judged addresses, private certificates, proxies; all of it real."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connect_proxy import ConnectProxy
from faulty_upstream import FaultyUpstream
from made_calls import make_arm
from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import UpstreamEntry
from pilotage.gateway.providers.upstreams import Upstreams
from pilotage.gateway.routing.failures import as_error
from pilotage.gateway.transport.upstream import Limits, Pool, UpstreamFailure
from pilotage.kit.clock import ManualClock
from pilotage.kit.egress import EgressPolicy
from private_ca import PrivateAuthority
from upstream_calls import HEAD, ask, fail, fetch, on_both_loops, raw_server, until

HOST = "models.bank"
AUTHORITY, STRANGER = PrivateAuthority(), PrivateAuthority("somebody else")
LIMITS = Limits(connect_timeout_s=5.0)


class Names:
    def __init__(self, **addresses: Sequence[str]) -> None:
        self.addresses = {HOST: ["127.0.0.1"]} | addresses
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.addresses:
            raise OSError("no such name")
        return self.addresses[host]


@asynccontextmanager
async def pool_to(
    base_url: str,
    *,
    names: Names | None = None,
    allow: str = f"{HOST},127.0.0.1",
    limits: Limits = LIMITS,
    **more: Any,  # noqa: ANN401
) -> AsyncIterator[Pool]:
    """Give the pool that the gateway would use for an upstream."""
    clock = ManualClock()
    egress = EgressPolicy(allow, clock, lookup=names or Names())
    upstreams = Upstreams(limits, egress=egress, clock=clock)
    entry = UpstreamEntry(
        id="ups_1", project_id="p", name="bank", provider="openai", base_url=base_url, **more
    )
    upstreams.apply([entry])
    try:
        yield upstreams.pick(make_arm(upstream_id="ups_1")).pool
    finally:
        upstreams.close()
        await asyncio.sleep(0)


async def answer_of(pool: Pool) -> Any:  # noqa: ANN401
    return json.loads(await fetch(pool, ask(stream=False)))["choices"][0]["message"]["content"]


def trusted(folder: Path) -> str:
    return AUTHORITY.write(folder / "ca.pem")


# Certificates.


@on_both_loops
async def test_the_judged_address_is_called_and_the_host_must_prove_its_name(
    tmp_path: Path,
) -> None:
    names, tls = Names(), AUTHORITY.serve_as(HOST)
    async with FaultyUpstream(tls=tls) as upstream:
        url = f"https://{HOST}:{upstream.port}/v1"
        async with pool_to(url, names=names, ca_file=trusted(tmp_path)) as pool:
            for _ in range(3):
                assert await answer_of(pool)
            assert (pool.opened_total, pool.open, pool.idle) == (1, 1, 1)
    assert tls.asked == [HOST]  # type: ignore[attr-defined]
    assert names.asked == [HOST]


@on_both_loops
@pytest.mark.parametrize("why", ["another host", "another authority", "the system's only"])
async def test_a_certificate_that_proves_nothing_ends_it_before_anything_is_sent(
    why: str, tmp_path: Path
) -> None:
    authority = STRANGER if why == "another authority" else AUTHORITY
    server = authority.serve_as("other.bank" if why == "another host" else HOST)
    ca_file = "" if why == "the system's only" else trusted(tmp_path)
    async with FaultyUpstream(tls=server) as upstream:
        async with pool_to(f"https://{HOST}:{upstream.port}", ca_file=ca_file) as pool:
            _, failure = await fail(pool, ask())
            assert (failure.kind, failure.sent, pool.open) == ("connect", False, 0)
            assert "certificate is not trusted" in as_error(failure).detail
        assert upstream.requests == []


@on_both_loops
async def test_a_file_of_certificates_is_followed_when_it_is_replaced(tmp_path: Path) -> None:
    ca_file = STRANGER.write(tmp_path / "ca.pem")
    async with (
        FaultyUpstream(tls=AUTHORITY.serve_as(HOST)) as upstream,
        pool_to(f"https://{HOST}:{upstream.port}", ca_file=ca_file) as pool,
    ):
        _, failure = await fail(pool, ask())
        assert "not trusted" in str(failure)
        AUTHORITY.write(tmp_path / "next.pem")
        (tmp_path / "next.pem").replace(ca_file)
        assert b"data:" in await fetch(pool, ask())


@pytest.mark.parametrize("content", [None, "", "\n", "no certificate", "\xff"])
async def test_a_file_without_certificates_fails_the_calls(
    content: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    async with pool_to(f"https://{HOST}:1", ca_file=str(path)) as pool:
        _, failure = await fail(pool, ask())
        assert (failure.kind, failure.sent) == ("connect", False)
        assert f"the file {path} holds no certificates" in str(failure)


# Addresses.


@on_both_loops
async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with FaultyUpstream() as upstream:
        names = Names(**{HOST: ["127.0.0.2", "127.0.0.1"]})
        async with pool_to(f"http://{HOST}:{upstream.port}/v1", names=names) as pool:
            assert await answer_of(pool)


@on_both_loops
async def test_an_address_that_nobody_answers_at_is_asked_for_again() -> None:
    names = Names(**{HOST: ["127.0.0.2"]})
    async with (
        FaultyUpstream() as upstream,
        pool_to(f"http://{HOST}:{upstream.port}/v1", names=names) as pool,
    ):
        _, failure = await fail(pool, ask())
        assert (failure.kind, failure.sent) == ("connect", False)
        names.addresses[HOST] = ["127.0.0.1"]
        assert await answer_of(pool)
        assert names.asked == [HOST, HOST]


@on_both_loops
@pytest.mark.parametrize("allow", ["", "*", "other.bank", "10.0.0.0/8", f"{HOST}:1"])
async def test_what_may_not_be_called_is_not(allow: str) -> None:
    async with FaultyUpstream() as upstream:
        async with pool_to(f"http://{HOST}:{upstream.port}/v1", allow=allow) as pool:
            for _ in range(3):
                with pytest.raises(PilotageError) as caught:
                    await pool.post(HEAD, ask())
                assert caught.value.code == "egress_denied"
                assert HOST in caught.value.detail
            assert pool.open == 0
        assert upstream.connections == 0


@on_both_loops
async def test_a_name_without_an_address_is_a_failure_to_connect() -> None:
    async with pool_to("http://nowhere.bank:80", allow="nowhere.bank") as pool:
        _, failure = await fail(pool, ask())
        assert (failure.kind, failure.sent, pool.open) == ("connect", False, 0)


@on_both_loops
async def test_a_redirect_is_not_followed() -> None:
    async with FaultyUpstream() as upstream:
        async with pool_to(f"http://{HOST}:{upstream.port}/v1") as pool:
            exchange = await pool.post(HEAD, ask({"fault": "status", "status": 307}))
            assert exchange.status == 307
            exchange.close()
        assert len(upstream.requests) == 1


@on_both_loops
async def test_cancelling_within_the_handshake_closes_the_socket(tmp_path: Path) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        arrived.set()
        while await reader.read(65536):
            pass
        left.set()

    async with (
        raw_server(answer) as port,
        pool_to(f"https://{HOST}:{port}", ca_file=trusted(tmp_path)) as pool,
    ):
        call = asyncio.ensure_future(pool.post(HEAD, ask()))
        await asyncio.wait_for(arrived.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(left.wait(), 5)
        assert pool.open == 0


# Proxies.


@on_both_loops
@pytest.mark.parametrize("is_tls", [True, False], ids=["tls", "tcp"])
async def test_a_tunnel_carries_calls_and_the_proxy_finds_the_host(
    is_tls: bool, tmp_path: Path
) -> None:
    names = Names()
    tls = AUTHORITY.serve_as(HOST) if is_tls else None
    async with (
        FaultyUpstream(tls=tls) as upstream,
        ConnectProxy(hosts={HOST: "127.0.0.1"}) as proxy,
    ):
        url = f"{'https' if is_tls else 'http'}://{HOST}:{upstream.port}/v1"
        async with pool_to(url, names=names, proxy=proxy.url, ca_file=trusted(tmp_path)) as pool:
            for _ in range(3):
                assert await answer_of(pool)
            assert (pool.opened_total, pool.idle) == (1, 1)
            assert b"[DONE]" in await fetch(pool, ask({"chunks": 200}))
        assert proxy.asked == [f"{HOST}:{upstream.port}"]
        assert b"proxy-authorization" not in proxy.heads[0]
        await until(lambda: proxy.open_connections == 0, "the tunnel is closed")
    assert names.asked == []  # names behind a proxy are not for our name server
    if tls is not None:
        assert tls.asked == [HOST]  # type: ignore[attr-defined]


@on_both_loops
async def test_a_proxy_is_shown_who_we_are_by_a_reference(tmp_path: Path) -> None:
    secret = tmp_path / "proxy"
    async with FaultyUpstream() as upstream, ConnectProxy(user="me", password="p w:1") as proxy:
        url = f"http://127.0.0.1:{upstream.port}/v1"
        secret.write_text(f"http://me:p%20w:1@127.0.0.1:{proxy.port}")
        async with pool_to(url, proxy=f"file:{secret}") as pool:
            assert await answer_of(pool)
        secret.write_text(f"http://me:wrong@127.0.0.1:{proxy.port}")
        async with pool_to(url, proxy=f"file:{secret}") as pool:
            _, failure = await fail(pool, ask())
            assert (failure.kind, failure.sent, pool.open) == ("connect", False, 0)
            assert "the proxy refused with status 407" in as_error(failure).detail
        for content in ("ftp://x", ""):
            secret.write_text(content)
            async with pool_to(url, proxy=f"file:{secret}") as pool:
                with pytest.raises(PilotageError) as caught:
                    await pool.post(HEAD, ask())
                assert caught.value.code == "upstream_auth"
                assert f"file:{secret}" in caught.value.detail or str(secret) in caught.value.detail
        assert len(upstream.requests) == 1


@on_both_loops
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "refused with status 502"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refused with status 403"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://other/\r\n\r\n", "refused with status 302"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "speaks no HTTP"),
        (b"x" * 20_000, "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n", "sent more than its answer"),
    ],
    ids=["502", "403", "302", "ssh", "endless", "more"],
)
async def test_a_proxy_that_opens_no_tunnel_is_a_failure_to_connect(
    answer: bytes, why: str
) -> None:
    async with ConnectProxy(answer=answer) as proxy:
        async with pool_to("http://127.0.0.1:9/v1", proxy=proxy.url) as pool:
            _, failure = await fail(pool, ask())
            assert (failure.kind, failure.sent, failure.got_headers) == ("connect", False, False)
            assert why in str(failure)
            assert pool.open == 0
        await until(lambda: proxy.open_connections == 0, "the connection is closed")


@on_both_loops
async def test_a_proxy_that_is_silent_or_gone_is_noticed() -> None:
    short = Limits(connect_timeout_s=0.05)
    async with ConnectProxy(hangs=True) as proxy:
        async with pool_to("http://127.0.0.1:9", proxy=proxy.url, limits=short) as pool:
            _, failure = await fail(pool, ask())
            assert (failure.kind, failure.sent, pool.open) == ("connect_timeout", False, 0)
        await until(lambda: proxy.open_connections == 0, "the connection is closed")
    async with pool_to("http://127.0.0.1:9", proxy=proxy.url) as pool:
        _, failure = await fail(pool, ask())
        assert (failure.kind, failure.sent) == ("connect", False)


@on_both_loops
async def test_cancelling_while_a_proxy_is_waited_for_closes_the_socket() -> None:
    async with (
        ConnectProxy(hangs=True) as proxy,
        pool_to("http://127.0.0.1:9", proxy=proxy.url) as pool,
    ):
        call = asyncio.ensure_future(pool.post(HEAD, ask()))
        await until(lambda: proxy.asked != [], "the proxy is asked")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert pool.open == 0
        await until(lambda: proxy.open_connections == 0, "the connection is closed")


@on_both_loops
async def test_a_certificate_is_checked_through_a_tunnel_too(tmp_path: Path) -> None:
    async with (
        FaultyUpstream(tls=STRANGER.serve_as(HOST)) as upstream,
        ConnectProxy(hosts={HOST: "127.0.0.1"}) as proxy,
    ):
        url = f"https://{HOST}:{upstream.port}"
        async with pool_to(url, proxy=proxy.url, ca_file=trusted(tmp_path)) as pool:
            _, failure = await fail(pool, ask())
            assert (failure.kind, failure.sent, pool.open) == ("connect", False, 0)
            assert "not trusted" in str(failure)
        await until(lambda: proxy.open_connections == 0, "the tunnel is closed")
        assert upstream.requests == []


@on_both_loops
@pytest.mark.parametrize(
    ("allow", "base_url"),
    [
        (HOST, f"https://{HOST}"),  # the proxy is not named
        ("127.0.0.1", f"https://{HOST}"),  # the host is not named
        ("127.0.0.1,*", "https://169.254.169.254"),
        ("127.0.0.1,*", "http://metadata.google.internal/v1"),
    ],
)
async def test_proxy_and_host_are_both_judged(allow: str, base_url: str) -> None:
    async with ConnectProxy() as proxy:
        async with pool_to(base_url, proxy=proxy.url, allow=allow) as pool:
            with pytest.raises(PilotageError) as caught:
                await pool.post(HEAD, ask())
            assert caught.value.code == "egress_denied"
        assert proxy.asked == []


@on_both_loops
async def test_a_cut_within_a_tunnel_says_how_far_the_call_came() -> None:
    async with (
        FaultyUpstream() as upstream,
        ConnectProxy() as proxy,
        pool_to(f"http://127.0.0.1:{upstream.port}/v1", proxy=proxy.url) as pool,
    ):
        _, failure = await fail(pool, ask({"fault": "cut_mid_stream"}))
        assert (failure.kind, failure.sent, failure.got_headers) == ("cut", True, True)
        _, failure = await fail(pool, ask({"fault": "cut_before_headers"}))
        assert isinstance(failure, UpstreamFailure)
        assert (failure.kind, failure.sent) == ("reset_before_headers", True)
        assert pool.open == 0

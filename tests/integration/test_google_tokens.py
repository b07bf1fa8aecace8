"""Google's tokens by google-auth itself, from a token service that listens on loopback."""

import asyncio
import base64
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connect_proxy import ConnectProxy
from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import UpstreamEntry
from pilotage.gateway.providers.upstreams import find_proxy
from pilotage.gateway.providers.vertex import open_tokens
from pilotage.kit.clock import ManualClock, SystemClock
from pilotage.kit.config import child_environment
from pilotage.kit.gcp.credentials import GoogleTokens
from pilotage.kit.gcp.tokens import (
    FAILED_S,
    FORCE_S,
    LIMIT_S,
    RETRY_S,
    STALE_US,
    TokenProvider,
    TokenState,
)
from pilotage.kit.gcp.transport import TokenTransport
from private_ca import PrivateAuthority
from token_server import MAIL, TokenServer, write_service_account
from upstream_calls import until


class Case:
    """A token service, and a provider of tokens from it whose clock moves when told."""

    def __init__(self, server: TokenServer, path: Path, limit_s: float = LIMIT_S) -> None:
        self.server = server
        self.clock = ManualClock(time.time_ns() // 1000)  # google-auth looks at the real one
        transport = TokenTransport(limit_s=limit_s)
        self.tokens = TokenProvider(
            GoogleTokens(str(path), transport), f"file:{path}", self.clock, limit_s=limit_s
        )

    async def until_refreshed(self, given: int) -> None:
        await until(
            lambda: self.server.given == given and self.tokens._flight is None,
            f"{given} tokens given",
        )


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer() as running:
        yield running


@pytest.fixture
def case(server: TokenServer, tmp_path: Path) -> Iterator[Case]:
    with serving(server, tmp_path) as made:
        yield made


@contextmanager
def serving(server: TokenServer, folder: Path, limit_s: float = LIMIT_S) -> Iterator[Case]:
    made = Case(server, write_service_account(folder, f"{server.url}/token"), limit_s)
    try:
        yield made
    finally:
        made.tokens.close()


def google_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("google-token")]


async def test_a_key_file_is_signed_with_and_its_token_is_served_while_fresh(case: Case) -> None:
    assert case.tokens.state == TokenState.INVALID
    assert [await case.tokens.get() for _ in range(3)] == ["token-1"] * 3
    assert case.tokens.state.value == "fresh"
    (request,) = case.server.requests
    assert request["form"]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = request["form"]["assertion"].split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert decoded["iss"] == MAIL
    assert decoded["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert request["path"] == "/token"


async def test_two_hundred_who_ask_at_once_cause_one_refresh(case: Case) -> None:
    case.server.gate.clear()
    asking = [asyncio.ensure_future(case.tokens.get()) for _ in range(200)]
    await until(lambda: len(case.server.requests) == 1, "the service is asked")
    asking[0].cancel()  # the one that began it
    case.server.gate.set()
    assert await asyncio.gather(*asking[1:]) == ["token-1"] * 199
    assert len(case.server.requests) == 1


async def test_a_stale_token_is_served_while_one_refresh_runs(case: Case) -> None:
    await case.tokens.get()
    case.server.gate.clear()
    case.clock.advance(3600 - STALE_US / 1e6 + 1)
    assert case.tokens.state is TokenState.STALE
    assert await asyncio.gather(*[case.tokens.get() for _ in range(200)]) == ["token-1"] * 200
    await until(lambda: len(case.server.requests) == 2, "the service is asked again")
    assert await case.tokens.get() == "token-1"  # nobody waits for it
    case.server.gate.set()
    await case.until_refreshed(2)
    assert await case.tokens.get() == "token-2"
    assert len(case.server.requests) == 2


async def test_a_refresh_that_fails_leaves_a_stale_token_in_service(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    await case.tokens.get()
    case.clock.advance(3600 - STALE_US / 1e6 + 1)
    case.server.status = 400
    assert await case.tokens.get() == "token-1"
    await until(lambda: "invalid_grant" in caplog.text, "the failure is in the log")
    for _ in range(50):
        assert await case.tokens.get() == "token-1"
    assert len(case.server.requests) == 2  # and it is not tried again at once
    case.server.status = 200
    case.clock.advance(RETRY_S)
    assert await case.tokens.get() == "token-1"
    await case.until_refreshed(2)
    assert await case.tokens.get() == "token-2"
    assert "token-" not in caplog.text


async def test_an_invalid_token_is_waited_for(case: Case) -> None:
    await case.tokens.get()
    case.clock.advance(3600)
    assert case.tokens.state is TokenState.INVALID
    assert await asyncio.gather(*[case.tokens.get() for _ in range(20)]) == ["token-2"] * 20


async def test_a_refusal_is_one_for_all_and_a_while(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    case.server.status = 401
    answers = await asyncio.gather(*[case.tokens.get() for _ in range(20)], return_exceptions=True)
    assert {getattr(answer, "code", "") for answer in answers} == {"upstream_auth"}
    assert "service-account.json" in str(answers[0])
    with pytest.raises(PilotageError):
        await case.tokens.get()
    assert len(case.server.requests) == 1
    case.server.status = 200
    case.clock.advance(FAILED_S)
    assert await case.tokens.get() == "token-1"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_fifty_refused_tokens_cause_one_refresh(case: Case) -> None:
    await case.tokens.get()
    case.clock.advance(FORCE_S)
    case.server.gate.clear()
    renewing = [asyncio.ensure_future(case.tokens.renew()) for _ in range(50)]
    await until(lambda: len(case.server.requests) == 2, "the service is asked again")
    case.server.gate.set()
    assert await asyncio.gather(*renewing) == ["token-2"] * 50
    assert await case.tokens.renew() == "token-2"  # a late one gets the new token
    assert len(case.server.requests) == 2
    case.clock.advance(FORCE_S)
    assert await case.tokens.renew() == "token-3"


async def test_a_refused_token_that_cannot_be_replaced_stays_refused(case: Case) -> None:
    await case.tokens.get()
    case.clock.advance(FORCE_S)
    case.server.status = 400
    assert await case.tokens.renew() is None
    assert await case.tokens.get() == "token-1"


async def test_the_same_token_again_is_no_other(case: Case) -> None:
    case.server.body = b'{"access_token": "same", "expires_in": 3600}'
    await case.tokens.get()
    case.clock.advance(FORCE_S)
    assert await case.tokens.renew() is None
    assert case.server.given == 2


@pytest.mark.parametrize("body", [b"", b"[]", b'{"expires_in": 3600}', b"x" * 2_000_000])
async def test_a_reply_that_is_no_token_is_none(case: Case, body: bytes) -> None:
    case.server.body = body or b" "
    with pytest.raises(PilotageError) as caught:
        await case.tokens.get()
    assert caught.value.code == "upstream_auth"


async def test_a_service_that_is_silent_is_waited_for_so_long(
    server: TokenServer, tmp_path: Path
) -> None:
    server.gate.clear()
    with serving(server, tmp_path, limit_s=0.1) as case:
        started = time.monotonic()
        with pytest.raises(PilotageError) as caught:
            await case.tokens.get()
        assert caught.value.code == "upstream_auth"
        assert time.monotonic() - started < 3
        server.gate.set()
        case.clock.advance(FAILED_S)
        assert (await case.tokens.get()).startswith("token-")


async def test_closing_ends_the_thread_even_while_it_waits(case: Case) -> None:
    case.server.gate.clear()
    call = asyncio.ensure_future(case.tokens.get())
    await until(lambda: len(case.server.requests) == 1, "the service is asked")
    await until(lambda: len(google_threads()) == 1, "only this thread is there")
    case.tokens.close()
    with pytest.raises(PilotageError):
        await call
    await until(lambda: google_threads() == [], "the thread has ended")
    with pytest.raises(PilotageError):
        await case.tokens.get()
    assert await case.tokens.renew() is None


async def test_a_key_file_is_followed_when_it_is_replaced(case: Case, tmp_path: Path) -> None:
    await case.tokens.get()
    path = tmp_path / "service-account.json"
    path.write_text("{}")
    case.clock.advance(FORCE_S)
    assert await case.tokens.renew() is None
    write_service_account(tmp_path, f"{case.server.url}/other")
    case.clock.advance(FAILED_S)
    assert await case.tokens.renew() == "token-2"
    assert case.server.requests[-1]["path"] == "/other"


@pytest.mark.parametrize("content", [None, "", "{}", '{"type": "service_account"}', "\xff"])
async def test_a_file_that_is_no_credential_is_said(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    tokens = TokenProvider(
        GoogleTokens(str(path), TokenTransport(limit_s=1.0)), f"file:{path}", ManualClock()
    )
    with pytest.raises(PilotageError) as caught:
        await tokens.get()
    assert (caught.value.code, str(path) in caught.value.detail) == ("upstream_auth", True)
    tokens.close()


async def test_default_credentials_are_found_where_google_says(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_service_account(tmp_path, f"{server.url}/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    tokens = TokenProvider(GoogleTokens("", TokenTransport(limit_s=5.0)), "adc", ManualClock())
    assert await tokens.get() == "token-1"
    tokens.close()


async def test_impersonation_goes_through_the_upstreams_proxy_and_trusts_its_authority(
    tmp_path: Path,
) -> None:
    authority, host = PrivateAuthority(), "iamcredentials.googleapis.com"
    with TokenServer() as plain, TokenServer(tls=authority.serve_as(host)) as secure:
        where = f"/v1/projects/-/serviceAccounts/{MAIL}:generateAccessToken"
        source = json.loads(write_service_account(tmp_path, f"{plain.url}/token").read_text())
        path = tmp_path / "impersonated.json"
        path.write_text(
            json.dumps(
                {
                    "type": "impersonated_service_account",
                    "service_account_impersonation_url": f"https://{host}{where}",
                    "source_credentials": source,
                }
            )
        )
        hosts = {host: f"127.0.0.1:{secure.port}"}
        async with ConnectProxy(hosts=hosts, user="me", password="pw") as proxy:
            (tmp_path / "proxy").write_text(f"http://me:pw@127.0.0.1:{proxy.port}")
            entry = UpstreamEntry(
                id="ups_1",
                project_id="p",
                name="vertex",
                provider="vertex",
                base_url="https://models.bank",
                secret=f"file:{path}",
                proxy=f"file:{tmp_path / 'proxy'}",
                ca_file=authority.write(tmp_path / "ca.pem"),
            )
            tokens = open_tokens(entry, lambda: find_proxy(entry.proxy), SystemClock())
            assert await tokens.get() == "as-token-1"
            assert proxy.asked == [f"{host}:443"]
            tokens.close()
        assert [request["path"] for request in plain.requests] == ["/token"]
        assert [request["path"] for request in secure.requests] == [where]
        assert secure.requests[0]["headers"]["authorization"] == "Bearer token-1"


PROGRAM = """
import asyncio, sys
from pilotage.kit.clock import SystemClock
from pilotage.kit.gcp.credentials import GoogleTokens
from pilotage.kit.gcp.tokens import TokenProvider
from pilotage.kit.gcp.transport import TokenTransport
assert not any(n.split(".")[0] == "google" and m for n, m in sys.modules.items())
async def main():
    tokens = TokenProvider(GoogleTokens("", TokenTransport(limit_s=10.0)), "adc", SystemClock())
    print(await tokens.get())
    tokens.close()
asyncio.run(main())
"""


def run_program(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=child_environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_metadata_server_gives_tokens_without_any_file(
    server: TokenServer, tmp_path: Path
) -> None:
    where = f"127.0.0.1:{server.port}"
    said = run_program(
        PROGRAM,
        HOME=str(tmp_path),
        CLOUDSDK_CONFIG=str(tmp_path),
        GOOGLE_APPLICATION_CREDENTIALS="",
        GCE_METADATA_HOST=where,
        GCE_METADATA_IP=where,
    )
    assert said.splitlines()[-1:] == [f"token-{server.given}"], said
    assert all(r["headers"]["metadata-flavor"] == "Google" for r in server.requests)


def test_without_the_extra_the_error_names_it() -> None:
    said = run_program("import sys; sys.modules['google.auth'] = None\n" + PROGRAM)
    assert 'pip install "pilotage[vertex]"' in said

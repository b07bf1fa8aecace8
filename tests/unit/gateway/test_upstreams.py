"""Providers' APIs as targets: their heads, their secrets, and what a new Snapshot does to them."""

from pathlib import Path
from typing import Any

import pytest

from made_calls import make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry, UpstreamEntry
from pilotage.gateway.providers.credentials import RECENT_S, REREAD_S
from pilotage.gateway.providers.table import TargetTable
from pilotage.gateway.providers.target import Target
from pilotage.gateway.providers.upstreams import Upstream, Upstreams, find_proxy, parse_base_url
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.targets import ReplicaTarget, Targets
from pilotage.gateway.transport.upstream import Limits
from pilotage.kit.clock import ManualClock
from pilotage.kit.egress import EgressPolicy

CHAT = b"/chat/completions"


class Tokens:
    """Tokens that change when told: the twin of Google's in here."""

    def __init__(self) -> None:
        self.token = "ya29.first"
        self.is_closed = False

    async def get(self) -> str:
        return self.token

    async def renew(self) -> str | None:
        self.token = "ya29.second"
        return self.token

    def close(self) -> None:
        self.is_closed = True


class Case:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.tokens = Tokens()
        self.upstreams = Upstreams(
            Limits(max_connections=7),
            egress=EgressPolicy("", self.clock),
            clock=self.clock,
            open_tokens=lambda entry: self.tokens,
        )

    def open(self, **more: Any) -> Upstream:  # noqa: ANN401
        self.upstreams.apply([make_entry(**more)])
        return self.pick()

    def pick(self, upstream_id: str = "ups_1") -> Upstream:
        return self.upstreams.pick(make_arm(upstream_id=upstream_id))


@pytest.fixture
async def case() -> Case:
    return Case()


def make_entry(**more: Any) -> UpstreamEntry:  # noqa: ANN401
    values: dict[str, Any] = {
        "id": "ups_1",
        "project_id": "prj_1",
        "name": "open",
        "provider": "openai",
        "base_url": "https://api.openai.com/v1",
        "secret": "env:PILOT_TEST_KEY",
    }
    return UpstreamEntry(**values | more)


async def head_of(upstream: Upstream, path: bytes = CHAT, trace: str = "") -> list[str]:
    call = make_call()
    call.trace_parent = trace
    head = (await upstream.make_head(path, call)).decode()
    assert head.endswith("\r\n")
    assert "\r\n\r\n" not in head
    return head.split("\r\n")[:-1]


# Heads.


async def test_an_openai_head(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOT_TEST_KEY", "sk-1")
    upstream = case.open(max_connections=3)
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: api.openai.com",
        "content-type: application/json",
        "accept-encoding: identity",
        "user-agent: pilotage",
        "authorization: Bearer sk-1",
    ]
    assert await head_of(upstream) == lines
    assert await head_of(upstream, trace="00-1-2-01") == [*lines, "traceparent: 00-1-2-01"]
    assert await head_of(upstream) == lines
    assert (upstream.wire, upstream.pool.limits.max_connections) == ("openai", 3)


async def test_an_anthropic_head(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOT_TEST_KEY", "sk-ant-1")
    upstream = case.open(provider="anthropic", base_url="https://api.anthropic.com/v1/")
    assert await head_of(upstream, b"/messages") == [
        "POST /v1/messages HTTP/1.1",
        "host: api.anthropic.com",
        "content-type: application/json",
        "accept-encoding: identity",
        "user-agent: pilotage",
        "anthropic-version: 2023-06-01",
        "x-api-key: sk-ant-1",
    ]
    assert upstream.wire == "anthropic"


async def test_a_vertex_head_carries_the_token_of_now(case: Case) -> None:
    base = "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints"
    upstream = case.open(provider="vertex", base_url=f"{base}/openapi", secret="")
    head = await head_of(upstream)
    assert head[0] == (
        "POST /v1/projects/p/locations/l/endpoints/openapi/chat/completions HTTP/1.1"
    )
    assert head[1] == "host: europe-west4-aiplatform.googleapis.com"
    assert head[-1] == "authorization: Bearer ya29.first"
    renewed = await upstream.renew_head(CHAT, make_call())
    assert renewed is not None
    assert renewed.endswith(b"authorization: Bearer ya29.second\r\n")
    assert (await head_of(upstream))[-1] == "authorization: Bearer ya29.second"
    assert upstream.wire == "openai"


async def test_a_provider_that_asks_for_nothing_is_shown_nothing(case: Case) -> None:
    upstream = case.open(base_url="http://10.0.0.1:8000", secret="")
    head = await head_of(upstream)
    assert head[:2] == ["POST /chat/completions HTTP/1.1", "host: 10.0.0.1:8000"]
    assert not any(line.startswith("authorization") for line in head)
    assert await upstream.renew_head(CHAT, make_call()) is None


@pytest.mark.parametrize(
    ("text", "host", "port", "is_tls", "authority", "path"),
    [
        ("https://a.com", "a.com", 443, True, "a.com", ""),
        ("https://A.com:8443/v1/", "a.com", 8443, True, "a.com:8443", "/v1"),
        ("http://a.com", "a.com", 80, False, "a.com", ""),
        ("http://[::1]:9000/x/y", "::1", 9000, False, "[::1]:9000", "/x/y"),
    ],
)
def test_base_urls_are_read(
    text: str, host: str, port: int, is_tls: bool, authority: str, path: str
) -> None:
    assert parse_base_url(text) == (host, port, is_tls, authority, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.com",
        "ftp://a.com",
        "https://",
        "https://a.com:x",
        "https://a.com?x=1",
        "https://a.com#x",
        "https://user:SECRET@a.com",
        "https://a.com/\r\nx: y",
        "https://a.com/a b",
        "https://\u00e4.com",
    ],
)
async def test_an_upstream_that_cannot_be_used_fails_its_own_calls_only(
    case: Case, text: str
) -> None:
    case.upstreams.apply([make_entry(base_url=text), make_entry(id="ups_2", secret="")])
    with pytest.raises(PilotageError) as caught:
        case.pick()
    assert caught.value.code == "upstream_unreachable"
    assert "'open' cannot be used: its base URL" in caught.value.detail
    assert "SECRET" not in caught.value.detail
    assert case.pick("ups_2").entry.id == "ups_2"


@pytest.mark.parametrize("proxy", ["10.0.0.1:3128", "https://p:1", "http://p", "http://p:1/x"])
async def test_a_proxy_that_is_none_is_said(case: Case, proxy: str) -> None:
    case.upstreams.apply([make_entry(proxy=proxy)])
    with pytest.raises(PilotageError, match="a proxy is given as http://HOST:PORT"):
        case.pick()


async def test_a_vertex_upstream_takes_a_credentials_file_or_none(tmp_path: Path) -> None:
    clock = ManualClock()
    upstreams = Upstreams(Limits(), egress=EgressPolicy("", clock), clock=clock)
    upstreams.apply(
        [
            make_entry(provider="vertex", secret="env:TOKEN"),
            make_entry(id="ups_2", provider="vertex", secret=f"file:{tmp_path}/no.json"),
        ]
    )
    with pytest.raises(PilotageError, match="file:PATH of a credentials file"):
        upstreams.pick(make_arm(upstream_id="ups_1"))
    upstreams.pick(make_arm(upstream_id="ups_2"))
    upstreams.close()


# Secrets.


async def test_a_secret_is_followed_within_seconds(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one\n")
    upstream = case.open(secret=f"file:{path}")
    assert (await head_of(upstream))[-1] == "authorization: Bearer one"
    path.write_text("two\n")
    assert (await head_of(upstream))[-1] == "authorization: Bearer one"
    case.clock.advance(REREAD_S)
    assert (await head_of(upstream))[-1] == "authorization: Bearer two"


async def test_a_refused_secret_is_looked_up_at_once(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    upstream, call = case.open(secret=f"file:{path}"), make_call()
    await head_of(upstream)
    assert await upstream.renew_head(CHAT, call) is None  # it is the same
    path.write_text("two")
    for _ in range(3):  # also for those who were refused while another one looked it up
        renewed = await upstream.renew_head(CHAT, call)
        assert renewed is not None
        assert renewed.endswith(b"Bearer two\r\n")
    case.clock.advance(RECENT_S + 1)
    assert await upstream.renew_head(CHAT, call) is None
    path.unlink()
    assert await upstream.renew_head(CHAT, call) is None


@pytest.mark.parametrize(
    ("secret", "content", "says"),
    [
        ("env:PILOT_TEST_NONE", None, "PILOT_TEST_NONE"),
        ("file:PATH", None, "PATH"),
        ("file:PATH", "", "PATH"),
        ("file:PATH", "MARKER\r\nx-evil: 1", "PATH"),
        ("file:PATH", "MARKER\u00fc", "PATH"),
        ("sk-MARKER", None, "by reference"),
    ],
)
async def test_without_its_secret_an_upstream_fails_and_names_the_reference(
    case: Case, tmp_path: Path, secret: str, content: str | None, says: str
) -> None:
    path = str(tmp_path / "key")
    if content is not None:
        Path(path).write_text(content)
    upstream = case.open(secret=secret.replace("PATH", path))
    for _ in range(2):
        with pytest.raises(PilotageError) as caught:
            await head_of(upstream)
        assert caught.value.code == "upstream_auth"
        assert says.replace("PATH", path) in caught.value.detail
        assert ("Start the gateway again" in str(caught.value)) == secret.startswith("env:")
        assert "MARKER" not in str(caught.value)
    Path(path).write_text("fine")
    if secret.startswith("file:"):
        case.clock.advance(REREAD_S)
        assert (await head_of(upstream))[-1] == "authorization: Bearer fine"


def test_a_proxy_by_reference_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "proxy"
    path.write_text("http://me:MARKER@10.0.0.1")
    with pytest.raises(PilotageError) as caught:
        find_proxy(f"file:{path}")
    assert (caught.value.code, "MARKER" in str(caught.value)) == ("upstream_auth", False)
    path.write_text("http://me:s%3A@10.0.0.1:3128/")
    assert find_proxy(f"file:{path}") == ("10.0.0.1", 3128, b"Basic bWU6czo=")
    assert find_proxy("") is None


# Snapshots.


async def test_what_did_not_change_keeps_its_connections(case: Case) -> None:
    first, second = make_entry(secret=""), make_entry(id="ups_2", secret="")
    case.upstreams.apply([first, second])
    kept, replaced = case.pick(), case.pick("ups_2")
    case.upstreams.apply([make_entry(secret=""), make_entry(id="ups_2", secret="", location="eu")])
    assert case.pick() is kept
    assert case.pick("ups_2") is not replaced
    assert (replaced.is_retired, kept.is_retired) == (True, False)


async def test_one_that_is_gone_closes_when_its_last_call_has_ended(case: Case) -> None:
    upstream = case.open(provider="vertex", secret="")
    upstream.enter()
    upstream.enter()
    case.upstreams.apply([])
    with pytest.raises(PilotageError, match="not there"):
        case.pick()
    upstream.leave()
    assert not case.tokens.is_closed
    upstream.leave()
    assert case.tokens.is_closed


async def test_closing_closes_all(case: Case) -> None:
    case.open(provider="vertex", secret="")
    case.upstreams.close()
    assert case.tokens.is_closed
    with pytest.raises(PilotageError):
        case.pick()


async def test_an_error_reply_is_judged_at_the_time_of_now(case: Case) -> None:
    upstream = case.open(secret="")
    date = b"Tue, 14 Nov 2023 22:13:50 GMT"  # half a minute after the clock's start
    error = upstream.translate_error(429, [(b"retry-after", date)], b"")
    assert (error.code, error.retry_after_s) == ("upstream_overloaded", 30.0)


# The table of all.


def pick(table: TargetTable, arm: ArmEntry) -> Target:
    target = table.pick(arm, make_call())
    assert target is not None
    return target


async def test_an_arm_is_answered_by_its_upstream_or_by_a_replica() -> None:
    clock = ManualClock()
    table = TargetTable(Limits(), Breakers(clock), egress=EgressPolicy("", clock), clock=clock)
    with pytest.raises(PilotageError) as caught:
        table.pick(make_arm(), make_call())
    assert caught.value.code == "no_replica"
    replica = ReplicaTarget(id="r", deployment_id="dep_a", host="127.0.0.1", port=1, key="k")
    table.apply(Targets(replicas=[replica]))
    table.sync(make_view(upstreams=[make_entry(secret="")]))
    head = await pick(table, make_arm()).make_head(CHAT, make_call())
    assert b"host: 127.0.0.1:1\r\n" in head
    head = await pick(table, make_arm(upstream_id="ups_1")).make_head(CHAT, make_call())
    assert b"host: api.openai.com\r\n" in head
    table.close()
    for arm in (make_arm(), make_arm(upstream_id="ups_1")):
        with pytest.raises(PilotageError):
            pick(table, arm)

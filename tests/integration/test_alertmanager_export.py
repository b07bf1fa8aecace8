"""The configuration for Alertmanager: it takes it, and it routes, silences and tells as we do."""

import asyncio
import random
import shutil
import socket
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway_harness import until
from hook_server import HookServer
from notified import T0, make_alert, make_inhibition, make_route
from pilotage.kit.clock import SystemClock, rfc3339
from pilotage.monitoring.alerts.types import AlertChange, Severity
from pilotage.monitoring.notify.alertmanager import make_config
from pilotage.monitoring.notify.rules import World, find_muted, fits, list_labels
from pilotage.monitoring.notify.types import (
    Channel,
    ChannelKind,
    ChannelSpec,
    Configured,
    Encryption,
    NoticeRoute,
    RouteKind,
)

AMTOOL = shutil.which("amtool")
ALERTMANAGER = shutil.which("prometheus-alertmanager")
needs_alertmanager = pytest.mark.skipif(
    AMTOOL is None or ALERTMANAGER is None, reason="needs Debian's prometheus-alertmanager"
)


def make_channel(name: str, kind: ChannelKind, **spec: Any) -> Channel:  # noqa: ANN401 - any field
    return Configured(
        id=f"chn_{name}",
        rev=1,
        project_id="prj_1",
        name=name,
        created_at_us=T0,
        spec=ChannelSpec(kind=kind, **spec),
    )


CHANNELS = [
    make_channel(
        "hook",
        ChannelKind.WEBHOOK,
        url="https://a.example/x",
        secret="env:PILOTAGE_NOTICE_A",
        ca_file="/ca.pem",
    ),
    make_channel(
        "hidden", ChannelKind.WEBHOOK, url="env:PILOTAGE_NOTICE_URL", secret="env:PILOTAGE_NOTICE_A"
    ),
    make_channel("team", ChannelKind.SLACK, url="env:PILOTAGE_NOTICE_SLACK"),
    make_channel(
        "pager", ChannelKind.PAGERDUTY, url="https://p.example/v2", secret="file:/run/pager"
    ),
    make_channel(
        "eu",
        ChannelKind.PAGERDUTY,
        url="env:PILOTAGE_NOTICE_URL",
        secret="env:PILOTAGE_NOTICE_PAGER",
    ),
    make_channel(
        "desk",
        ChannelKind.EMAIL,
        url="smtp://mail.example",
        encryption=Encryption.STARTTLS,
        sender="pilotage@example.org",
        to=("ann@example.org", "ben@example.org"),
        username="ann",
        secret="env:PILOTAGE_NOTICE_MAIL",
        ca_file="/ca.pem",
    ),
    make_channel(
        "relay",
        ChannelKind.EMAIL,
        url="smtp://[::1]:25",
        encryption=Encryption.NONE,
        sender="pilotage@example.org",
        to=("ann@example.org",),
        tells_end=False,
    ),
    make_channel("log", ChannelKind.LOG),
]


def test_what_is_exported_and_what_has_to_be_done() -> None:
    route = make_route(
        "page",
        kind=RouteKind.PAGE,
        match={"rule": "a|b*", "team": 'r"\\k'},
        channels=("hook", "hidden", "team", "pager", "eu", "desk", "relay", "log", "gone"),
        group_by=("rule", "alias"),
        settle_us=0,
    )
    down = make_inhibition({"rule": "down"}, {"severity": "warning|info"}, "alias", "rule")

    config, notes = make_config(
        "mine", CHANNELS, [route, make_route("each", group_by=("*",))], [down]
    )

    first, second = config["route"]["routes"]
    assert first == {
        "receiver": "route/page",
        "continue": True,
        "group_by": ["alertname", "alias"],
        "group_wait": "0s",
        "group_interval": "1m",
        "repeat_interval": "10m",
        "matchers": ['project="mine"', 'alertname=~"a|b.*"', 'team="r\\"\\\\k"'],
    }
    assert second["group_by"] == ["..."]
    assert second["matchers"] == ['project="mine"']
    log, receiver, _ = config["receivers"]
    assert log == {"name": "log"}
    assert receiver["webhook_configs"][0] == {
        "send_resolved": True,
        "url": "https://a.example/x",
        "http_config": {"tls_config": {"ca_file": "/ca.pem"}},
    }
    assert receiver["slack_configs"][0]["api_url_file"] == "/etc/alertmanager/secrets/team"
    assert [item["routing_key_file"] for item in receiver["pagerduty_configs"]] == [
        "/run/pager",
        "/etc/alertmanager/secrets/eu",
    ]
    desk, relay = receiver["email_configs"]
    assert (desk["smarthost"], desk["require_tls"]) == ("mail.example:587", True)
    assert (desk["tls_config"], desk["to"]) == (
        {"ca_file": "/ca.pem"},
        "ann@example.org, ben@example.org",
    )
    assert (relay["smarthost"], relay["send_resolved"]) == ("[::1]:25", False)
    assert config["inhibit_rules"] == [
        {
            "source_matchers": ['project="mine"', 'alertname="down"'],
            "target_matchers": ['project="mine"', 'severity=~"warning|info"'],
            "equal": ["alias", "alertname"],
        }
    ]
    assert notes == [
        "hook: Alertmanager does not sign what it posts.",
        "hidden: Alertmanager does not sign what it posts.",
        "hidden: write its address, which is a secret here, in place of its url.",
        "team: put what env:PILOTAGE_NOTICE_SLACK holds into /etc/alertmanager/secrets/team.",
        "eu: put what env:PILOTAGE_NOTICE_PAGER holds into /etc/alertmanager/secrets/eu.",
        "desk: put what env:PILOTAGE_NOTICE_MAIL holds into /etc/alertmanager/secrets/desk.",
        "log: Alertmanager writes no alerts to its log.",
    ]


@pytest.mark.parametrize(
    ("encryption", "port", "is_required", "is_noted"),
    [
        (Encryption.STARTTLS, 587, True, False),
        (Encryption.TLS, 465, False, False),
        (Encryption.TLS, 2465, True, True),
        (Encryption.NONE, 25, False, False),
    ],
)
def test_no_mail_goes_in_the_clear_there_that_is_encrypted_here(
    encryption: Encryption, port: int, *, is_required: bool, is_noted: bool
) -> None:
    desk = make_channel(
        "desk",
        ChannelKind.EMAIL,
        url=f"smtp://mail.example:{port}",
        encryption=encryption,
        sender="pilotage@example.org",
        to=("ann@example.org",),
    )
    config, notes = make_config("mine", [desk], [make_route(channels=("desk",))], [])
    assert config["receivers"][1]["email_configs"][0]["require_tls"] == is_required
    assert bool(notes) == is_noted


@needs_alertmanager
@pytest.mark.slow
async def test_alertmanager_takes_every_kind_of_channel(tmp_path: Path) -> None:
    route = make_route("page", channels=tuple(item.name for item in CHANNELS))
    config, _ = make_config("mine", CHANNELS, [route], [])
    path = write(tmp_path, config)
    code, said = await amtool("check-config", str(path))
    assert code == 0, said
    assert "SUCCESS" in said


# routed alike

WORDS = ("chat", "chat-eu", "small", "", "a|b", "x.y", "größer", 'q"\\', "*", "(", "[a]", "a b")
PATTERNS = (*WORDS, "chat*", "*eu", "c*t|small", "*", "|x*", "x.*", "*(*")


def draw_alert(dice: random.Random, number: int) -> AlertChange:
    alias, tenant = dice.choice(WORDS), dice.choice(WORDS)
    return replace(
        make_alert(f"alt_{number}"),
        rule=dice.choice([word for word in WORDS if word]),
        team=dice.choice(WORDS),
        severity=dice.choice(list(Severity)),
        labels={"alias": alias, "tenant": tenant},
    )


@needs_alertmanager
@pytest.mark.slow
async def test_alertmanager_routes_what_we_route(tmp_path: Path) -> None:
    dice = random.Random(31)
    compared = taken = 0
    for number in range(15):
        routes = [make_route(f"r{n}", match=draw_match(dice)) for n in range(6)]
        config, _ = make_config("mine", [], routes, [])
        path = write(tmp_path, config)
        for _ in range(8):
            alert = draw_alert(dice, number)
            labels = list_labels(alert) | {"project": "mine"}
            ours = [f"route/{item.name}" for item in routes if fits(item.spec.match, labels)]
            theirs = await route_by_amtool(path, labels)
            assert theirs == (ours or ["log"]), (labels, [item.spec.match for item in routes])
            compared, taken = compared + 1, taken + bool(ours)
        assert await route_by_amtool(path, labels | {"project": "other"}) == ["log"]
    assert (compared, 20 < taken < 100) == (120, True)


def draw_match(dice: random.Random) -> dict[str, str]:
    names = dice.sample(["rule", "team", "severity", "alias", "tenant"], dice.randint(1, 2))
    return {
        name: dice.choice(["warning", "error|critical", "*"])
        if name == "severity"
        else dice.choice(PATTERNS)
        for name in names
    }


async def route_by_amtool(path: Path, labels: dict[str, str]) -> list[str]:
    """Return the receivers of an alert."""
    words = [f"{_rename(name)}={quote(text)}" for name, text in labels.items() if text]
    code, said = await amtool("config", "routes", "test", f"--config.file={path}", *words)
    assert code == 0, said
    return said.split()[-1].split(",")


def _rename(name: str) -> str:
    return "alertname" if name == "rule" else name


def quote(text: str) -> str:
    inside = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inside}"'


async def amtool(*words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        AMTOOL or "", *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, (err + out).decode()


# told alike


@needs_alertmanager
@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_alertmanager_inhibits_groups_and_ends_as_we_do(tmp_path: Path) -> None:
    async with HookServer() as hooks:
        channel = make_channel(
            "hook", ChannelKind.WEBHOOK, url=hooks.url, secret="env:PILOTAGE_NOTICE_A"
        )
        route = make_route(
            channels=("hook",), group_by=("alias",), settle_us=0, interval_us=1_000_000
        )
        down = make_inhibition({"rule": "down"}, {"rule": "slow"}, "alias")
        config, _ = make_config("mine", [channel], [route], [down])
        now_us = SystemClock().now_us()
        alerts = [
            make_alert("alt_1", "down", alias="chat", at_us=now_us),
            make_alert("alt_2", "slow", alias="chat", at_us=now_us),
            make_alert("alt_3", "slow", alias="small", at_us=now_us),
        ]
        ours = describe(alerts, route, muted_by(alerts, down))
        async with running(tmp_path, config) as http:
            await post(http, alerts[:1])  # the cause first: what follows is inhibited
            await until(lambda: len(hooks.hooks) == 1, "the cause", 20.0)
            await post(http, alerts)
            await until(lambda: told(hooks) == ours, "what we tell", 20.0)
            ended = {"endsAt": rfc3339(SystemClock().now_us())}
            await post(http, alerts, **ended)
            await until(
                lambda: {hook.json["status"] for hook in hooks.hooks[-2:]} == {"resolved"},
                "that they are over",
                30.0,
            )
        assert all(hook.json["version"] == "4" for hook in hooks.hooks)


def muted_by(alerts: Sequence[AlertChange], inhibition: Any) -> frozenset[str]:  # noqa: ANN401
    world = World(alerts=alerts, routes=(), inhibitions=(inhibition,), silences=(), groups=())
    return find_muted(world, T0)


def describe(
    alerts: Sequence[AlertChange], route: NoticeRoute, muted: frozenset[str]
) -> dict[str, set[str]]:
    """Return the rules told by group."""
    (label,) = route.spec.group_by
    found: dict[str, set[str]] = {}
    for alert in alerts:
        if alert.alert_id not in muted:
            found.setdefault(alert.labels[label], set()).add(alert.rule)
    return found


def told(hooks: HookServer) -> dict[str, set[str]]:
    """Return the rules that fire by group, by the last notice of each."""
    return {
        hook.json["groupLabels"]["alias"]: {
            alert["labels"]["alertname"]
            for alert in hook.json["alerts"]
            if alert["status"] == "firing"
        }
        for hook in hooks.hooks
    }


@asynccontextmanager
async def running(folder: Path, config: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """Run Alertmanager until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        ALERTMANAGER or "",
        f"--config.file={write(folder, config)}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await wait_ready(http)
            yield http
    finally:
        process.kill()
        await process.wait()


async def wait_ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await http.get("/-/ready")).status_code == 200:
                    return
            except httpx.HTTPError:
                await asyncio.sleep(0)


async def post(http: httpx.AsyncClient, alerts: Sequence[AlertChange], **more: str) -> None:
    """Let alerts fire there, as Prometheus does."""
    body = [
        {
            "labels": {_rename(name): text for name, text in list_labels(alert).items()}
            | {"project": "mine"},
            "startsAt": rfc3339(alert.starts_at_us),
            **more,
        }
        for alert in alerts
    ]
    (await http.post("/api/v2/alerts", json=body)).raise_for_status()


def write(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return path

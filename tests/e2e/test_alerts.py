"""An engine becomes slow: people are told at a webhook in time, and told again when it is over."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pytest
import yaml

from debian_programs import program
from gateway_harness import until
from hook_server import Hook, HookServer
from pilotage.monitoring.notify.backends.webhook import sign
from pilotage.sdk.control import ControlClient
from stub_upstream import free_port, wait_port
from system import System, add_model, ask, running, serve

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(180)]

ENGINE = "llamacpp.child"
SECRET = "the key of the hook"
RULE = 'p95_latency{alias="chat"} > 1s for 3s'
FOR_S, GRACE_S = 3, 5
SLOW_S = 1.5
FAST_CALLS = 80  # so many that three slow ones are less than 5 % of all
PROGRAMS = ("prometheus", "prometheus-alertmanager", "promtool", "amtool")


@pytest.fixture
async def hooks() -> AsyncIterator[HookServer]:
    async with HookServer() as server:
        yield server


@pytest.fixture
async def system(tmp_path: Path, hooks: HookServer) -> AsyncIterator[System]:
    environment = {
        "PILOTAGE_EGRESS_ALLOW": f"127.0.0.1:{hooks.port}",
        "PILOTAGE_NOTICE_HOOK": SECRET,
    }
    async with running(tmp_path / "data", **environment) as found:
        yield found


async def furnish(control: ControlClient, gguf: Path, hooks: HookServer) -> None:
    """Serve the tiny model, and have ops paged at the webhook when it is slow."""
    await serve(control, "chat", await add_model(control, gguf, "tiny", "1.0.0"))
    secret = "env:PILOTAGE_NOTICE_HOOK"
    channel = {"name": "hook", "kind": "webhook", "url": hooks.url, "secret": secret}
    await control.post("/channels", channel)
    quick = {"settle": "0s", "interval": "1s"}
    route = {"name": "ops", "match": {"team": "ops"}, "channels": ["hook"], "kind": "page"}
    await control.post("/notice-routes", route | quick)
    rule = {"name": "slow", "condition": RULE, "severity": "critical", "team": "ops"}
    await control.post("/alert-rules", rule)


async def call(http: httpx.AsyncClient, count: int = 1) -> None:
    for _ in range(count):
        reply = await http.post("/v1/chat/completions", json=ask("chat", max_tokens=1))
        assert reply.status_code == 200, reply.text


async def call_slowly(system: System, http: httpx.AsyncClient) -> None:
    """Make three calls while the engine stands still."""
    engine = system.child(ENGINE)
    engine.send_signal(signal.SIGSTOP)
    asyncio.get_running_loop().call_later(SLOW_S, engine.send_signal, signal.SIGCONT)
    await asyncio.gather(*(call(http) for _ in range(3)))


async def call_fast(http: httpx.AsyncClient) -> None:
    await asyncio.gather(*(call(http, FAST_CALLS // 4) for _ in range(4)))


async def wait_for(
    found: Callable[[], list[Hook]], status: str, what: str, patience_s: float
) -> tuple[Hook, float]:
    """Return the first notice of a status, and after how many seconds it came."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    def fitting() -> list[Hook]:
        return [hook for hook in found() if hook.json["status"] == status]

    await until(lambda: bool(fitting()), what, patience_s)
    return fitting()[0], loop.time() - began_s


async def test_a_slow_engine_pages_within_the_rules_time_and_five_seconds(
    system: System, hooks: HookServer, tiny_gguf: Path
) -> None:
    async with system.control() as control, system.http() as http:
        await furnish(control, tiny_gguf, hooks)
        await call(http)
        await call_slowly(system, http)

        fired, fired_s = await wait_for(
            lambda: hooks.hooks, "firing", "the page", FOR_S + GRACE_S + 10
        )
        (alert,) = (await control.get("/alerts"))["items"]
        await call_fast(http)
        over, over_s = await wait_for(lambda: hooks.hooks, "resolved", "the end", 20)

        sys.stdout.write(f"fired after {fired_s:.1f} s (rule {FOR_S} s), over in {over_s:.1f} s\n")
        assert fired_s <= FOR_S + GRACE_S
        assert alert["state"] == "firing"
        assert alert["value"] > 1
        (told,) = fired.json["alerts"]
        assert told["labels"]["alias"] == "chat"
        assert told["labels"]["severity"] == "critical"
        assert over.json["groupId"] == fired.json["groupId"]
        assert (await control.get(f"/alerts/{alert['id']}"))["state"] == "resolved"
    for hook in (fired, over):
        key = hook.headers["webhook-id"], int(hook.headers["webhook-timestamp"])
        assert hook.headers["webhook-signature"] == sign(SECRET.encode(), *key, hook.body)
    assert len({hook.headers["webhook-id"] for hook in hooks.hooks}) == len(hooks.hooks) == 2


async def check_files(folder: Path, **commands: str) -> None:
    """Have the programs' own tools say that the files are right."""
    for tool, arguments in commands.items():
        process = await asyncio.create_subprocess_exec(tool, *arguments.split(), cwd=folder)
        assert await process.wait() == 0, f"{tool} {arguments}"


async def write_files(system: System, folder: Path, alertmanager: int) -> None:
    """Write what is exported, and a configuration that scrapes this installation."""
    async with system.control() as control:
        rules = await control.get("/alert-rules:export")
        exported = await control.get("/alertmanager-config")
    (folder / "rules.yml").write_text(yaml.safe_dump(rules, sort_keys=False))
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(exported["config"], sort_keys=False))
    (folder / "credential").write_text(system.credentials.admin)
    control_host = system.server.control_url.removeprefix("http://")
    scraped: dict[str, Any] = {
        "job_name": "pilotage-control",
        "authorization": {"credentials_file": "credential"},
        "static_configs": [{"targets": [control_host]}],
    }
    told = {"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [told]},
        "scrape_configs": [scraped],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config, sort_keys=False))


@asynccontextmanager
async def prometheus(system: System, folder: Path) -> AsyncIterator[str]:
    """Run Prometheus and Alertmanager on the exported files; give Prometheus' address."""
    ports = free_port(), free_port()
    await write_files(system, folder, ports[1])
    await check_files(
        folder, promtool="check config prometheus.yml", amtool="check-config alertmanager.yml"
    )
    async with (
        program(
            folder,
            "prometheus-alertmanager",
            f"--web.listen-address=127.0.0.1:{ports[1]}",
            "--config.file=alertmanager.yml",
            "--storage.path=alertmanager-data",
            "--cluster.listen-address=",
        ),
        program(
            folder,
            "prometheus",
            f"--web.listen-address=127.0.0.1:{ports[0]}",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=prometheus-data",
        ),
    ):
        for port in ports:
            await wait_port(port)
        yield f"http://127.0.0.1:{ports[0]}"


@pytest.mark.skipif(
    not all(map(which, PROGRAMS)),
    reason="Debian's prometheus and prometheus-alertmanager are absent",
)
async def test_the_exported_files_say_the_same_through_prometheus_and_alertmanager(
    system: System, hooks: HookServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    def from_alertmanager() -> list[Hook]:
        return [hook for hook in hooks.hooks if "webhook-id" not in hook.headers]

    async with system.control() as control, system.http() as http:
        await furnish(control, tiny_gguf, hooks)
        await call(http)
        async with prometheus(system, tmp_path) as url:
            await until(lambda: is_scraped(url), "a scraped value", 30)
            await call_slowly(system, http)
            fired, fired_s = await wait_for(from_alertmanager, "firing", "the page", 60)
            await call_fast(http)
            over, over_s = await wait_for(from_alertmanager, "resolved", "the end", 60)

    sys.stdout.write(f"Alertmanager: fired after {fired_s:.1f} s, over in {over_s:.1f} s\n")
    ours = next(hook.json for hook in hooks.hooks if "webhook-id" in hook.headers)
    (theirs,) = fired.json["alerts"]
    (told,) = ours["alerts"]
    for name in ("alertname", "alias", "severity", "team"):
        assert theirs["labels"][name] == told["labels"][name]
    assert theirs["annotations"]["summary"] == told["annotations"]["summary"]
    assert over.json["groupKey"] == fired.json["groupKey"]


def is_scraped(url: str) -> bool:
    query = {"query": "pilotage_p95_latency"}
    reply = httpx.get(f"{url}/api/v1/query", params=query, trust_env=False)
    return reply.status_code == 200 and bool(reply.json()["data"]["result"])

"""Every query of every dashboard, run against a Prometheus that scrapes a real installation."""

import asyncio
import itertools
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pytest
import yaml

from debian_programs import program
from gateway_harness import until
from pilotage.monitoring.dashboards.grafana import list_queries
from pilotage.monitoring.dashboards.service import list_boards, make_board_of
from pilotage.monitoring.dashboards.watch import write_rules, write_scrapes
from stub_upstream import free_port, wait_port
from system import System, add_model, ask, poll, running, serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(which("prometheus") is None, reason="Debian's prometheus is absent"),
]
CHOSEN = {"$project": ".*", "$alias": ".*", "$window": "5m", "$__rate_interval": "10s"}
NAME = re.compile(r"\b(?:pilotage|gen_ai|process)_[a-z0-9_]+")
# Rightly empty while all is well, though their metrics are there.
QUIET = ("pilotage_worker_failures > 0",)
OF_ALL_ARMS = 'pilotage_request_count{alias="spare", arm="", window="1h"}'
LEAST = (  # what an installation that answers calls has, whatever else it has
    "pilotage_request_rate",
    "pilotage_p95_latency",
    "pilotage_calls_total",
    "pilotage_overhead_seconds_bucket",
    "pilotage_ready_replicas",
    "pilotage_daily_cost",
    "pilotage_ledger_position",
    "pilotage_spool_sequence",
    "pilotage_alert",
    "process_resident_memory_bytes",
)


@pytest.fixture
async def system(tmp_path: Path, tiny_gguf: Path) -> AsyncIterator[System]:
    """Run an installation with an endpoint and a rule that fires as soon as there are calls."""
    async with running(tmp_path / "data") as found:
        async with found.control() as control:
            model = await add_model(control, tiny_gguf, "tiny", "1.0.0")
            await serve(control, "chat", model)
            await serve(control, "spare", model)
            conditions = {"calls": "request_rate > 0", "arms": 'request_count{arm!="old"}[1h] > 0'}
            for name, condition in conditions.items():
                rule = {"name": name, "condition": condition, "team": "ops"}
                await control.post("/alert-rules", rule)
            limit = {"name": "few", "measure": "requests", "amount": "2", "per": "total"}
            await control.post("/limits", limit | {"endpoint": "spare"})
        yield found


@asynccontextmanager
async def prometheus(system: System, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run Prometheus with the files of the deployment, looking every second."""
    folder.mkdir()
    port = free_port()
    gateway, control = (
        url.removeprefix("http://")
        for url in (system.server.gateway_url, system.server.control_url)
    )
    config = write_scrapes((gateway,), control)
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config |= {"rule_files": ["rules.yml"], "alerting": {}}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules.yml").write_text(yaml.safe_dump(write_rules()))
    (folder / "pilotage.credential").write_text(system.credentials.admin)
    arguments = ("--config.file=prometheus.yml", "--storage.tsdb.path=data")
    address = f"127.0.0.1:{port}"
    async with (
        program(folder, "prometheus", f"--web.listen-address={address}", *arguments),
        httpx.AsyncClient(base_url=f"http://{address}/api/v1", trust_env=False) as http,
    ):
        await wait_port(port)
        ready = f"http://{address}/-/ready"
        await until(lambda: httpx.get(ready, trust_env=False).is_success, "Prometheus", 30)
        yield http


async def query(http: httpx.AsyncClient, text: str) -> dict[str, Any]:
    """Return what Prometheus says to an expression, and whether it could read it."""
    for name, value in CHOSEN.items():
        text = text.replace(name, value)
    reply = await http.get("/query", params={"query": text})
    found: dict[str, Any] = reply.json()
    assert found["status"] == "success", f"{text}: {found.get('error')}"
    return found


async def test_every_query_is_answered_and_those_of_metrics_that_are_there_with_numbers(
    system: System, tmp_path: Path
) -> None:
    asked = sorted(
        {
            text
            for board in (*list_boards(), make_board_of(["chat"], "default"))
            for text in list_queries(board)
        }
    )
    async with prometheus(system, tmp_path / "prometheus") as http:
        is_enough = asyncio.Event()
        calling = asyncio.create_task(keep_calling(system, is_enough))
        try:
            for name in LEAST:
                await poll(
                    lambda name=name: query(http, name),  # type: ignore[misc]
                    lambda found: bool(found["data"]["result"]),
                )
            await until_rates(http)
            made = await call_until_refused(system, "spare")
            await poll(
                lambda: query(http, OF_ALL_ARMS),
                lambda found: [row["value"][1] for row in found["data"]["result"]] == [str(made)],
            )
            there = set((await http.get("/label/__name__/values")).json()["data"])
            answers = {text: (await query(http, text))["data"]["result"] for text in asked}
            rules = (await http.get("/rules")).json()["data"]["groups"]
            targets = (await http.get("/targets")).json()["data"]["activeTargets"]
        finally:
            is_enough.set()
            await calling

    expected = [text for text in asked if set(NAME.findall(text)) <= there and text not in QUIET]
    full = [text for text in asked if answers[text]]
    sys.stdout.write(
        f"{len(asked)} queries answered, {len(full)} with numbers; "
        f"{len(asked) - len(expected)} of metrics that nothing here measures\n"
    )
    assert [text for text in expected if not answers[text]] == []
    assert len(full) > len(asked) / 2
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
    assert {target["health"] for target in targets} == {"up"}


async def keep_calling(system: System, is_enough: asyncio.Event) -> None:
    """Make calls one after another, streams and others, until it is enough."""
    async with system.http() as http:
        for number in itertools.count():
            body = ask("chat", max_tokens=4, stream=bool(number % 2))
            await http.post("/v1/chat/completions", json=body)
            with suppress(TimeoutError):
                await asyncio.wait_for(is_enough.wait(), 0.05)
            if is_enough.is_set():
                return


async def call_until_refused(system: System, alias: str) -> int:
    """Return how many calls were made; the last of them reached no arm."""
    async with system.http() as http:
        for number in itertools.count(1):
            reply = await http.post("/v1/chat/completions", json=ask(alias))
            if reply.status_code == 429:
                return number
    raise AssertionError("never")


async def until_rates(http: httpx.AsyncClient) -> None:
    """Wait until counters have grown between two scrapes."""
    grown = "sum(rate(pilotage_calls_total[10s])) > 0"
    await poll(lambda: query(http, grown), lambda found: bool(found["data"]["result"]))


async def test_nobody_without_a_credential_sees_the_page_of_the_control_plane(
    system: System,
) -> None:
    url = f"{system.server.control_url}/metrics"
    async with httpx.AsyncClient(trust_env=False) as http:
        refused = await http.get(url)
        shown = await http.get(url, headers={"authorization": f"Bearer {system.credentials.admin}"})
        elsewhere = await http.get(f"{system.server.control_url}/api/v1/metrics.txt")

    assert (refused.status_code, shown.status_code, elsewhere.status_code) == (401, 200, 404)
    assert shown.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "pilotage_control_build_info" in shown.text

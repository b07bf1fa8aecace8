"""Costs and metrics by the documents' names, on a world made through the API and served live."""

import ast
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml

from compat_wheel import build_wheel, read_block, run_block
from pilotage import AlertRule, CostTracker, VertexAIMonitoring
from pilotage.kit.config import load_settings
from pilotage.sdk.control import ControlClient, open_control
from system import System, add_model, ask, poll, running, serve

PROJECT, ENDPOINT = "my-project", "456"
NAME = f"projects/123/locations/us-central1/endpoints/{ENDPOINT}"
CALLS = {ENDPOINT: 6, "large": 2}
TOLD = Decimal("0.0125")  # of usage that no gateway saw
DASHBOARD = Path("/tmp/vertex_ai_dashboard.json")  # where the document's block writes it


class World(NamedTuple):
    """A running installation, and what the gateway said that each endpoint's calls cost."""

    data: Path
    control: ControlClient
    spent: dict[str, Decimal]
    tokens: int


@asynccontextmanager
async def open_project(system: System) -> AsyncIterator[ControlClient]:
    async with open_control(load_settings(None, system.environment), PROJECT) as control:
        yield control


@pytest.fixture
async def world(tmp_path: Path, tiny_gguf: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "data") as system:
        async with system.control() as control:
            await control.post("/projects", {"name": PROJECT})
        async with open_project(system) as control:
            await control.post("/tenants", {"name": "acme", "features": ["search"]})
            key = await control.post("/keys", {"tenant": "acme", "name": "ci"})
            await serve(control, ENDPOINT, await add_model(control, tiny_gguf, "tiny", "1.0.0"))
            await serve(control, "large", await add_model(control, tiny_gguf, "big", "1.0.0"))
            await control.post("/prices", {"subject": "big", "input": "50", "output": "150"})
            async with system.http(key["secret"]) as http:
                spent, tokens = await make_calls(http)
            await poll(
                lambda: control.get("/costs"),
                lambda found: (
                    bool(found["items"]) and found["items"][0]["calls"] == sum(CALLS.values())
                ),
            )
            await poll(
                lambda: control.get("/metrics", window="1h", by="alias"),
                lambda found: sum(item["calls"] for item in found["items"]) == sum(CALLS.values()),
            )
            yield World(system.folder.path, control, spent, tokens)


async def make_calls(http: httpx.AsyncClient) -> tuple[dict[str, Decimal], int]:
    """Call both endpoints for the feature; return what each cost and the tokens of the first."""
    spent, tokens = dict.fromkeys(CALLS, Decimal(0)), 0
    for name, count in CALLS.items():
        for _ in range(count):
            reply = await http.post(
                "/v1/chat/completions", json=ask(name), headers={"x-pilotage-feature": "search"}
            )
            assert reply.status_code == 200, reply.text
            spent[name] += Decimal(reply.headers["x-pilotage-cost-usd"])
            tokens += reply.json()["usage"]["total_tokens"] if name == ENDPOINT else 0
    return spent, tokens


def test_the_class_of_the_document_has_our_methods_and_parameters() -> None:
    (document,) = ast.parse(read_block("cost-tracker.md")).body
    assert isinstance(document, ast.ClassDef)
    methods = [item for item in document.body if isinstance(item, ast.FunctionDef)]

    assert len(methods) == 4
    for method in methods:
        ours = inspect.signature(getattr(CostTracker, method.name))
        wanted = [argument.arg for argument in method.args.args]
        assert list(ours.parameters)[: len(wanted)] == wanted, method.name
        rest = list(ours.parameters.values())[len(wanted) :]
        assert all(one.default is not inspect.Parameter.empty for one in rest)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_costs_are_those_of_the_calls_and_of_what_was_told(world: World) -> None:
    today = datetime.now(UTC)
    total = sum(world.spent.values())
    async with CostTracker(PROJECT, data_dir=str(world.data)) as tracker:
        assert await tracker.get_daily_cost(today) == total
        await tracker.track_usage("gpt-4o", 1500, float(TOLD))

        assert await tracker.get_daily_cost(today.date()) == total + TOLD
        assert await tracker.get_monthly_cost() == total + TOLD
        assert await tracker.get_cost_breakdown() == {
            "tiny@1.0.0": world.spent[ENDPOINT],
            "big@1.0.0": world.spent["large"],
            "gpt-4o": TOLD,
        }
        assert await tracker.get_cost_breakdown(by="feature") == {"search": total, "": TOLD}
        for task, best in (("search", "tiny@1.0.0"), ("large", "big@1.0.0"), ("", "tiny@1.0.0")):
            choice = await tracker.optimize_model_selection(task)
            assert choice.model == best
        choice = await tracker.optimize_model_selection("search")

    assert choice.cost_per_request == pytest.approx(
        world.spent[ENDPOINT] / CALLS[ENDPOINT], abs=Decimal("1e-9")
    )
    assert list(choice.candidates) == ["tiny@1.0.0", "big@1.0.0"]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_monitoring_block_runs_unchanged_on_live_calls(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = build_wheel(tmp_path_factory.mktemp("wheel"))
    DASHBOARD.unlink(missing_ok=True)

    code, out, err = await run_block(read_block("monitoring-usage.md"), target, world.data)

    told = [line for line in err.splitlines() if not line.startswith("[FIRING")]  # notices
    assert (code, told) == (0, [])
    latency, errors, cost, dear, *_ = out.splitlines()
    assert float(latency.removeprefix("P95 Latency: ").removesuffix("ms")) > 0
    spent = world.spent[ENDPOINT]
    assert (errors, cost) == ("Error Rate: 0.00%", f"Monthly Cost: ${spent:.2f}")
    assert dear == f"Cost per 1M tokens: ${spent / world.tokens * 10**6:.4f}"
    rules = {rule["name"] async for rule in world.control.list("/alert-rules")}
    assert rules == {"high_latency_p95", "high_error_rate"}
    assert DASHBOARD.exists()
    DASHBOARD.unlink()


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_every_method_and_the_documents_alerts_answer_on_live_calls(world: World) -> None:
    async with VertexAIMonitoring(PROJECT, data_dir=str(world.data)) as monitoring:
        speed = await poll(  # replicas are looked at every few seconds
            lambda: monitoring.collect_performance_metrics(NAME, time_window_minutes=60),
            lambda found: found.replica_count is not None,
        )
        cost = await monitoring.calculate_cost_metrics(NAME)
        quality = await monitoring.collect_quality_metrics(NAME)
        for alert in yaml.safe_load(read_block("alerting-rules.md", "yaml"))["alerts"]:
            said = {"condition": alert["condition"], "severity": alert["severity"]}
            monitoring.add_alert_rule(AlertRule(rule_name=alert["name"], **said))
        await world.control.post("/budgets", {"name": "tiny", "amount": "0.000001", "per": "day"})
        found = await monitoring.check_alerts(NAME)

    assert (speed.request_count, speed.error_count) == (CALLS[ENDPOINT], 0)
    assert speed.latency_p50 is not None
    assert speed.latency_p99 is not None
    assert 0 < speed.latency_p50 <= speed.latency_p99
    assert speed.replica_count == 1
    assert cost.total_requests == CALLS[ENDPOINT]
    assert Decimal(str(cost.total_cost)) == world.spent[ENDPOINT]
    assert quality.accuracy is None
    rules = {rule["name"]: rule async for rule in world.control.list("/alert-rules")}
    types = {name: rule["metric_type"] for name, rule in rules.items()}
    assert types == {
        "high_latency": "performance",
        "error_spike": "performance",
        "model_drift": "quality",
        "cost_overrun": "cost",
    }
    assert [one["rule_name"] for one in found] == ["cost_overrun"]
    assert found[0]["metric_name"] == "daily_cost"
    assert found[0]["metric_value"] == pytest.approx(float(sum(world.spent.values())))

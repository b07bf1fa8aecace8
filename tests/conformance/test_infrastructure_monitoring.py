"""A program that monitors endpoints, as it is, and what it stands for, on real calls."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from calls import make_call, open_writer, put_calls
from compat_wheel import build_wheel, read_block, run_block
from pilotage import AlertRule, AlertSeverity, MetricType, VertexAIMonitoring
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Feedback, Outcome, encode_frame
from pilotage.core.usage import Usage
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings
from pilotage.sdk.control import ControlClient, share_control
from system import poll

PROJECT, ENDPOINT = "my-project", "456"
NAME = f"projects/123/locations/us-central1/endpoints/{ENDPOINT}"
CALLS, FAILED, COPIES, JUDGED = 200, 4, 10, 80
pytestmark = pytest.mark.slow
DASHBOARD = Path("/tmp/vertex_ai_dashboard.json")  # where the block writes it


class World(NamedTuple):
    """A project with an endpoint that has answered calls, 0.4 s to 0.8 s each, 2 % badly."""

    data: Path
    control: ControlClient

    def open(self) -> VertexAIMonitoring:
        """Return the facade."""
        return VertexAIMonitoring(PROJECT, data_dir=str(self.data))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """Return a data folder whose installation has counted and charged the calls, and is closed."""
    settings = msgspec.convert({"data_dir": str(tmp_path / "data")}, type=Settings)
    async with share_control(settings) as control:
        project = await control.post("/projects", {"name": PROJECT})
    async with share_control(settings, PROJECT) as control:
        tenant = await control.post("/tenants", {"name": "acme"})
        await control.post("/endpoints", {"name": ENDPOINT})
        put_traffic(settings.data_path / "spool", project["id"], tenant["id"])
        await poll(
            lambda: control.get("/metrics", window="1h", by="alias"),
            lambda found: bool(found["items"]) and found["items"][0]["calls"] == CALLS,
        )
        await poll(
            lambda: control.get("/costs", alias=ENDPOINT),
            lambda found: bool(found["items"]) and found["items"][0]["calls"] == CALLS + COPIES,
        )
        await poll(
            lambda: control.get("/quality", endpoint=ENDPOINT),
            lambda found: bool(found["items"]) and found["items"][0]["accuracy"]["n"] == JUDGED,
        )
    return settings.data_path


@pytest.fixture
async def world(data: Path) -> AsyncIterator[World]:
    settings = msgspec.convert({"data_dir": str(data)}, type=Settings)
    async with share_control(settings, PROJECT) as control:
        yield World(data, control)


def put_traffic(spools: Path, project_id: str, tenant_id: str) -> None:
    now_us = SystemClock().now_us()
    spool = open_writer(spools)
    put_calls(
        spool,
        (
            make_call(
                call_id=f"call_{number}",
                at_us=now_us,
                project_id=project_id,
                tenant_id=tenant_id,
                alias=ENDPOINT,
                version_id="ver_1" if number % 4 else "ver_2",
                outcome=Outcome.UPSTREAM_ERROR if number < FAILED else Outcome.OK,
                duration_us=round(400_000 + 400_000 * number / CALLS),
                usage=Usage(input=300, output=200),
                cost_nano=2_000_000,
            )
            for number in range(CALLS)
        ),
    )
    copy = make_call(at_us=now_us, project_id=project_id, tenant_id=tenant_id, alias=ENDPOINT)
    fields = {"usage": Usage(input=300, output=200), "cost_nano": 2_000_000, "flags": ["shadow"]}
    copies = (
        msgspec.structs.replace(copy, call_id=f"copy_{number}", **fields)
        for number in range(COPIES)
    )
    put_calls(spool, copies)
    for number in range(JUDGED):
        opinion = Feedback(
            call_id=f"call_{FAILED + number}",
            at_us=now_us,
            feedback_id=f"fbk_{number}",
            project_id=project_id,
            tenant_id=tenant_id,
            key_id="key",
            label="correct" if number % 4 else "wrong",
        )
        spool.append_end(encode_frame(opinion))
    spool.close()


async def test_performance_cost_and_quality_are_those_of_the_calls(world: World) -> None:
    async with world.open() as monitoring:
        found = await monitoring.collect_performance_metrics(NAME, time_window_minutes=60)
        earlier = await monitoring.collect_performance_metrics(ENDPOINT, time_window_minutes=30)
        cost = await monitoring.calculate_cost_metrics(NAME, period_days=30)
        quality = await monitoring.collect_quality_metrics(NAME)

    assert (found.request_count, found.error_count) == (CALLS, FAILED)
    assert found.error_rate == FAILED / CALLS
    assert found.latency_p50 == pytest.approx(600, rel=0.02)
    assert found.latency_p95 == pytest.approx(780, rel=0.02)
    assert found.latency_p99 == pytest.approx(796, rel=0.02)
    assert found.throughput_qps == pytest.approx(CALLS / 3600, rel=0.05)
    assert found.model_id == "ver_1"
    assert found.accelerator_duty_cycle is None  # nothing was measured: no number
    assert earlier.request_count == CALLS
    assert cost.total_cost == pytest.approx(0.42)  # copies are paid for, and no client asked
    assert cost.token_cost == pytest.approx(0.42)
    assert cost.compute_cost == 0
    assert cost.total_requests == CALLS
    assert cost.cost_per_request == pytest.approx(0.0021)
    assert cost.total_tokens == 500 * (CALLS + COPIES)
    assert cost.cost_per_1m_tokens == pytest.approx(4.0)  # and not 1e6 times that of a request
    assert (cost.period_end - cost.period_start).days == 29
    assert quality.accuracy == pytest.approx(0.75)
    assert quality.counts == {"accuracy": JUDGED}
    low, high = quality.intervals["accuracy"]
    assert 0.6 < low < 0.75 < high < 0.9
    absent = (quality.hallucination_rate, quality.toxicity_score, quality.drift_score)
    assert absent == (None, None, None)


async def test_alerts_are_rules_of_the_installation(world: World) -> None:
    slow = AlertRule(rule_name="slow", metric_name="latency_p95", threshold=500.0)
    async with world.open() as monitoring:
        monitoring.add_alert_rule(slow)
        monitoring.add_alert_rule(
            AlertRule(
                rule_name="dear",
                metric_type=MetricType.COST,
                condition="cost_per_request > 0.001",
                severity=AlertSeverity.ERROR,
            )
        )
        monitoring.add_alert_rule(AlertRule(rule_name="later", condition="p95_latency > 1s for 5m"))
        off = AlertRule(rule_name="off", condition="error_rate > 1%", enabled=False)
        monitoring.add_alert_rule(off)
        found = {one["rule_name"]: one for one in await monitoring.check_alerts(NAME)}
        assert set(found) == {"slow", "dear"}
        assert found["slow"]["metric_name"] == "latency_p95"
        assert found["slow"]["threshold"] == 500
        assert found["slow"]["metric_value"] == pytest.approx(780, rel=0.02)  # ms, as the threshold
        assert found["dear"]["severity"] == "error"
        assert found["dear"]["metric_value"] == pytest.approx(0.002)
        rules = {rule["name"]: rule async for rule in world.control.list("/alert-rules")}
        assert set(rules) == {"slow", "dear", "later", "off"}

        monitoring.remove_alert_rule("slow")
        monitoring.remove_alert_rule("nobody")
        monitoring.add_alert_rule(AlertRule(rule_name="dear", condition="cost_per_request > 1"))
        assert await monitoring.check_alerts() == []
        monitoring.add_alert_rule(AlertRule(rule_name="turned", condition="0.5s < p95_latency"))
        (turned,) = await monitoring.check_alerts()
        assert (turned["metric_name"], turned["threshold"]) == ("p95_latency", 0.5)
        assert turned["metric_value"] == pytest.approx(0.78, rel=0.02)
        monitoring.remove_alert_rule("turned")
        assert await monitoring.check_alerts() == []
    async with world.open() as other:  # that knows the rules only from the installation
        other.add_alert_rule(slow)
    async with world.open() as other:
        (one,) = await other.check_alerts()
    assert (one["metric_name"], one["threshold"]) == ("p95_latency", 0.5)


async def test_what_is_wrong_is_said_and_holds_nothing_else_up(world: World) -> None:
    async with world.open() as monitoring:
        with pytest.raises(PilotageError, match="latency_p59"):
            monitoring.add_alert_rule(
                AlertRule(rule_name="typo", metric_name="latency_p59", threshold=1.0)
            )
        monitoring.add_alert_rule(AlertRule(rule_name="No Name", condition="error_rate > 1%"))
        with pytest.raises(PilotageError, match="is not a name"):
            await monitoring.check_alerts()
        assert await monitoring.check_alerts() == []
        with pytest.raises(PilotageError) as absent:
            await monitoring.collect_performance_metrics("projects/1/endpoints/nobody")
    assert absent.value.code == "not_found"


def test_a_dashboard_of_some_endpoints_is_written(tmp_path: Path) -> None:
    monitoring, path = VertexAIMonitoring(PROJECT), str(tmp_path / "board.json")

    assert monitoring.export_grafana_dashboard([NAME, "chat"], path) == path

    board = json.loads(Path(path).read_text())
    choices = {one["name"]: one for one in board["templating"]["list"]}
    assert [one["value"] for one in choices["alias"]["options"]] == [ENDPOINT, "chat"]
    with pytest.raises(ValueError, match="an alias at least"):
        monitoring.export_grafana_dashboard([], path)


async def test_the_block_of_the_document_runs_unchanged(data: Path, target: Path) -> None:
    DASHBOARD.unlink(missing_ok=True)

    code, out, err = await run_block(read_block("monitoring-usage.md"), target, data)

    told = [line for line in err.splitlines() if not line.startswith("[FIRING")]  # notices
    assert (code, told) == (0, [])
    latency, errors, cost, dear, *alerts = out.splitlines()
    assert float(latency.removeprefix("P95 Latency: ").removesuffix("ms")) == pytest.approx(
        780, rel=0.02
    )
    assert (errors, cost) == ("Error Rate: 2.00%", "Monthly Cost: $0.42")
    assert dear == "Cost per 1M tokens: $4.0000"
    slow, failing = sorted(alerts, reverse=True)
    assert slow.startswith("ALERT: high_latency_p95 - latency_p95=7")
    assert failing == "ALERT: high_error_rate - error_rate=0.02"
    board = json.loads(DASHBOARD.read_text())
    DASHBOARD.unlink()
    assert board["title"] == "Pilotage / endpoint-1, endpoint-2"

"""``VertexAIMonitoring``: how endpoints do, from Python, as ``infrastructure.vertex_ai`` has it.

There is no logic here: every method asks the control API and shows its answer.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from pilotage.core.errors import PilotageError
from pilotage.core.money import parse_usd
from pilotage.core.names import SHADOW_TENANT
from pilotage.kit.clock import SystemClock
from pilotage.sdk.alert_rule import AlertRule
from pilotage.sdk.held import hold_control
from pilotage.sdk.metrics import CostMetrics, ModelMetrics, QualityMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from pilotage.sdk.control import ControlClient

EVERY = "..."  # stands for every endpoint of the project
_TRAFFIC = (
    "request_count,error_count,p50_latency,p95_latency,p99_latency,request_rate,error_rate,"
    "gpu_usage,replica_count"
)
_SCALES = {"ms": 1000.0, "%": 100.0}
_QUALITY = ("accuracy", "hallucination_rate", "toxicity_score", "validation_pass_rate")
_WINDOWS = ("1h", "1d", "7d", "30d")


class VertexAIMonitoring:
    """Numbers, alert rules and dashboards of a project's endpoints.

    An endpoint is named by its name, its id, or a resource name that ends with one of them
    (``projects/P/locations/L/endpoints/NAME``). The constructor does no I/O. The first awaited call
    finds the live server of the data folder, or opens its control plane in this process. Use
    ``async with``, or call :meth:`aclose`. Refusals are raised as PilotageError.

    Rules that were added or removed take effect with the next awaited call, :meth:`aclose` at the
    latest; from then on the control plane looks at them every second.
    """

    def __init__(
        self, project_id: str | None = None, *, data_dir: str | None = None, reason: str = ""
    ) -> None:
        self.project_id = project_id or "default"
        self._held = hold_control(self.project_id, data_dir, reason, makes_project=False)
        self._rules: dict[str, AlertRule] = {}
        self._changes: dict[str, AlertRule | None] = {}  # by name; None is to be removed

    async def __aenter__(self) -> Self:
        await self._held.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write what was changed last and close everything that was opened."""
        try:
            if self._changes:
                await self._open()
        finally:
            await self._held.close()

    async def collect_performance_metrics(
        self, endpoint_id: str, time_window_minutes: int = 60
    ) -> ModelMetrics:
        """Return how an endpoint did in the last minutes; raise ``not_found``.

        Without calls the counts are 0 and what would be made of calls is None.
        """
        control = await self._open()
        alias = await _find_alias(control, endpoint_id)
        window = f"{time_window_minutes}m"
        found, model_id = await asyncio.gather(
            control.get("/metric-values", metrics=_TRAFFIC, window=window, alias=alias),
            _find_model(control, alias, window),
        )
        values = {item["metric"]: item["value"] for item in found["items"]}
        gpu, replicas = values.get("gpu_usage"), values.get("replica_count")
        return ModelMetrics(
            model_id=model_id,
            endpoint_id=endpoint_id,
            timestamp=datetime.fromisoformat(found["at"]),
            request_count=round(values.get("request_count", 0)),
            error_count=round(values.get("error_count", 0)),
            latency_p50=_to_ms(values.get("p50_latency")),
            latency_p95=_to_ms(values.get("p95_latency")),
            latency_p99=_to_ms(values.get("p99_latency")),
            throughput_qps=values.get("request_rate", 0.0),
            error_rate=values.get("error_rate"),
            accelerator_duty_cycle=None if gpu is None else gpu * 100,
            replica_count=None if replicas is None else round(replicas),
        )

    async def calculate_cost_metrics(self, endpoint_id: str, period_days: int = 30) -> CostMetrics:
        """Return what an endpoint cost on the last days, today included; raise ``not_found``.

        Storage and network are shared by a project's endpoints: only lines that name this one
        count. Copies of calls cost money and are no request.
        """
        control = await self._open()
        alias = await _find_alias(control, endpoint_id)
        until = _now()
        since = (until - timedelta(days=period_days - 1)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        tomorrow = until.date() + timedelta(days=1)
        query = {
            "alias": alias,
            "since": since.date().isoformat(),
            "until": tomorrow.isoformat(),
        }
        rows = [row async for row in control.list("/costs", by="tenant", limit=500, **query)]
        kinds: Counter[str] = Counter()
        for row in rows:
            kinds.update({kind: parse_usd(usd) for kind, usd in row["by_kind"].items()})
        costs = {kind: nano / 1e9 for kind, nano in kinds.items()}
        asked = [row for row in rows if row["groups"]["tenant"] != SHADOW_TENANT]
        calls, tokens = sum(row["calls"] for row in asked), sum(row["tokens"] for row in rows)
        total = kinds.total() / 1e9
        return CostMetrics(
            model_id=await _find_model(control, alias, f"{period_days}d"),
            endpoint_id=endpoint_id,
            period_start=since,
            period_end=until,
            total_requests=calls,
            total_tokens=tokens,
            token_cost=costs.get("calls", 0.0) + costs.get("usage", 0.0),
            compute_cost=costs.get("compute", 0.0) + costs.get("idle", 0.0),
            storage_cost=costs.get("storage", 0.0),
            network_cost=costs.get("network", 0.0),
            total_cost=total,
            cost_per_request=total / calls if calls else None,
            cost_per_1m_tokens=total / tokens * 1e6 if tokens else None,
        )

    async def collect_quality_metrics(
        self, endpoint_id: str, sample_size: int = 100
    ) -> QualityMetrics:
        """Return what was judged of an endpoint's answers; raise ``not_found``.

        Judgements are those of the last hour, day, week or 30 days: the shortest of these in which
        some aspect was judged ``sample_size`` times.
        """
        control = await self._open()
        alias = await _find_alias(control, endpoint_id)
        judged = await _read_quality(control, alias, sample_size)
        drift = await control.get("/metric-values", metrics="drift_score", alias=alias)
        return QualityMetrics(
            drift_score=max((item["value"] for item in drift["items"]), default=None),
            **{name: one["value"] for name, one in judged.items()},
            counts={name: one["n"] for name, one in judged.items()},
            intervals={name: (one["low"], one["high"]) for name, one in judged.items()},
        )

    def add_alert_rule(self, rule: AlertRule) -> None:
        """Add a rule, or replace the one of its name.

        Raises ``invalid_request`` for a condition or a metric that there is not.
        """
        read_condition(rule)
        self._rules[rule.rule_name] = rule
        self._changes[rule.rule_name] = rule

    def remove_alert_rule(self, rule_name: str) -> None:
        """Remove a rule; one that is not there is removed already."""
        self._rules.pop(rule_name, None)
        self._changes[rule_name] = None

    async def check_alerts(self, endpoint_id: str = EVERY) -> list[dict[str, Any]]:
        """Return what the project's rules find wrong with an endpoint now.

        ``"..."`` stands for every endpoint. Each item has rule_name, metric_name, metric_value,
        threshold, severity and timestamp; the value has the unit of the threshold. A rule that has
        to hold for some time is wrong once it fires.
        """
        control = await self._open()
        alias = "" if endpoint_id == EVERY else await _find_alias(control, endpoint_id)
        rules = [rule async for rule in control.list("/alert-rules", limit=500)]
        found = await asyncio.gather(
            *(_list_held(control, rule) for rule in rules if rule["enabled"])
        )
        enabled = [rule for rule in rules if rule["enabled"]]
        return [
            _describe(rule, self._rules.get(rule["name"]), item["value"])
            for rule, held in zip(enabled, found, strict=True)
            for item in held
            if not alias or item["labels"].get("alias", alias) == alias
        ]

    def export_grafana_dashboard(self, endpoint_ids: Sequence[str], output_path: str) -> str:
        """Write a dashboard of some endpoints, for Grafana to import; return its path.

        Raises ValueError without endpoints, OSError for a path that cannot be written.
        """
        from pilotage.monitoring.dashboards.service import make_board_of, render_board

        aliases = [_take_name(endpoint_id) for endpoint_id in endpoint_ids]
        board = render_board(make_board_of(aliases, self.project_id))
        Path(output_path).write_text(json.dumps(board, indent=2) + "\n", encoding="utf-8")
        return output_path

    async def _open(self) -> ControlClient:
        """Return the control API, once it knows of every change that was made here."""
        control = await self._held.open()
        while self._changes:
            name, rule = next(iter(self._changes.items()))
            try:
                await _write_rule(control, name, rule)
            except PilotageError as refused:
                if refused.status < 500:  # it would be refused again and again
                    self._drop(name, rule)
                raise
            self._drop(name, rule)
        return control

    def _drop(self, name: str, rule: AlertRule | None) -> None:
        """Forget a change, unless it was changed again meanwhile."""
        if self._changes.get(name, rule) is rule:
            self._changes.pop(name, None)


def read_condition(rule: AlertRule) -> str:
    """Return the condition that a rule says; raise ``invalid_request`` if it is none."""
    from pilotage.core.condition.fields import write_fields
    from pilotage.core.condition.parser import parse

    if rule.threshold is None:
        return parse(rule.condition).text
    return parse(write_fields(rule.metric_name, rule.comparison, rule.threshold)).text


async def _find_alias(control: ControlClient, endpoint_id: str) -> str:
    """Return the name of an endpoint; raise ``not_found``."""
    found = await control.get(f"/endpoints/{quote(_take_name(endpoint_id), safe='/:')}")
    return str(found["name"])


async def _read_quality(
    control: ControlClient, alias: str, sample_size: int
) -> dict[str, dict[str, Any]]:
    """Return what was judged, by aspect, in the shortest window with enough of it."""
    judged: dict[str, dict[str, Any]] = {}
    for window in _WINDOWS:
        page = await control.get("/quality", endpoint=alias, window=window)
        found = page["items"][0] if page["items"] else {}
        judged = {name: found[name] for name in _QUALITY if found.get(name) is not None}
        if any(one["n"] >= sample_size for one in judged.values()):
            break
    return judged


async def _find_model(control: ControlClient, alias: str, window: str) -> str:
    """Return the version that answered most calls of a window; "" if none did."""
    found = await control.get(
        "/metric-values",
        metrics="request_count",
        window=window,
        by="alias,version",
        alias=alias,
    )
    calls = {item["labels"]["version"]: item["value"] for item in found["items"]}
    return max(calls, key=lambda version: calls[version], default="")


def _take_name(endpoint_id: str) -> str:
    """Return what a resource name ends with; a name or an id stays as it is."""
    return endpoint_id.rpartition("/endpoints/")[2]


async def _write_rule(control: ControlClient, name: str, rule: AlertRule | None) -> None:
    place = f"/alert-rules/{quote(name, safe='')}"
    found = await control.find(place)
    if rule is None:
        if found is not None:
            await control.delete(place)
        return
    said = {
        "condition": read_condition(rule),
        "metric_type": rule.metric_type and rule.metric_type.value,
        "severity": rule.severity.value,
        "enabled": rule.enabled,
    }
    if found is None:
        await control.post("/alert-rules", {"name": name, **said})
        return
    kept = {key: found[key] for key in ("team", "runbook", "summary", "labels", "keep_firing_for")}
    await control.put(place, kept | said, found["rev"])


async def _list_held(control: ControlClient, rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the series for which a rule holds now or, if it has to hold for long, fires."""
    looked = await control.post("/alert-rules:check", {"condition": rule["condition"]})
    if not looked["for_seconds"]:
        return list(looked["holds"])
    firing = control.list("/alerts", state="firing", rule=rule["name"], limit=500)
    return [alert async for alert in firing]


def _describe(rule: Mapping[str, Any], own: AlertRule | None, value: float) -> dict[str, Any]:
    """Return what a rule found, by the names and in the units of whoever wrote the rule here."""
    metric_name, threshold, scale = _read_fields(rule["condition"], own)
    return {
        "rule_name": rule["name"],
        "metric_name": metric_name,
        "metric_value": None if value is None else value * scale,
        "threshold": threshold,
        "severity": rule["severity"],
        "timestamp": _now(),
    }


def _read_fields(condition: str, own: AlertRule | None) -> tuple[str, float | None, float]:
    """Return the metric and threshold of a rule, and what its values are multiplied with.

    A rule that compares more than a metric with a number has no threshold.
    """
    from pilotage.core.condition.fields import FIELDS
    from pilotage.core.condition.parser import parse
    from pilotage.core.condition.types import Comparison, Number, Series

    if own is not None and own.threshold is not None:
        suffix = FIELDS[own.metric_name].suffix if own.metric_name in FIELDS else ""
        return own.metric_name, own.threshold, _SCALES.get(suffix, 1.0)
    read = parse(condition)
    match read.root:
        case (
            Comparison(left=Series(ref=ref), right=Number(value=value))
            | Comparison(left=Number(value=value), right=Series(ref=ref))
        ):
            return ref.name, float(value), 1.0
        case Comparison(left=Series(ref=ref)):
            return ref.name, None, 1.0
        case _:
            return ", ".join(metric.name for metric in read.metrics), None, 1.0


def _to_ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _now() -> datetime:
    return datetime.fromtimestamp(SystemClock().now_us() / 1e6, UTC)

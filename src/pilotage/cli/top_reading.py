"""What ``pilotage top`` shows of a project, read at once."""

import asyncio
from dataclasses import dataclass
from typing import Any

from pilotage.sdk.control import ControlClient

WINDOWS = ("1m", "5m", "1h")
MOST_ALERTS = 100
_OF_ALIASES = (
    "request_rate", "request_count", "error_rate", "error_count", "p50_latency", "p95_latency",
    "p99_latency", "p95_ttft", "throughput", "cost_per_request", "replica_count", "ready_replicas",
)  # fmt: skip
_OF_PROJECTS = ("daily_cost", "budget_used")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was found at a time: by alias its metrics, those of the project, living alerts."""

    at: str
    window: str
    aliases: dict[str, dict[str, float]]
    project: dict[str, float]
    alerts: list[dict[str, Any]]

    @property
    def rate(self) -> float:
        """Calls per second, of all aliases."""
        return sum(values.get("request_rate", 0.0) for values in self.aliases.values())

    @property
    def error_rate(self) -> float | None:
        """The share of calls that failed, of all aliases; None without calls."""
        calls = sum(values.get("request_count", 0.0) for values in self.aliases.values())
        failed = sum(values.get("error_count", 0.0) for values in self.aliases.values())
        return failed / calls if calls else None


async def read_fleet(control: ControlClient, window: str) -> Reading:
    """Look once."""
    found, alerts = await asyncio.gather(
        control.get("/metric-values", metrics=",".join(_OF_ALIASES + _OF_PROJECTS), window=window),
        control.get("/alerts", limit=MOST_ALERTS),
    )
    aliases: dict[str, dict[str, float]] = {}
    of_project: dict[str, float] = {}
    for item in found["items"]:
        alias = item["labels"].get("alias")
        where = of_project if alias is None else aliases.setdefault(alias, {})
        where[item["metric"]] = item["value"]
    return Reading(
        at=found["at"],
        window=window,
        aliases=aliases,
        project=of_project,
        alerts=alerts["items"],
    )

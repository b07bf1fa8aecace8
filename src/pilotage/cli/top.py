"""``pilotage top``: what every alias does now, on one screen."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from pilotage.cli.session import Json, Project, fail_usage, run, show_json
from pilotage.core.duration import parse_duration_us
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


def top(
    *,
    window: Annotated[
        str, typer.Option(help=f"How far back to look: {', '.join(WINDOWS)} ...")
    ] = WINDOWS[0],
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.5, max=60)] = 2.0,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Watch calls, latency, errors, cost and alerts while they happen.

    Keys: w another window, s another order, p pause, q quit. --json looks once.

    [bold]Example[/bold]: pilotage top --window 5m
    """
    try:
        parse_duration_us(window)
    except ValueError as wrong:
        fail_usage(f"--window: {wrong}.")
    if as_json:
        show_json(run(lambda control: read_fleet(control, window), project))
        return
    try:
        from pilotage.cli.top_screen import TopScreen
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith("textual"):
            raise
        fail_usage("pilotage top needs Textual.", "Install it: pip install 'pilotage[tui]'")

    async def work(control: ControlClient) -> None:
        screen = TopScreen(
            lambda chosen: read_fleet(control, chosen), project, window=window, every_s=every
        )
        await screen.run_async()

    run(work, project)


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

"""``pilotage metrics``: what calls add up to lately, and what replicas are used to."""

import math
from datetime import datetime
from typing import Annotated, Any

import typer

from pilotage.cli.keys import name_tenants
from pilotage.cli.session import Json, Project, collect, run, show_json, show_table
from pilotage.cli.versions import name_versions
from pilotage.sdk.control import ControlClient

_BARS = "▁▂▃▄▅▆▇█"
_TREND_BARS = 24
_MOST_TRENDS = 100  # groups; of more there is only the table
_FEATURE = "feature"
_NO_CALLS = "There were no calls in the last {window}. Make one: pilotage chat"


def metrics(
    *,
    by: Annotated[
        str, typer.Option(help="Any of project, tenant, alias, arm, version, model, feature.")
    ] = "alias",
    window: Annotated[str, typer.Option(help="How far back: 5m, 1h, 7d.")] = "1h",
    where: Annotated[
        str, typer.Option(help="Only these calls: alias=chat,tenant=acme,arm=stable.")
    ] = "",
    machine: Annotated[
        bool, typer.Option("--machine", help="Show replicas and their machine instead.")
    ] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show how calls went: how many, how fast, how many failed, what they cost.

    By feature, they are only counted: --by tenant,feature says how many each customer made.

    [bold]Example[/bold]: pilotage metrics --by alias,arm --window 15m --where alias=chat
    """
    if machine:
        _show_machine(project, window, as_json=as_json)
        return
    query = {"by": by, "window": window, "where": where}
    if _FEATURE in _split(by):
        _show_features(project, query, as_json=as_json)
        return

    async def work(
        control: ControlClient,
    ) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
        groups = await collect(control, "/metrics", **query)
        series: dict[str, Any] = {"items": []}
        if as_json or len(groups) <= _MOST_TRENDS:
            series = await control.get("/metrics/series", **query)
        names = await name_tenants(control) | await name_versions(control, by)
        return groups, series, names

    groups, series, names = run(work, project)
    if as_json:
        show_json({"groups": groups, "series": series})
        return
    trends = {tuple(item["groups"].values()): _draw(item, series) for item in series["items"]}
    rows = [
        (
            *(names.get(value, value or "(none)") for value in item["groups"].values()),
            *_measure(item),
            trends.get(tuple(item["groups"].values()), ""),
        )
        for item in groups
    ]
    columns = ("#calls", "#per s", "#failed", "#refused", "#p50", "#p95", "#p99", "#ttft p95")
    show_table(
        (*(groups[0]["groups"] if groups else ()), *columns, "#tokens", "#USD", "calls over time"),
        rows,
        _NO_CALLS.format(window=window),
    )


def draw_bars(values: list[float]) -> str:
    """Return values as bars of eight heights, the highest value a full one."""
    top = max(values, default=0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)


def _measure(item: dict[str, Any]) -> tuple[str, ...]:
    tokens = sum(item[f"{name}_tokens"] for name in ("input", "cache_read", "cache_write"))
    tokens += item["output_tokens"] + item["reasoning_tokens"]
    return (
        f"{item['calls']:,}",
        f"{item['calls'] / item['seconds']:.2f}",
        _show_share(item["error_rate"]),
        _show_share(item["refusal_rate"]),
        *(_show_seconds(item["duration"][name]) for name in ("p50_s", "p95_s", "p99_s")),
        _show_seconds(item["ttft"]["p95_s"]),
        f"{tokens:,}",
        item["cost_usd"],
    )


def _draw(item: dict[str, Any], series: dict[str, Any]) -> str:
    """Return how many calls there were over time; steps without any are empty."""
    begin_s, end_s = _read_time(series["since"]), _read_time(series["until"])
    bars = min(_TREND_BARS, max(1, math.ceil((end_s - begin_s) / series["step_s"])))
    counts = [0.0] * bars
    for point in item["points"]:
        bar = int((_read_time(point["at"]) - begin_s) / (end_s - begin_s) * bars)
        counts[min(max(bar, 0), bars - 1)] += point["calls"]
    return draw_bars(counts)


def _read_time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _show_share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _show_seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"


def _split(by: str) -> list[str]:
    return [name.strip() for name in by.split(",") if name.strip()]


def _show_features(project: str, query: dict[str, str], *, as_json: bool) -> None:
    """Show how many calls of each group were of which feature, most first; "" is of none."""
    query = query | {"by": ",".join(name for name in _split(query["by"]) if name != _FEATURE)}

    async def work(control: ControlClient) -> tuple[list[dict[str, Any]], dict[str, str]]:
        return await collect(control, "/metrics", **query), await name_tenants(control)

    groups, names = run(work, project)
    found = [
        {
            "groups": item["groups"] | {_FEATURE: feature},
            "calls": calls,
            "per_s": calls / item["seconds"],
            "share": calls / item["calls"],
        }
        for item in groups
        for feature, calls in _count_features(item)
    ]
    if as_json:
        show_json({"features": found})
        return
    rows = [
        (
            *(names.get(value, value or "(none)") for value in item["groups"].values()),
            f"{item['calls']:,}",
            f"{item['per_s']:.2f}",
            _show_share(item["share"]),
        )
        for item in found
    ]
    columns = ("#calls", "#per s", "#share")
    head = tuple(found[0]["groups"]) if found else ()
    show_table((*head, *columns), rows, _NO_CALLS.format(window=query["window"]))


def _count_features(item: dict[str, Any]) -> list[tuple[str, int]]:
    counts: dict[str, int] = dict(item["features"])
    counts[""] = item["calls"] - sum(counts.values())
    return sorted(
        ((feature, calls) for feature, calls in counts.items() if calls),
        key=lambda one: (-one[1], one[0]),
    )


def _show_machine(project: str, window: str, *, as_json: bool) -> None:
    async def work(control: ControlClient) -> tuple[dict[str, Any], dict[str, str]]:
        found = await control.get("/metrics/infrastructure", window=window)
        return found, await name_versions(control, "version")

    found, names = run(work, project)
    if as_json:
        show_json(found)
        return
    before = {
        (item["name"], item["alias"], item["version"]): item["points"] for item in found["series"]
    }
    rows = []
    for item in (*found["machine"], *found["replicas"]):
        points = before.get((item["name"], item["alias"], item["version"]), [])
        trend = draw_bars([point["mean"] for point in points[-_TREND_BARS:]])
        is_share = item["name"].endswith("_usage")
        value = _show_share(item["value"]) if is_share else f"{item['value']:g}"
        version = names.get(item["version"], item["version"])
        rows.append((item["alias"] or "(machine)", version, item["name"], value, trend))
    empty = "Nothing was measured yet: a server looks every few seconds. Start one: pilotage up"
    show_table(("endpoint", "version", "measured", "#now", "before"), rows, empty)

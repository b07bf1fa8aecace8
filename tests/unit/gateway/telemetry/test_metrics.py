"""Metrics of one process: bounded, escaped, and mergeable with those of others."""

import random

from made_calls import make_alias, make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.snapshot import TenantEntry
from pilotage.core.usage import Usage
from pilotage.gateway.call import Call
from pilotage.gateway.telemetry.metrics import (
    EVENTS,
    GAUGES,
    MAX_SERIES,
    MAX_TENANTS,
    Metrics,
    merge,
)


def make_ended(name: str = "acme", model: str = "chat", **more: object) -> Call:
    alias = make_alias(make_arm())
    call = make_call(
        alias if model == "chat" else None,
        view=make_view(alias),
        tenant=TenantEntry(id=f"ten_{name}", name=name, project_id="prj_1"),
    )
    call.arm, call.usage, call.is_sent = make_arm(), Usage(10, 0, 0, 5), True
    call.started_s, call.ended_s = 1.0, 1.5
    for key, value in more.items():
        setattr(call, key, value)
    return call


def count_series(metrics: Metrics) -> int:
    return len(metrics.render("gateway-0").splitlines())


async def test_series_stay_bounded_whatever_calls_say() -> None:
    metrics, dice = Metrics(), random.Random(1)
    for n in range(20_000):
        metrics.note(
            make_ended(f"tenant-{dice.getrandbits(64)}", "chat" if n % 2 else f"model-{n}")
        )
    page = metrics.render("gateway-0")
    assert page.count("pilotage_tenant_calls_total{") == MAX_TENANTS + 1
    assert 'tenant="other"' in page
    assert "model-1" not in page
    assert count_series(metrics) < 400


async def test_arms_without_end_are_counted_together() -> None:
    metrics = Metrics()
    for n in range(MAX_SERIES + 50):
        metrics.note(make_ended(arm=make_arm(f"dep_{n}")))
    page = metrics.render("gateway-0")
    assert page.count("pilotage_calls_total{") == MAX_SERIES + 1
    assert 'arm="other"' in page


async def test_names_cannot_break_the_format() -> None:
    metrics = Metrics()
    metrics.note(make_ended('a"b\\c\nd'))
    page = metrics.render("gateway-0")
    assert r'tenant="a\"b\\c\nd"' in page
    assert all(line.count("{") == 1 for line in page.splitlines())


async def test_overruns_flags_and_refusals_are_counted() -> None:
    metrics = Metrics()
    call = make_ended(flags={Flag.BUDGET_OVERRUN, Flag.RETRIED}, worst_nano=0)
    metrics.note(call)
    refused = make_ended(usage=None, is_sent=False, arm=None)
    refused.outcome, refused.error = Outcome.REFUSED, PilotageError("insufficient_quota")
    metrics.note(refused)
    lines = dict(line.rsplit(" ", 1) for line in metrics.render("s").splitlines())
    assert lines['pilotage_flagged_calls_total{slot="s",flag="retried"}'] == "1"
    assert lines['pilotage_refusals_total{slot="s",code="insufficient_quota"}'] == "1"
    assert float(lines['pilotage_budget_overrun_usd_total{slot="s"}']) == 12_500 / 1e9
    assert lines['pilotage_overhead_seconds_bucket{slot="s",le="+Inf"}'] == "1"


async def test_pages_are_merged_under_one_heading_each() -> None:
    pages = []
    for slot in ("gateway-0", "gateway-1"):
        metrics = Metrics(lambda: [("pilotage_open_calls", (), 3)])
        metrics.note(make_ended())
        pages.append(metrics.render(slot))
    merged = merge(pages).decode()
    assert merged.count("# TYPE pilotage_calls_total counter") == 1
    assert merged.count("pilotage_calls_total{") == 2
    assert merged.count("pilotage_open_calls{") == 2
    assert merged.count("# TYPE gen_ai_client_operation_duration_seconds histogram") == 1
    names = [metric.name for metric in (*EVENTS, *GAUGES)]
    assert len(set(names)) == len(names)

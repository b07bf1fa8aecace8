"""Metrics of one process: bounded, escaped, and mergeable with those of others."""

import random
from typing import Any

import pytest

from exposition import Page
from made_calls import make_alias, make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.snapshot import TenantEntry
from pilotage.core.usage import Usage
from pilotage.gateway.call import Call, Try
from pilotage.gateway.telemetry.metrics import MAX_ROWS, MAX_TENANTS, Metrics, merge
from pilotage.gateway.telemetry.table import TABLE
from pilotage.gateway.wire import anthropic, embeddings, openai

SLOT = "gateway-0"


def make_ended(name: str = "acme", model: str = "chat", **more: object) -> Call:
    alias = make_alias(make_arm())
    call = make_call(
        alias if model == "chat" else None,
        view=make_view(alias),
        tenant=TenantEntry(id=f"ten_{name}", name=name, project_id="prj_1"),
    )
    call.alias_name = model
    call.arm, call.usage, call.is_sent = make_arm(), Usage(10, 0, 0, 5), True
    call.started_s, call.ended_s = 1.0, 1.5
    for key, value in more.items():
        setattr(call, key, value)
    return call


def read(metrics: Metrics) -> Page:
    return Page(metrics.render())


async def test_a_call_is_counted_by_all_that_it_was() -> None:
    metrics = Metrics(SLOT)
    metrics.note(make_ended(waited_s=0.4))
    stream: dict[str, Any] = {"ttft_us": 200_000, "chunks": 4, "waited_s": 0.199}
    metrics.note(make_ended(wire=anthropic.MESSAGES, usage=Usage(1, 2, 3, 4, 5), **stream))
    page = read(metrics)
    whose = {"slot": SLOT, "alias": "chat", "arm": "dep_a"}
    for wire in ("chat", "messages"):
        assert page.total("pilotage_calls_total", wire=wire, outcome="ok", **whose) == 1
    assert page.total("pilotage_cost_usd_total", operation="chat", **whose) == pytest.approx(
        (10 * 500 + 5 * 1500 + 6 * 500 + 9 * 1500) / 1e9
    )
    assert page.total("pilotage_tenant_cost_usd_total", tenant="acme") == pytest.approx(29e-6)
    assert page.total("pilotage_tenant_calls_total", tenant="acme") == 2
    classes = {"input": 11, "cache_read": 2, "cache_write": 3, "output": 9, "reasoning": 5}
    for kind, count in classes.items():
        assert page.total("pilotage_tokens_total", **whose, **{"class": kind}) == count
    what = {**whose, "gen_ai_operation_name": "chat", "gen_ai_provider_name": "pilotage"}
    start = "gen_ai_client_operation_"
    assert page.total(f"{start}duration_seconds_sum", **what) == 1.0
    assert page.total(f"{start}duration_seconds_bucket", le="0.32", **what) == 0
    assert page.total(f"{start}duration_seconds_bucket", le="0.64", **what) == 2
    assert page.total(f"{start}time_to_first_chunk_seconds_sum", **what) == 0.2
    assert page.total(f"{start}time_per_output_chunk_seconds_sum", **what) == pytest.approx(0.1)
    usage = "gen_ai_client_token_usage"
    assert page.total(f"{usage}_sum", gen_ai_token_type="input", **what) == 16
    assert page.total(f"{usage}_sum", gen_ai_token_type="output", **what) == 14
    assert page.total(f"{usage}_bucket", gen_ai_token_type="output", le="4", **what) == 0
    assert page.total("pilotage_overhead_seconds_sum", reply="plain") == pytest.approx(0.1)
    assert page.total("pilotage_overhead_seconds_sum", reply="stream") == pytest.approx(0.001)


async def test_a_row_says_what_came_after_it_was_shown() -> None:
    metrics = Metrics(SLOT)
    for count in (1, 2, 3):
        metrics.note(make_ended())
        metrics.note(make_ended(wire=embeddings.EMBEDDINGS, arm=make_arm("dep_b")))
        page = read(metrics)
        assert page.total("pilotage_calls_total", wire="chat") == count
        assert page.total("pilotage_calls_total", wire="embeddings", arm="dep_b") == count


async def test_series_stay_bounded_whatever_calls_say() -> None:
    metrics, dice = Metrics(SLOT), random.Random(1)
    call = make_ended()
    alias, wires = call.alias, (openai.CHAT, anthropic.MESSAGES)
    counts = []
    for n in range(100_000):
        name = f"{dice.getrandbits(64):x}"
        call.id, call.key_id, call.user = f"call_{name}", f"key_{name}", f"user-{name}"
        call.feature = call.purpose = call.alias_name = f"model-{name}"
        call.alias, call.wire = alias if n % 2 else None, wires[n // 2 % 2]
        call.arm = None if call.alias is None else make_arm()
        call.tenant = TenantEntry(id=f"ten_{name}", name=f"tenant-{name}", project_id="prj_1")
        metrics.note(call)
        if n % 10_000 == 9_999:
            counts.append(len(read(metrics).series))
    assert len(set(counts)) == 1
    assert counts[0] < 400
    page = read(metrics)
    assert len(page.values("pilotage_tenant_calls_total", "tenant")) == MAX_TENANTS + 1
    assert page.total("pilotage_tenant_calls_total", tenant="other") == 100_000 - MAX_TENANTS
    assert page.values("pilotage_calls_total", "alias") == {"chat", "unknown"}
    assert page.total("pilotage_calls_total", alias="unknown") == 50_000
    assert "model-" not in metrics.render()


async def test_arms_without_end_are_counted_together() -> None:
    metrics = Metrics(SLOT)
    arms = [make_arm(f"dep_{n}") for n in range(MAX_ROWS + 50)]
    view = make_view(make_alias(*arms))
    for arm in arms:
        metrics.note(make_ended(arm=arm, view=view))
    page = read(metrics)
    assert len(page.values("pilotage_calls_total", "arm")) == MAX_ROWS + 1
    assert page.total("pilotage_calls_total", alias="other", arm="other") == 50
    assert page.total("pilotage_calls_total") == MAX_ROWS + 50


async def test_arms_that_are_gone_make_room() -> None:
    metrics = Metrics(SLOT)
    for n in range(MAX_ROWS):
        metrics.note(make_ended(arm=make_arm(f"dep_{n}")))
    last = make_arm("dep_9")
    metrics.note(make_ended(arm=make_arm("new"), view=make_view(make_alias(last))))
    assert read(metrics).values("pilotage_calls_total", "arm") == {"dep_9", "new"}


async def test_names_cannot_break_the_format() -> None:
    metrics = Metrics(SLOT)
    metrics.note(make_ended('a"b\\c\nd'))
    assert read(metrics).values("pilotage_tenant_calls_total", "tenant") == {r"a\"b\\c\nd"}


async def test_overruns_flags_refusals_and_failed_attempts_are_counted() -> None:
    metrics = Metrics(SLOT)
    tries = [Try("dep_a", 1.0, 0.1, "upstream_error"), Try("dep_b", 1.1, 0.1, "deadline")]
    call = make_ended(flags={Flag.BUDGET_OVERRUN, Flag.RETRIED}, worst_nano=0, tries=tries)
    call.attempts = 3
    metrics.note(call)
    refused = make_ended(usage=None, is_sent=False, arm=None)
    refused.outcome, refused.error = Outcome.REFUSED, PilotageError("insufficient_quota")
    metrics.note(refused)
    page = read(metrics)
    assert page.total("pilotage_flagged_calls_total", flag="retried") == 1
    assert page.total("pilotage_refusals_total", code="insufficient_quota") == 1
    assert page.total("pilotage_refusals_total") == 1
    assert page.total("pilotage_budget_overrun_usd_total") == pytest.approx(12_500 / 1e9)
    assert page.total("pilotage_overhead_seconds_count") == 1
    assert page.total("pilotage_further_attempts_total") == 2
    assert page.total("pilotage_failed_attempts_total", arm="dep_b", code="deadline") == 1
    assert page.total("pilotage_failed_attempts_total") == 2
    assert page.total("pilotage_calls_total", arm="", outcome="refused") == 1


async def test_pages_are_merged_under_one_heading_each() -> None:
    pages = []
    for slot in ("gateway-0", "gateway-1"):
        metrics = Metrics(slot, lambda: [("pilotage_open_calls", (), 3)])
        metrics.note(make_ended())
        pages.append(metrics.render())
    merged = Page(merge(["", *pages]).decode())
    assert merged.total("pilotage_calls_total", slot="gateway-0") == 1
    assert merged.total("pilotage_calls_total") == 2
    assert merged.total("pilotage_open_calls") == 6
    assert merged.kinds["gen_ai_client_operation_duration_seconds"] == "histogram"
    assert len(merged.series) == sum(len(Page(page).series) for page in pages)


def test_names_say_what_they_are() -> None:
    assert len({metric.name for metric in TABLE}) == len(TABLE)
    for metric in TABLE:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.bounds) == (metric.kind == "histogram"), metric.name
        assert list(metric.bounds) == sorted(set(metric.bounds)), metric.name
        assert metric.help.endswith((".", "...")), metric.name
        assert "slot" not in metric.labels

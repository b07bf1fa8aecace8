"""Metrics at the control API: from a spool to the numbers, and what cannot be asked for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calls import make_call, open_writer, put_calls
from control_api import Api, Json, open_api
from pilotage.core.frames import Outcome
from pilotage.monitoring.rollups import service
from system import poll

REFUSED = {
    "window=1x": "window",
    "window=1h&since=2026-01-01": "window",
    "since=yesterday": "since",
    "since=1969-12-31": "since",
    "since=2026-01-02&until=2026-01-01": "since",
    "by=weather": "by",
    "where=weather=fine": "where",
    "where=alias": "where",
    "where=alias=%00": "where",
    "where=project=other": "where",
    "after=nonsense": "after",
    'after=["a","b"]': "after",
}
REFUSED_STEPS = ("step=30s", "step=90s", "step=x", "step=1m&window=30d")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "data") as opened:
        yield opened


async def test_calls_become_metrics(api: Api) -> None:
    await count_calls(api)

    (chat, code) = (await api.show("/metrics", by="alias,arm"))["items"]
    assert chat["groups"] == {"alias": "chat", "arm": "stable"}
    assert (chat["calls"], chat["errors"], chat["error_rate"]) == (4, 1, 0.25)
    assert chat["duration"]["p95_s"] == pytest.approx(0.4, rel=0.01)
    assert chat["duration"]["mean_s"] == pytest.approx(0.25)
    assert (chat["input_tokens"], chat["output_tokens"], chat["cost_usd"]) == (40, 80, "0.000004")
    assert code["codes"] == {"rate_limited": 1}
    assert (code["error_rate"], code["refusal_rate"]) == (None, 1)
    assert code["duration"]["p50_s"] is code["duration"]["mean_s"] is None

    (tenant,) = (await api.show("/metrics", by="tenant", where="tenant=acme,alias=chat"))["items"]
    assert tenant["calls"] == 1
    page = await api.show("/metrics", limit=1)
    rest = await api.show("/metrics", limit=1, after=page["next"])
    assert [item["groups"]["alias"] for item in (*page["items"], *rest["items"])] == [
        "chat",
        "code",
    ]
    assert rest["next"] is None


async def test_metrics_over_time(api: Api) -> None:
    await count_calls(api)

    found = await api.show("/metrics/series", by="", window="3h", step="1h")
    (series,) = found["items"]
    assert found["step_s"] == 3600
    assert sum(point["calls"] for point in series["points"]) == 5
    by_itself = await api.show("/metrics/series", window="6h")
    assert by_itself["step_s"] == 360


@pytest.mark.parametrize("path", ["/metrics", "/metrics/series"])
async def test_an_ask_for_too_much_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    await count_calls(api)
    monkeypatch.setattr(service, "MOST_READ", 1)
    refused = await api.http.get(path, params={"by": "alias"})
    assert (refused.status_code, refused.json()["code"]) == (400, "query_too_large")
    assert (await api.show(path, by="", where="alias=code"))["items"]


async def test_a_machine_says_what_it_is_used_to(api: Api) -> None:
    def is_read(found: Json) -> bool:
        return bool(found["machine"])

    found = await poll(lambda: api.show("/metrics/infrastructure"), is_read)
    shares = {item["name"]: item["value"] for item in found["machine"]}
    assert 0 < shares["memory_usage"] < 1
    assert found["replicas"] == []


async def test_what_cannot_be_asked_for_is_said(api: Api) -> None:
    for query, param in REFUSED.items():
        await refuse(api, f"/metrics?{query}", param)
    for query in REFUSED_STEPS:
        await refuse(api, f"/metrics/series?{query}", "step")
    await refuse(api, "/metrics/infrastructure?step=5m", "step")
    await refuse(api, "/metrics/infrastructure?window=x", "window")
    await refuse(api, "/metrics/infrastructure?window=30d", "window")


async def refuse(api: Api, path: str, param: str) -> None:
    reply = await api.http.get(path)
    assert reply.status_code == 400, reply.text
    assert (reply.json()["code"], reply.json()["param"]) == ("invalid_request", param)
    assert reply.json()["detail"]


async def count_calls(api: Api) -> None:
    """Put the calls of two endpoints into a spool, and wait until they are counted."""
    acme = await api.make("/tenants", {"name": "acme"})
    now_us = api.clock.now_us()
    mine = {"project_id": acme["project_id"], "at_us": now_us}
    calls = [
        make_call(**mine, duration_us=100_000),
        make_call(**mine, duration_us=200_000),
        make_call(**mine, duration_us=300_000, outcome=Outcome.UPSTREAM_CUT),
        make_call(**mine, duration_us=400_000, tenant_id=acme["id"]),
        make_call(
            **mine, alias="code", arm="", outcome=Outcome.REFUSED, code="rate_limited", cost_nano=0
        ),
        make_call(**mine, flags=["shadow"]),
        make_call(at_us=now_us, project_id="prj_other"),
    ]
    with open_writer(api.folder.spool) as spool:
        put_calls(spool, calls)
    await poll(lambda: api.show("/metrics"), lambda found: len(found["items"]) == 2)

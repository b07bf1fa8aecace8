"""Alert rules, objectives and alerts through the control API of a whole installation."""

from pathlib import Path

from control_api import Api, Json, open_api
from system import poll

FIELDS: Json = {"metric_name": "latency_p95", "comparison": "gt", "threshold": 500}


async def check(api: Api, body: Json) -> Json:
    """Look at a condition once the rollups are there."""
    return await api.make("/alert-rules:check", body)


async def test_a_rule_is_set_looked_at_fires_and_is_over_when_it_is_gone(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        made = await api.make("/alert-rules", FIELDS | {"name": "slow", "severity": "error"})
        assert made["condition"] == "p95_latency > 0.5s"
        assert made["metric_type"] == "performance"
        body = {"condition": 'absent(request_count{alias="nobody"})', "keep_firing_for": "0s"}
        await api.make("/alert-rules", body | {"name": "silent"})

        (alert,) = (await poll(lambda: api.show("/alerts"), lambda seen: bool(seen["items"])))[
            "items"
        ]
        rule = await api.show("/alert-rules/silent")
        await api.http.delete("/alert-rules/silent", headers={"if-match": "*"})
        over = await poll(
            lambda: api.show(f"/alerts/{alert['id']}"), lambda seen: seen["state"] == "resolved"
        )

        assert (alert["rule"], alert["state"]) == ("silent", "firing")
        assert alert["labels"] == {"alias": "nobody"}
        assert rule["look"]["holds"] == [{"labels": {"alias": "nobody"}, "value": 1.0}]
        assert over["resolved_at"] >= over["fired_at"]
        assert (await api.show("/alerts", state="resolved", rule="silent"))["items"] == [over]


async def test_a_condition_is_tried_and_nothing_is_kept(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        held = await check(api, {"condition": "absent(request_count) for 5m"})
        not_held = await check(api, {"condition": "daily_cost>budget*1.2"})

        assert held["holds"] == [{"labels": {}, "value": 1.0}]
        assert (held["for_seconds"], held["metrics"]) == (300.0, ["request_count"])
        assert (not_held["condition"], not_held["holds"]) == ("daily_cost > budget * 1.2", [])
        assert not_held["metric_type"] == "cost"
        assert (await api.show("/alerts"))["items"] == []


REFUSED: list[tuple[Json, str]] = [
    ({}, "condition"),
    ({"condition": "error_rate > 1%"} | FIELDS, "condition"),
    ({"condition": "p95_latncy > 2s"}, "condition"),
    ({"metric_name": "latency_p95"}, "threshold"),
    ({"metric_name": "latncy", "threshold": 1}, "metric_name"),
    (FIELDS | {"comparison": "about"}, "comparison"),
    ({"condition": "error_rate > 1%", "keep_firing_for": "soon"}, "keep_firing_for"),
    ({"condition": "error_rate > 1%", "labels": {"severity": "a"}}, "labels"),
]


async def test_what_makes_no_rule_is_refused_by_the_name_of_the_field(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        for body, param in REFUSED:
            reply = await api.http.post("/alert-rules", json=body | {"name": "a"})
            assert (reply.status_code, reply.json()["param"]) == (400, param), body


async def test_an_objective_says_how_it_is_kept_and_is_exported(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        await api.make("/slos", {"name": "chat", "objective": "99.9", "team": "ops"})
        quick = {"name": "quick", "objective": "90", "indicator": "latency", "threshold": "2s"}
        await api.make("/slos", quick)
        status = await api.show("/slos/chat/status")
        exported = await api.show("/alert-rules:export")

    assert [item["window"] for item in status["windows"]] == [
        *("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"),
    ]
    assert {item["burn_rate"] for item in status["windows"]} == {None}
    assert status["budget_left"] is None
    (group,) = exported["groups"]
    assert group["name"] == "pilotage-default"
    assert len(group["rules"]) == 7  # of 90 % the fastest could never fire
    first = group["rules"][0]
    assert first["labels"] == {
        "project": "default",
        "severity": "critical",
        "team": "ops",
        "urgency": "page",
    }

"""Rollouts over the control API: the whole way, with what counts calls behind it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_api import Api, Json, open_api
from system import poll

OLD, NEW = "openai/old", "openai/new"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "data") as opened:
        upstream = {"name": "openai", "provider": "openai", "base_url": "https://api.openai.com/v1"}
        await opened.make("/upstreams", upstream)
        await opened.make("/endpoints", {"name": "chat"})
        for model in ("old", "new"):
            body = {"model": model, "upstream": "openai"}
            await opened.make("/endpoints/chat/deployments", body)
            await opened.make("/prices", {"subject": model, "input": "1", "output": "2"})
        yield opened


async def begin(api: Api, state: str, **more: object) -> Json:
    """Begin a rollout and wait until it stands somewhere."""
    body = {"endpoint": "chat", "candidate": NEW, "reason": "June", **more}
    rollout = await api.make("/rollouts", body)
    return await wait(api, str(rollout["id"]), state)


async def wait(api: Api, rollout_id: str, state: str) -> Json:
    return await poll(
        lambda: api.show(f"/rollouts/{rollout_id}"), lambda shown: shown["state"] == state
    )


async def show_shares(api: Api) -> dict[str, float]:
    shown = await api.show("/endpoints/chat")
    return {item["model"]: item["percent"] for item in shown["deployments"]}


async def test_a_switch_is_kept_and_switched_back(api: Api) -> None:
    kept = await begin(api, "keeping", strategy="blue_green", keep_warm="1h")
    assert kept["percent"] == 100
    assert await show_shares(api) == {OLD: 0, NEW: 100}
    back = await api.make(f"/rollouts/{kept['id']}:rollback", {"reason": "complaints"})
    assert (back["state"], back["said"]) == ("rolled_back", "complaints")
    assert await show_shares(api) == {OLD: 100, NEW: 0}


async def test_a_canary_is_steered_by_people_and_its_record_answers(api: Api) -> None:
    steps = [{"weight": "5%", "at_most": "2h"}, {"weight": "50%", "approval": True}]
    first = await begin(api, "running", steps=steps, gates={"latency": None})
    assert (first["step"], first["percent"]) == (0, 5)
    assert sorted(first["plan"]["gates"]) == ["error", "lost"]
    one = f"/rollouts/{first['id']}"
    held = await api.make(f"{one}:hold", {"reason": "lunch"})
    assert held["state"] == "held"
    assert (await api.make(f"{one}:resume", {"reason": "back"}))["state"] == "running"
    second = await api.make(f"{one}:promote", {"reason": "urgent", "step": 0})
    assert (second["step"], await show_shares(api)) == (1, {OLD: 50, NEW: 50})
    late = await api.http.post(f"{one}:promote", json={"reason": "urgent", "step": 0})
    assert (late.status_code, late.json()["param"]) == (409, "step")
    done = await api.make(f"{one}:promote", {"reason": "urgent", "to_end": True})
    assert (done["state"], done["percent"]) == ("promoted", 100)
    assert done["ended_at"]

    looks = await api.show(f"{one}/looks")
    assert looks["items"][0]["gates"][0]["gate"] == "error"
    listed = await api.show("/rollouts", endpoint="chat", state="promoted")
    assert [item["id"] for item in listed["items"]] == [first["id"]]

    decision = await api.show(f"/decisions/{first['decision_id']}")
    answers = {item["question"]: " ".join(item["lines"]) for item in decision["answers"]}
    assert "canary" in answers["How is it deployed?"]
    assert f"endpoints split chat {OLD}=100" in answers["How do we roll back?"]
    assert "No fact recorded" not in answers["How do we roll back?"]
    kinds = [fact["kind"] for fact in decision["facts"]]
    assert kinds.count("weights") == 3
    assert kinds.count("intervention") == 2
    ending = [kind for kind in kinds if kind != "cost"]  # that is added up a moment later
    assert ending[-3:] == ["outcome", "rollback", "intervention"]


async def test_a_plan_is_shown_and_what_is_wrong_with_one_is_named(api: Api) -> None:
    ask = {"endpoint": "chat", "candidate": NEW}
    plan = await api.make("/rollouts:plan", ask | {"steps": [{"weight": "50%"}]})
    assert [item["gate"] for item in plan["forecasts"]] == ["error", "lost"]
    assert any("Nothing is known" in text for text in plan["advice"])
    assert (await api.show("/rollouts"))["items"] == []
    for wrong, param in (
        ({"steps": [{"weight": "50%"}, {"weight": "5%"}]}, "steps"),
        ({"gates": {"error": {"margin": "much"}}}, "gates.error.margin"),
        ({"strategy": "shadow"}, "daily"),
        ({"candidate": "openai/none"}, "candidate"),
    ):
        reply = await api.http.post("/rollouts:plan", json=ask | wrong)
        assert reply.status_code in (400, 404)
        assert reply.json()["param"] == param
    reply = await api.http.post("/rollouts", json=ask)
    assert (reply.status_code, reply.json()["param"]) == (400, "reason")

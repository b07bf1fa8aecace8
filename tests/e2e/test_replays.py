"""Calls that are kept, replayed against deployments without traffic: with real processes."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from faulty_upstream import FaultyUpstream, Plan
from pilotage.core.errors import PilotageError
from pilotage.rollouts.replay.rules import is_whole
from pilotage.rollouts.replay.types import Measure, Report
from pilotage.sdk.control import ControlClient
from system import System, add_model, ask, poll, running, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECRET = "Zebrafink"
ADDRESS = "zoe.zebrafink@example.org"
CARD = "4111 1111 1111 1111"
CALLS = 60
BAD_OF_16 = 3  # of the candidate's answers are empty


@dataclass(kw_only=True)
class Deterministic(FaultyUpstream):
    """A model server whose answer depends on the words alone, and is empty for some of them."""

    bad_of_16: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)

    def plan(self, body: object) -> Plan:
        """Return the answer to a request."""
        assert isinstance(body, dict)
        self.asked.append(body)
        words = json.dumps(body["messages"], sort_keys=True).encode()
        digest = hashlib.sha256(words).hexdigest()
        is_bad = int(digest[0], 16) < self.bad_of_16
        return Plan(text=" " if is_bad else f"It| is| {SECRET}| {digest}", completion_tokens=9)


@dataclass(frozen=True, slots=True)
class World:
    """An installation with two models, the second one without traffic, and kept calls."""

    system: System
    control: ControlClient
    candidate: Deterministic

    async def replay(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        body = {"endpoint": "chat", "candidate": "new/fresh", **more}
        started = await self.control.post("/replays", body)
        ended = await self.control.finish(started)
        result: dict[str, Any] = await self.control.get(f"/replays/{ended['replay']}")
        return result


@asynccontextmanager
async def open_world(path: Path, provider: str = "openai") -> AsyncIterator[World]:
    async with Deterministic() as old, Deterministic(bad_of_16=BAD_OF_16) as new:
        allowed = f"127.0.0.1:{old.port}, 127.0.0.1:{new.port}"
        async with (
            running(path, PILOTAGE_EGRESS_ALLOW=allowed) as system,
            system.control() as control,
        ):
            await control.post("/endpoints", {"name": "chat"})
            for name, model, server in (("old", "steady", old), ("new", "fresh", new)):
                address = {"provider": provider, "base_url": f"{server.url}/v1"}
                await control.post("/upstreams", {"name": name, **address})
                await control.post("/prices", {"subject": model, "input": "1", "output": "4"})
                deployed = {"model": model, "upstream": name}
                await control.finish(await control.post("/endpoints/chat/deployments", deployed))
            await keep_calls(control)
            yield World(system, control, new)


async def keep_calls(control: ControlClient) -> None:
    """Have every call of the default tenant be kept."""
    tenant = await control.get("/tenants/default")
    settings = {"data_class": tenant["data_class"], "sample_percent": 100}
    await control.put("/tenants/default", settings, rev=tenant["rev"])


async def call(system: System, control: ControlClient, count: int, **more: Any) -> None:  # noqa: ANN401
    """Make calls with something personal in them, and wait until they are kept."""

    async def count_kept() -> int:
        found = await control.get("/samples", endpoint="chat")
        return sum(item["samples"] for item in found["items"])

    async with system.http() as http:
        for number in range(1, count + 1):
            told = f"Question {number}: {ADDRESS} of {SECRET} paid with {CARD}."
            reply = await http.post("/v1/chat/completions", json=ask("chat", told, **more))
            assert reply.status_code == 200, reply.text
            if number % 15 == 0 or number == count:  # so many of a second are kept
                await poll(count_kept, number.__le__)


async def run_cli(system: System, *arguments: str) -> str:
    """Run a command of ``pilotage replay`` and return what it has said."""
    log = system.folder.path.with_name(f"{system.folder.path.name}.replay.log")
    before = log.read_text() if log.exists() else ""
    process = await system.run("replay", *arguments)
    code, said = await process.wait(), log.read_text().removeprefix(before)
    assert code == 0, said
    return said


def find_files_with(folder: Path, text: str) -> list[Path]:
    """Return the files of an installation that hold a text as it is."""
    found, read = [], 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # one that is written under another name at first
            if path.is_file():
                read += 1
                found += [path] if text.encode() in path.read_bytes() else []
    assert read
    return found


async def test_a_worse_candidate_is_found_before_it_has_any_traffic(tmp_path: Path) -> None:
    async with open_world(tmp_path / "data") as world:
        await call(world.system, world.control, CALLS)
        for raw in (ADDRESS, SECRET, CARD):
            assert find_files_with(tmp_path / "data", raw) == []
        assert world.candidate.asked == []

        first = await world.replay()
        asked = list(world.candidate.asked)
        second = await world.replay()

        report = msgspec.convert(first["report"], type=Report)
        found = report.measures[Measure.USABLE]
        print(f"{report.pairs} pairs, {found}, {report.verdict}")
        assert is_whole(report)
        assert first["hash"] == second["hash"] == report.hash
        assert (report.pairs, report.verdict, dict(report.left_out)) == (CALLS, "worse", {})
        assert found.baseline == 1.0
        assert found.high < 0
        assert len(asked) == CALLS
        assert {(one["temperature"], one["seed"]) for one in asked} == {(0, 0)}
        words = json.dumps(asked)
        assert ADDRESS not in words
        assert CARD not in words
        assert "<EMAIL_1>" in words
        assert find_files_with(tmp_path / "data", SECRET) == []

        said = await run_cli(world.system, "start", "chat", "new/fresh", "--samples", "30")
        assert "new/fresh is" in said
        assert "30\n" in said
        shown = await run_cli(world.system, "show", first["id"])
        assert "new/fresh is worse than the baseline." in shown
        assert first["hash"] in shown

        other = await world.replay(seed=5)
        assert other["hash"] != first["hash"]
        capped = await world.replay(max_cost="0.001")
        left = capped["report"]["left_out"]["beyond the cost cap"]
        spent = capped["report"]["baseline_nano"] + capped["report"]["candidate_nano"]
        print(f"cap 0.001 USD: {capped['report']['pairs']} pairs, {spent} nano-USD, {left} left")
        assert 0 < spent <= 1_000_000
        assert capped["report"]["pairs"] + left == CALLS


async def test_a_wire_without_a_seed_is_asked_without_one(tmp_path: Path) -> None:
    async with open_world(tmp_path / "data", "anthropic") as world:
        await call(world.system, world.control, 10)
        replay = await world.replay(seed=5)
        report = msgspec.convert(replay["report"], type=Report)
        assert (report.pairs, report.baseline_failed, report.candidate_failed) == (10, 0, 0)
        assert report.measures[Measure.USABLE].baseline == 1.0
        assert len(world.candidate.asked) == 10
        assert not any("seed" in asked for asked in world.candidate.asked)


async def test_what_a_real_engine_answers_twice_is_evidence_for_gates(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    async with running(tmp_path / "data") as system, system.control() as control:
        versions = [await add_model(control, tiny_gguf, "tiny", f"1.{n}.0") for n in range(2)]
        await serve(control, "chat", *versions)
        await keep_calls(control)
        await call(system, control, 30, temperature=0)
        body = {"endpoint": "chat", "candidate": "tiny@1.1.0", "margin": "0.2"}
        replays = []
        for _ in range(2):
            ended = await control.finish(await control.post("/replays", body))
            replays.append(await control.get(f"/replays/{ended['replay']}"))
        first, second = replays
        report = first["report"]
        print(f"{report['pairs']} pairs, {report['verdict']}, {report['hash'][:16]}")
        assert first["hash"] == second["hash"]
        assert report["measures"]["usable"]["difference"] == 0.0
        page = await control.get("/models/tiny/versions/1.1.0/evidence", kind="replay")
        [evidence] = page["items"]
        assert (evidence["hash"], evidence["n"]) == (second["hash"], report["pairs"])
        assert (report["verdict"], evidence["passed"]) == ("not_worse", True)
        calls = await control.get("/replays", endpoint="chat")
        assert [item["id"] for item in calls["items"]] == [one["id"] for one in replays]


async def test_production_can_ask_for_a_replay(tmp_path: Path, tiny_gguf: Path) -> None:
    async with running(tmp_path / "data") as system, system.control() as control:
        versions = [await add_model(control, tiny_gguf, "tiny", f"1.{n}.0") for n in range(2)]
        await serve(control, "chat", *versions)
        await keep_calls(control)
        await call(system, control, 30, temperature=0)
        candidate = "/models/tiny/versions/1.1.0"
        asked_for = {"name": "replay", "min": "-0.4", "min_n": 30, "max_age_days": 1}
        await control.put("/gate-policies/production", {"checks": [asked_for], "approvals": 1})
        await control.post(f"{candidate}:promote", {"stage": "staging"})
        await approve(system, control, "registry.version.promote:production", "tiny@1.1.0")

        async def assess() -> dict[str, Any]:
            found = await control.get(f"{candidate}:assess", stage="production")
            gate: dict[str, Any]
            [gate] = [each for each in found["gates"] if each["name"] == "replay"]
            return gate

        missing = await assess()
        assert missing["state"] == "not_evaluated"
        assert missing["command"] == "pilotage replay start ENDPOINT tiny@1.1.0 --measure usable"
        with pytest.raises(PilotageError, match="there is no evidence replay") as refused:
            await control.post(f"{candidate}:promote", {"stage": "production"})
        assert refused.value.code == "gate_failed"

        said = await run_cli(system, "start", "chat", "tiny@1.1.0", "--margin", "0.2")
        assert "tiny@1.1.0 is not worse" in said
        passed = await assess()
        print(f"replay: {passed['value']}, asked for {passed['threshold']}")
        assert passed["state"] == "passed"
        promoted = await control.post(f"{candidate}:promote", {"stage": "production"})
        assert promoted["stage"] == "production"


async def approve(system: System, control: ControlClient, action: str, subject: str) -> None:
    """Have somebody ask for an agreement, and somebody else agree."""
    body = {"action": action, "subject": subject, "reason": "June"}
    asked = await act_as(system, control, "ml_engineer", "/approvals", body)
    vote = {"verdict": "approve", "reason": "read the report"}
    await act_as(system, control, "approver", f"/approvals/{asked['id']}/votes", vote)


async def act_as(
    system: System, control: ControlClient, role: str, path: str, body: dict[str, str]
) -> dict[str, Any]:
    """Have somebody do something who has a role for it; return the answer."""
    name = role.replace("_", "-")
    await control.post("/principals", {"name": name})
    await control.post("/role-bindings", {"principal": name, "role": role})
    made = await control.post(f"/principals/{name}/credentials", {})
    headers = {"authorization": f"Bearer {made['secret']}", "x-pilotage-reason": "asked"}
    async with httpx.AsyncClient(
        base_url=system.server.control_url, headers=headers, trust_env=False
    ) as http:
        done = await http.post(f"/api/v1{path}", json=body)
        assert done.is_success, done.text
        answer: dict[str, Any] = done.json()
    return answer


async def test_copies_are_compared_with_the_calls_that_they_are_of(tmp_path: Path) -> None:
    async with open_world(tmp_path / "data") as world:
        control = world.control
        shadow = {"deployment": "new/fresh", "percent": 100, "daily_usd": 1, "concurrency": 20}
        await control.put("/endpoints/chat/routing", {"shadow": shadow})
        async with world.system.http() as http:
            for number in range(20):
                body = ask("chat", f"Question {number} of {SECRET}")
                assert (await http.post("/v1/chat/completions", json=body)).status_code == 200

        async def read() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = (await control.get("/comparisons"))["items"]
            return items

        [found] = await poll(read, lambda items: sum(item["pairs"] for item in items) >= 20)
        print(f"{found['pairs']} pairs: exact {found['exact']}, mark {found['mark']}")
        assert (found["endpoint"], found["rollout"], found["pairs"]) == ("chat", "", 20)
        assert 0.5 < found["exact"] == 1 + found["mark"] < 1
        assert found["exact"] <= found["similarity"] < 1
        assert -0.5 < found["mark"] < 0
        assert found["low"] <= found["mark"] <= found["high"]
        assert found["candidate_nano"] > 0
        assert found["baseline_ms"] > 0
        assert find_files_with(tmp_path / "data", SECRET) == []


async def test_a_killed_gateway_does_not_forget_what_copies_cost_today(tmp_path: Path) -> None:
    async with open_world(tmp_path / "data") as world:
        system, control = world.system, world.control
        shadow = {"deployment": "new/fresh", "percent": 100, "daily_usd": "0.001"}
        await control.put("/endpoints/chat/routing", {"shadow": shadow})
        made = []
        for _ in range(2):
            async with system.http() as http:
                for number in range(40):
                    body = ask("chat", f"Question {number}")
                    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
            gateway = system.child("pilotage.runtime.gateway")
            gateway.kill()
            await system.replaced(gateway, "pilotage.runtime.gateway")
            await system.wait_ready()
            made.append(len(world.candidate.asked))

        async def read() -> dict[str, int]:
            items = (await control.get("/usage", by="tenant"))["items"]
            copies = [one for one in items if one["groups"]["tenant"] == "shadow"]
            return {name: sum(one[name] for one in copies) for name in ("calls", "cost_nano")}

        usage = await poll(read, lambda found: found["calls"] >= made[1])
        print(f"{made} copies, {usage}")
        assert 2 < made[0] < 40
        assert made[1] - made[0] < made[0] / 2
        assert usage["cost_nano"] <= 1_000_000


async def test_of_an_erased_tenant_nothing_can_be_replayed(tmp_path: Path) -> None:
    async with open_world(tmp_path / "data") as world:
        control = world.control
        await control.post("/tenants", {"name": "acme", "sample_percent": 100})
        key = await control.post("/keys", {"tenant": "acme", "name": "ci"})
        async with httpx.AsyncClient(
            base_url=world.system.server.gateway_url,
            headers={"authorization": f"Bearer {key['secret']}"},
            trust_env=False,
        ) as http:
            for number in range(3):
                body = ask("chat", f"{number} {SECRET}")
                assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        await poll(
            lambda: control.get("/samples", endpoint="chat"),
            lambda found: sum(one["samples"] for one in found["items"]) == 3,
        )
        await act_as(world.system, control, "security", "/tenants/acme:erase", {})
        assert (await control.get("/samples"))["items"] == []
        body = {"endpoint": "chat", "candidate": "new/fresh"}
        started = await control.post("/replays", body)
        ended = await poll(
            lambda: control.get(f"/operations/{started['id']}"),
            lambda found: found["state"] != "running",
        )
        assert (ended["state"], ended["error"]["code"]) == ("failed", "conflict")

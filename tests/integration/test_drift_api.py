"""Drift, references, feedback and quality at the control API and the command line."""

import asyncio
from pathlib import Path

import pytest

from command_line import CommandLine
from control_api import Api, open_api, put_measures, put_opinion
from pilotage.identity.types import Role
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import SYSTEM
from pilotage.kit.outbox import read_revisions
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.sealing import post
from pilotage.kit.secrets import Vault
from pilotage.monitoring.drift.rules import floor
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import AnswerKey, Held, Measure, Place
from pilotage.monitoring.quality.types import COMMENT


async def count_later(api: Api, values: range) -> None:
    """Count calls of the running half hour."""
    project = await api.show("/projects/default")
    held = Held()
    for value in values:
        held.numbers.add(value)
    key = AnswerKey(project["id"], "chat", "ver_of_tiny@1.0.0", "tiny@1.0.0")
    place = Place(key, Measure.DURATION, floor(api.clock.now_us()))
    async with api.db.write(SYSTEM) as tx:
        await DriftService(api.clock).record(tx, {place: held})


async def test_a_reference_is_frozen_and_a_shift_is_shown(tmp_path: Path) -> None:
    async with open_api(tmp_path, "sqlite") as api:
        await put_measures(api, "tiny@1.0.0")
        of = {"endpoint": "chat", "model": "tiny@1.0.0"}
        reference = await api.make("/drift-references", of)
        assert (reference["rev"], reference["is_automatic"]) == (1, False)
        [frozen] = reference["measures"]
        assert (frozen["measure"], frozen["n"]) == ("duration", 1000)
        [before] = (await api.show("/drift", endpoint="chat"))["items"]
        assert (before["measures"], before["shift"], before["is_shifted"]) == ([], None, False)
        await count_later(api, range(900, 1300))
        [after] = (await api.show("/drift", endpoint="chat"))["items"]
        [moved] = after["measures"]
        assert (moved["n"], moved["m"], moved["is_shifted"]) == (400, 1000, True)
        assert moved["psi"] > moved["psi_limit"]
        assert moved["subject"] == "speed"
        assert after["shift"] is None  # of answers nothing was counted
        again = await api.make("/drift-references", of)
        assert (again["id"], again["rev"]) == (reference["id"], 2)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"endpoint": "chat", "model": "other@1.0.0"}, "not_found", "model"),
        ({"endpoint": "other", "model": "tiny@1.0.0"}, "not_found", "model"),
        ({"endpoint": "chat", "model": "tiny@1.0.0", "since": "soon"}, "invalid_request", "since"),
        (
            {"endpoint": "chat", "model": "tiny@1.0.0", "until": "2026-01-01"},
            "conflict",
            "since",
        ),
    ],
)
async def test_what_cannot_be_frozen_is_refused_by_name(
    tmp_path: Path, body: dict[str, str], code: str, param: str
) -> None:
    async with open_api(tmp_path, "sqlite") as api:
        await put_measures(api, "tiny@1.0.0")
        refused = (await api.http.post("/drift-references", json=body)).json()
    assert (refused["code"], refused["param"]) == (code, param)


async def test_quality_is_absent_until_somebody_says_something(tmp_path: Path) -> None:
    async with open_api(tmp_path, "sqlite") as api:
        assert (await api.show("/quality"))["items"] == []
        await put_opinion(api, 1)
        [said] = (await api.show("/feedback"))["items"]
        assert (said["request_id"], said["score"], said["state"]) == ("call_1", 1.0, "waiting")
        assert (await api.show("/quality"))["items"] == []  # its call is not known
        refused = (await api.http.get("/quality", params={"by": "user"})).json()
        assert (refused["code"], refused["param"]) == ("invalid_request", "by")


async def test_comments_are_for_those_who_may_and_gone_with_their_tenant(tmp_path: Path) -> None:
    async with open_api(tmp_path, "sqlite") as api:
        tenant = await api.show("/tenants/default")
        vault = Vault(open_root_keys(DataFolder(tmp_path).root_keys))
        async with api.db.write(SYSTEM) as tx:
            keys = await vault.get_keys(tx, tenant["id"])
        letter = post(keys.make_letterbox(COMMENT), tenant["id"], "fbk_1", b"too long")
        await put_opinion(api, 1, letter, feedback_id="fbk_1")
        [said] = (await api.show("/feedback"))["items"]
        assert (said["has_comment"], said["comment"]) == (True, None)
        [read] = (await api.show("/feedback", comments="true"))["items"]
        assert read == said | {"comment": "too long"}
        async with api.db.read(SYSTEM) as tx:
            events = [one.event for one in await read_revisions(tx, 0, 1000)]
        assert events.count("monitoring.comments.read") == 1
        viewer = await api.make_viewer()
        headers = {"authorization": f"Bearer {viewer}"}
        seen = await api.http.get("/feedback", headers=headers)
        assert seen.status_code == 200, seen.text
        refused = await api.http.get("/feedback?comments=true", headers=headers)
        assert refused.json()["code"] == "permission_denied"
        security = await api.make_principal("security", Role.SECURITY)
        headers = {"authorization": f"Bearer {security}", "x-pilotage-reason": "asked to"}
        erased = await api.http.post("/tenants/default:erase", json={}, headers=headers)
        assert erased.status_code == 200, erased.text
        [said] = (await api.show("/feedback", comments="true"))["items"]
        assert (said["has_comment"], said["comment"]) == (False, None)


@pytest.mark.parametrize("path", ["/drift", "/drift-references", "/feedback", "/quality"])
async def test_an_endpoint_that_is_none_is_told_of(tmp_path: Path, path: str) -> None:
    async with open_api(tmp_path, "sqlite") as api:
        await api.make("/endpoints", {"name": "chat"})
        assert (await api.show(path, endpoint="chat"))["items"] == []
        refused = await api.http.get(path, params={"project": "default", "endpoint": "caht"})
    assert (refused.status_code, refused.json()["param"]) == (404, "endpoint")
    assert "Did you mean 'chat'?" in refused.json()["hint"]


def test_the_command_line_freezes_shows_and_thaws(tmp_path: Path) -> None:
    async def prepare() -> None:
        async with open_api(pilotage.data, "sqlite") as api:
            await put_measures(api, "tiny@1.0.0")
            await put_opinion(api, 1)

    pilotage = CommandLine(tmp_path)
    asyncio.run(prepare())
    assert "pilotage drift freeze" in pilotage.ok("drift", "show").out
    assert "POST /v1/feedback" in pilotage.ok("quality").out
    refused = pilotage("drift", "freeze", "chat", "tiny@2.0.0")
    assert refused.code == 1
    assert "has answered no calls" in refused.err
    frozen = pilotage.json("drift", "freeze", "chat", "tiny@1.0.0", "--reason", "as it was")
    assert "1,000 values" in pilotage.ok("drift", "reference", frozen["id"]).out
    assert pilotage.json("drift", "reference", frozen["id"]) == frozen
    assert "tiny@1.0.0" in pilotage.ok("drift", "references", "chat").out
    assert "200 calls after it" in pilotage.ok("drift", "show").out
    assert "call_1" in pilotage.ok("feedback", "list").out
    assert "comment" in pilotage.ok("feedback", "list", "--comments").out.splitlines()[0].lower()
    changed = pilotage.ok("tenants", "change", "default", "--keeps-comments").out
    assert "kept" in changed
    assert "dropped" in pilotage.ok("tenants", "change", "default", "--drops-comments").out
    assert pilotage.json("drift", "thaw", frozen["id"]) == {"deleted": frozen["id"]}
    assert pilotage.json("drift", "references") == []

"""Approvals, the calendar and decisions through the control API, with several people."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from control_api import Api, furnish, open_api, put_decision
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import DecisionKind
from pilotage.identity.types import Role
from pilotage.kit.db import Actor
from pilotage.runtime.bundles import verify_bundle

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMOTE = "registry.version.promote:production"


class Office(NamedTuple):
    """An installation, and the credentials of people who work with it."""

    api: Api
    names: dict[str, str]
    people: dict[str, str]

    async def send(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401
        headers = {"authorization": f"Bearer {self.people[who]}"}
        return await self.api.http.request(method, path, headers=headers, **more)

    async def ask(self, who: str, **more: object) -> httpx.Response:
        body = {"action": PROMOTE, "subject": "tiny@1.0.0", "reason": "June"} | more
        return await self.send(who, "POST", "/approvals", json=body)

    async def vote(self, who: str, approval: str, verdict: str) -> httpx.Response:
        body = {"verdict": verdict, "reason": f"{who} looked"}
        return await self.send(who, "POST", f"/approvals/{approval}/votes", json=body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(
    tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path
) -> AsyncIterator[Office]:
    async with open_api(tmp_path_factory.mktemp("installation")) as api:
        names = await furnish(api, tiny_gguf)
        people = {"admin": api.credentials.admin}
        for name, role in (
            ("grace", Role.ML_ENGINEER),
            ("bob", Role.APPROVER),
            ("eve", Role.VIEWER),
            ("ops", Role.ML_OPS),
        ):
            people[name] = await api.make_principal(name, role)
        yield Office(api, names, people)


async def test_four_eyes_through_the_api(office: Office) -> None:
    asked = (await office.ask("grace")).json()
    refused = {
        who: (await office.vote(who, asked["id"], "approve")).json()["detail"]
        for who in ("grace", "admin", "eve")
    }
    approved = await office.vote("bob", asked["id"], "approve")

    assert asked["state"] == "pending"
    assert refused["grace"] == "Whoever asks for an approval cannot give it."
    assert refused["admin"] == "Whoever made tiny@1.0.0 cannot approve it."
    assert "governance.approval.vote" in refused["eve"]
    assert (approved.status_code, approved.json()["state"]) == (201, "approved")
    assert [vote["reason"] for vote in approved.json()["votes"]] == ["bob looked"]
    listed = await office.api.show("/approvals", state="approved")
    assert [item["id"] for item in listed["items"]] == [asked["id"]]
    shown = await office.api.show(f"/approvals/{asked['id']}")
    assert shown["votes"] == approved.json()["votes"]


async def test_an_approval_ends_where_it_is_withdrawn(office: Office) -> None:
    asked = (await office.ask("grace", needed=2, expires_in="1d")).json()

    foreign = await office.vote("ops", asked["id"], "withdraw")
    withdrawn = await office.vote("grace", asked["id"], "withdraw")
    late = await office.vote("bob", asked["id"], "approve")

    assert foreign.json()["code"] == "permission_denied"
    assert withdrawn.json()["state"] == "withdrawn"
    assert (late.status_code, late.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"action": "drop"}, "action"),
        ({"action": "finops.price.set"}, "action"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"expires_in": "365d"}, "expires_in"),
        ({"needed": 0}, "needed"),
        ({"reason": ""}, "reason"),
    ],
)
async def test_a_request_that_cannot_be_is_refused(
    office: Office, more: dict[str, object], param: str
) -> None:
    reply = await office.ask("grace", **more)

    assert (reply.status_code, reply.json()["param"]) == (400, param)


async def test_a_freeze_stops_traffic_and_an_override_is_on_record(office: Office) -> None:
    body = {
        "name": "close",
        "reason": "quarter end",
        "starts_at": "2020-01-01",
        "ends_at": "2020-01-08",
        "repeat": "weekly",
        "override_role": "ml_ops",
        "names": ["chat"],
    }
    made = await office.send("ops", "POST", "/calendar/freezes", json=body)
    assert made.status_code == 201, made.text
    split: dict[str, Any] = {"json": {"split": {"tiny@1.0.0": 100}}}

    frozen = await office.api.http.put("/endpoints/chat/split", headers={"if-match": "*"}, **split)
    taken = await office.send(
        "ops", "POST", "/calendar/freezes/close/overrides", json={"subject": "chat", "reason": "17"}
    )
    ops = {"authorization": f"Bearer {office.people['ops']}", "if-match": "*"}
    passed = await office.api.http.put("/endpoints/chat/split", headers=ops, **split)
    again = await office.api.http.put("/endpoints/chat/split", headers=ops, **split)
    unsaid = await office.send("ops", "DELETE", "/calendar/freezes/close")
    why = {"authorization": ops["authorization"], "x-pilotage-reason": "closed early"}
    lifted = await office.api.http.delete("/calendar/freezes/close", headers=why)

    assert (frozen.status_code, frozen.json()["code"]) == (409, "frozen")
    assert "'close' lasts until" in frozen.json()["detail"]
    assert taken.status_code == 201
    assert passed.is_success, passed.text
    assert again.json()["code"] == "frozen"
    assert (unsaid.status_code, unsaid.json()["param"]) == (400, "reason")
    assert lifted.status_code == 204
    assert lifted.headers["pilotage-decision"].startswith("dec_")
    log = await office.api.show("/intervention-log")
    last, lift = log["items"][-2:]
    assert (lift["what"], lift["reason"]) == ("forced", "closed early")
    assert (last["what"], last["reason"], last["role"]) == ("freeze_override", "17", "ml_ops")
    whole = await office.api.show(f"/decisions/{last['decision_id']}")
    assert whole["kind"] == "split"
    who = next(item for item in whole["answers"] if item["question"] == "Who approved it?")
    assert any("Manual intervention (freeze_override) by ops" in line for line in who["lines"])


async def test_a_weekly_freeze_is_seen_in_its_windows(office: Office) -> None:
    body = {
        "name": "weekends",
        "reason": "nobody is there",
        "starts_at": "2098-01-03T18:00:00+01:00",
        "ends_at": "2098-01-06T07:00:00+01:00",
        "repeat": "weekly",
        "time_zone": "Europe/Berlin",
    }
    await office.send("ops", "POST", "/calendar/freezes", json=body)

    shown = await office.api.show("/calendar/windows", since="2098-04-01", until="2098-04-12")

    assert [item["starts_at"] for item in shown["items"]] == [
        "2098-04-04T16:00:00Z",
        "2098-04-11T16:00:00Z",
    ]


async def test_the_calendar_is_exported(office: Office) -> None:
    reply = await office.send("eve", "GET", "/calendar.ics")

    assert reply.headers["content-type"] == "text/calendar; charset=utf-8"
    assert f"UID:{office.names['release']}@pilotage" in reply.text
    assert reply.text.startswith("BEGIN:VCALENDAR\r\n")


async def test_a_decision_has_a_page_and_a_bundle(office: Office) -> None:
    decision = await put_decision(office.api)
    noted = await office.send(
        "grace", "POST", f"/decisions/{decision}/notes", json={"text": "<b>see</b> the wiki"}
    )
    page = await office.send("eve", "GET", f"/decisions/{decision}/page")
    markdown = await office.send("eve", "GET", f"/decisions/{decision}/page?format=markdown")
    bundle = await office.send("eve", "GET", f"/decisions/{decision}/bundle")

    assert noted.json()["kind"] == "note"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "&lt;b&gt;see&lt;/b&gt; the wiki" in page.text
    assert markdown.text.startswith("# split chat")
    public = bytes.fromhex((office.api.folder.keys / "audit.pub").read_text())
    checks = verify_bundle(bundle.content, public)
    assert all(check.is_good for check in checks), checks
    edited = json.dumps(json.loads(bundle.content)).encode()
    assert not verify_bundle(edited, public)[-1].is_good


async def test_nothing_of_a_decision_is_seen_from_another_project(office: Office) -> None:
    await office.api.make("/projects", {"name": "elsewhere"})
    decision = office.names["decision"]

    for place in ("", "/page", "/bundle"):
        path = f"/decisions/{decision}{place}?project=elsewhere"
        reply = await office.send("admin", "GET", path)
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found"), place
    calendar = await office.send("admin", "GET", "/calendar.ics?project=elsewhere")
    assert "VEVENT" not in calendar.text


async def test_the_deployment_log_has_every_change_in_order(office: Office) -> None:
    every = (await office.api.show("/deployment-log"))["items"]
    seqs = [item["seq"] for item in every]
    first = await office.api.show("/deployment-log", limit=1)
    rest = await office.api.show("/deployment-log", after=first["next"])
    newest = await office.api.show("/decisions", newest=True, limit=1)

    assert seqs == sorted(seqs)
    assert "deploy" in {item["kind"] for item in every}
    assert first["items"] + rest["items"] == every
    assert newest["items"][0]["seq"] == seqs[-1]
    only = await office.api.show("/deployment-log", kind="deploy", subject="chat")
    assert {item["kind"] for item in only["items"]} == {"deploy"}
    assert (await office.api.show("/deployment-log", until="2020-01-01"))["items"] == []


async def test_people_who_are_gone_are_shown_by_their_ids(office: Office) -> None:
    project = await office.api.show("/projects/default")
    actor = Actor(principal_id="usr_gone", project_id=project["id"])
    async with office.api.db.write(actor) as tx:
        service = GovernanceService(office.api.clock, office.api.installation.identity)
        made = await service.record_change(
            tx,
            kind=DecisionKind.ARCHIVE,
            subject_id="ver_1",
            subject="x@1.0.0",
            before=None,
            after=None,
        )

    whole = await office.api.show(f"/decisions/{made.id}")

    assert whole["names"] == {}
    assert whole["answers"][1]["lines"][0].startswith("Made by usr_gone, ")

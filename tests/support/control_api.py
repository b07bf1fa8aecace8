"""The whole control API of an installation in this process, with one object of every kind in it."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import sqlalchemy as sa
from fastapi import FastAPI

from calls import make_call
from notice_cases import furnish_notices
from pilotage.core.frames import Ended, Feedback, Outcome
from pilotage.core.usage import Usage
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.finops.months.store import insert_month
from pilotage.finops.months.types import ClosedMonth
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import SpoolPlace
from pilotage.finops.users import Users
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import DecisionKind
from pilotage.identity.types import EVERYWHERE, PrincipalKind, Role
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock, SystemClock, rfc3339
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.operations import OPERATION, OperationState
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.secrets import Vault
from pilotage.kit.spool_consumer import SpoolBatch
from pilotage.migrations.run import migrate
from pilotage.monitoring.alerts.rules import Move
from pilotage.monitoring.alerts.service import AlertService
from pilotage.monitoring.alerts.types import Alert, AlertState, Severity, Standing
from pilotage.monitoring.drift.rules import SPAN_US, floor
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import AnswerKey, Held, Measure, Place
from pilotage.monitoring.quality.rules import make_opinions
from pilotage.monitoring.quality.store import FEEDBACK, put_opinions
from pilotage.monitoring.quality.types import FeedbackState
from pilotage.monitoring.rollups.rules import add_up
from pilotage.monitoring.rollups.service import RollupService
from pilotage.rollouts.replay.store import insert_replay
from pilotage.rollouts.replay.types import Replay
from pilotage.rollouts.store import find_rollout, insert_look
from pilotage.rollouts.types import Cause, Judgement, Look, Verdict
from pilotage.runtime.credentials import Credentials, read_credentials
from pilotage.runtime.installation import Installation, open_database, open_installation
from pilotage.server.app import PREFIX, make_app
from system import poll
from users_calls import end

Json = dict[str, Any]
COST = {"kind": "network", "cost_usd": "1.5", "start": "2026-03-01", "end": "2026-04-01"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """An open installation and a client of it that may do everything."""

    http: httpx.AsyncClient
    app: FastAPI
    installation: Installation
    folder: DataFolder
    credentials: Credentials
    clock: Clock

    @property
    def routes(self) -> list[Route]:
        """Every route, in the order in which they match."""
        return list(self.installation.routes)

    @property
    def db(self) -> Database:
        """The database behind it."""
        return self.installation.db

    async def make(self, path: str, body: object = None, **more: Any) -> Json:  # noqa: ANN401
        """Create something and return what the reply shows of it."""
        reply = await self.http.post(path, json=body, **more)
        assert reply.status_code in (200, 201, 202), reply.text
        made: Json = reply.json()
        return made

    async def show(self, path: str, **query: object) -> Json:
        """Return what a GET shows."""
        reply = await self.http.get(path, params={name: str(item) for name, item in query.items()})
        assert reply.status_code == 200, reply.text
        shown: Json = reply.json()
        return shown

    async def make_viewer(self) -> str:
        """Return the credential of a principal that may only read."""
        return await self.make_principal("viewer", Role.VIEWER)

    async def make_principal(self, name: str, *roles: Role, scope: str = EVERYWHERE) -> str:
        """Return the credential of a new principal with some roles."""
        principals = self.installation.identity.principals
        async with self.db.write(SYSTEM) as tx:
            made = await principals.create(tx, PrincipalKind.USER, name)
            for role in roles:
                await principals.grant(tx, made.id, role, scope=scope)
            return (await principals.issue(tx, made.id)).secret


@asynccontextmanager
async def open_api(path: Path, database_url: str = "sqlite") -> AsyncIterator[Api]:
    """Open an installation on an empty folder and an empty database."""
    settings = msgspec.convert(
        {"data_dir": str(path), "database": {"url": database_url}}, type=Settings
    )
    folder, clock = DataFolder(path).prepare(), SystemClock()
    if database_url != "sqlite":
        db = open_database(settings, folder, clock)
        await migrate(db)
        await db.close()
    async with open_there(settings) as api:
        yield api


@asynccontextmanager
async def open_there(settings: Settings) -> AsyncIterator[Api]:
    """Open an installation whose database is there already."""
    folder, clock = DataFolder(settings.data_path).prepare(), SystemClock()
    async with open_installation(settings, folder, clock, AbsentFleet()) as installation:
        app = make_app(installation)
        credentials = read_credentials(folder.credentials)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url=f"http://control{PREFIX}",
            headers={"authorization": f"Bearer {credentials.admin}"},
        ) as http:
            yield Api(
                http=http,
                app=app,
                installation=installation,
                folder=folder,
                credentials=credentials,
                clock=clock,
            )


async def put_dataset_version(api: Api, version: str, texts: list[str]) -> Json:
    """Make a version of the dataset ``questions``, a record and a file of each text."""
    files = {}
    for number, text in enumerate(texts):
        line = msgspec.json.encode({"text": text}) + b"\n"
        files[f"{number}.jsonl"] = (await api.make("/blobs", content=line))["sha256"]
    body = {"version": version, "format": "jsonl", "files": {"train": files}}
    started = await api.make("/datasets/questions/versions", body)
    ended = await poll(
        lambda: api.show(f"/operations/{started['id']}"), lambda seen: seen["state"] != "running"
    )
    assert ended["state"] == "succeeded", ended
    return ended


async def furnish(api: Api, gguf: Path) -> dict[str, str]:
    """Make one object of every kind in the default project; return the parameters that name it.

    They are by the names that the paths of routes have; ``ids`` below give the same objects.
    """
    content = gguf.read_bytes()
    artifact = await api.make("/artifacts", content=content)
    assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
    stored = await furnish_files(api, artifact["sha256"])
    project = await api.make("/projects", {"name": "furnished"})
    tenant = await api.make("/tenants", {"name": "acme"})
    key = await api.make("/keys", {"tenant": "acme", "name": "ci"})
    model = await api.make("/models", {"name": "tiny"})
    await api.make(
        "/models/tiny/versions", {"version": "1.0.0", "artifact_sha256": artifact["sha256"]}
    )
    await furnish_prompts(api)
    await api.http.put(
        "/models/tiny/versions/1.0.0/card", json={"limits": "few"}, headers={"if-match": "*"}
    )
    upstream = await api.make(
        "/upstreams",
        {"name": "openai", "provider": "openai", "base_url": "https://api.openai.com/v1"},
    )
    endpoint = await api.make("/endpoints", {"name": "chat"})
    gateway = await api.make("/gateways", {"name": "paris"})
    operation = await api.make("/endpoints/chat/deployments", {"model": "tiny@1.0.0"})
    await api.make("/prices", {"subject": "tiny", "input": "0.5", "output": "1.5"})
    await api.make(
        "/limits",
        {"name": "monthly", "measure": "usd", "amount": "500", "per": "month", "tenant": "acme"},
    )
    (deployment,) = (await api.show("/endpoints/chat"))["deployments"]
    entry = await furnish_costs(api)
    call_id = await put_call(api)
    await put_metrics(api, "furnished")
    governed = await furnish_governance(api)
    people = await furnish_people(api)
    alerts = await furnish_alerts(api)
    noticed = await furnish_notices(api)
    return (
        alerts
        | await furnish_drift(api)
        | governed
        | people
        | noticed
        | stored
        | {
            "rollout": await put_rollout(api, "rolled"),
            "replay": await put_replay(api, 0),
            "project_name": project["name"],
            "tenant": tenant["name"],
            "key": key["id"],
            "model": model["name"],
            "version": "1.0.0",
            "prompt": "greeting",
            "label": "production",
            "other": "1.1.0",
            "sha256": artifact["sha256"],
            "upstream": upstream["name"],
            "endpoint": endpoint["name"],
            "deployment": deployment["id"],
            "operation": operation["id"],
            "limit_name": "monthly",
            "budget_name": "spending",
            "entry": entry["id"],
            "call_id": call_id,
            "month": "2026-03",
            "gateway": gateway["name"],
            "position": "0",
            "stage": "staging",
            "hold": (await api.make("/audit/holds", {"name": "case", "reason": "a letter"}))[
                "name"
            ],
            "tenant_id": tenant["id"],
            "model_id": model["id"],
            "endpoint_id": endpoint["id"],
            "upstream_id": upstream["id"],
        }
    )


async def furnish_prompts(api: Api) -> None:
    """Make a prompt with versions and a label."""
    await api.make("/prompts", {"name": "greeting"})
    for version in ("1.0.0", "1.1.0"):
        hello = {"version": version, "text": "Hello {{ name }}"}
        await api.make("/prompts/greeting/versions", hello)
    await api.http.put(
        "/prompts/greeting/labels/production", json={"version": "1.1.0"}, headers={"if-match": "*"}
    )


async def furnish_files(api: Api, sha256: str) -> dict[str, str]:
    """Make a tree of files, and a dataset with versions and a release."""
    notes = [await api.make("/blobs", content=f"note {number}".encode()) for number in range(5)]
    files = {f"notes/{note['sha256'][:8]}.txt": note["sha256"] for note in notes}
    tree = await api.make("/artifacts:tree", {"files": files | {"tiny.gguf": sha256}})
    dataset = await api.make("/datasets", {"name": "questions"})
    for version in ("1.0.0", "1.1.0"):
        texts = [f"question {number} of {version}" for number in range(6)]
        await put_dataset_version(api, version, texts)
    golden = await api.http.put(
        "/datasets/questions/releases/golden", json={"version": "1.0.0"}, headers={"if-match": "*"}
    )
    return {
        "tree": tree["sha256"],
        "dataset": dataset["name"],
        "dataset_version": "1.0.0",
        "dataset_release": golden.json()["name"],
    }


async def furnish_people(api: Api) -> dict[str, str]:
    """Make a principal with a role and a credential; name the administrator's own credential."""
    ada = await api.make("/principals", {"name": "ada", "display_name": "Ada Lovelace"})
    bound = {"principal": "ada", "role": "viewer", "project": "default"}
    binding = await api.make("/role-bindings", bound)
    async with api.db.write(SYSTEM) as tx:  # nobody gives it to themselves
        await api.installation.identity.principals.grant(
            tx, "admin", Role.SECURITY, scope=EVERYWHERE
        )
    made = await api.make("/principals/ada/credentials", {})
    (own,) = (await api.show("/credentials", principal="admin"))["items"]
    trusted = {"name": "bank", "url": "https://id.example.org", "audience": "pilotage"}
    issuer = await api.make("/issuers", trusted)
    return {
        "principal": ada["name"],
        "principal_id": ada["id"],
        "binding": binding["id"],
        "credential": made["id"],
        "own": own["id"],
        "issuer": issuer["name"],
    }


async def furnish_governance(api: Api) -> dict[str, str]:
    """Make a request for approval, a freeze, a planned release and a decision."""
    asked = {"action": "registry.version.promote:staging", "subject": "tiny@1.0.0"}
    approval = await api.make("/approvals", asked | {"reason": "furnished"})
    span = {"starts_at": "2099-01-01", "ends_at": "2099-01-02", "override_role": "admin"}
    await api.make("/calendar/freezes", span | {"name": "far-away", "reason": "furnished"})
    release = await api.make("/calendar/releases", plan_split(api))
    return {
        "approval": approval["id"],
        "freeze": "far-away",
        "release": release["id"],
        "decision": await put_decision(api),
    }


async def put_rollout(api: Api, endpoint: str) -> str:
    """Make an endpoint with two models of an upstream, and a rollout of the second; return its id.

    An upstream's model is ready at once, so that the first step runs. Beside it another endpoint
    has a candidate that nothing here makes ready, and no rollout yet.
    """
    for name, candidate in ((endpoint, "openai/new"), (f"{endpoint}-next", "tiny@1.0.0")):
        await api.make("/endpoints", {"name": name})
        deployments = f"/endpoints/{name}/deployments"
        await api.make(deployments, {"model": "old", "upstream": "openai"})
        upstream, _, model = candidate.rpartition("/")
        await api.make(deployments, {"model": model, "upstream": upstream})
    for model in ("old", "new"):  # there may be prices already
        await api.http.post("/prices", json={"subject": model, "input": "1", "output": "2"})
    ask = {"endpoint": endpoint, "candidate": "openai/new", "reason": "furnished"}
    rollout = await api.make("/rollouts", ask)
    await poll(
        lambda: api.show(f"/rollouts/{rollout['id']}"), lambda shown: shown["state"] == "running"
    )
    await put_look(api, str(rollout["id"]))
    return str(rollout["id"])


async def put_look(api: Api, rollout_id: str) -> None:
    """Keep a look at a rollout."""
    looked = Judgement(verdict=Verdict.HOLD, cause=Cause.COLLECTING)
    async with api.db.write(SYSTEM) as tx:
        rollout = await find_rollout(tx, rollout_id)
        assert rollout is not None
        look = Look(
            id=api.clock.new_id("lok"),
            rollout_id=rollout.id,
            project_id=rollout.project_id,
            at_us=tx.now_us,
            step=0,
            weight=500,
            judged=looked,
        )
        await insert_look(tx, look)


async def put_replay(api: Api, number: int) -> str:
    """Write a replay that has ended; return its id."""
    project = await api.show("/projects/default")
    replay = Replay(
        id=api.clock.new_id("rpl"),
        rev=1,
        project_id=project["id"],
        alias="chat",
        baseline_id="dep_a",
        candidate_id=f"dep_{number}",
        version_id="",
        hash="00" * 32,
        report="{}",
        evidence_id="",
        created_at_us=api.clock.now_us(),
        created_by="prn_furnished",
    )
    async with api.db.write(SYSTEM) as tx:
        await insert_replay(tx, replay)
    return replay.id


async def furnish_alerts(api: Api) -> dict[str, str]:
    """Make an alert rule, an objective, and an alert that fires."""
    rule = await api.make("/alert-rules", {"name": "slow", "condition": "p95_latency > 2s for 5m"})
    slo = await api.make("/slos", {"name": "chat-errors", "objective": "99.9"})
    return {"alert_rule": rule["name"], "slo": slo["name"], "alert": await put_alert(api, "chat")}


async def put_alert(api: Api, alias: str) -> str:
    """Write an alert that fires, as if its rule had been looked at; return its id."""
    project, now_us = await api.show("/projects/default"), api.clock.now_us()
    alert = Alert(
        id=api.clock.new_id("alt"),
        rev=1,
        project_id=project["id"],
        rule_id="alr_gone",
        rule="slow",
        condition="p95_latency > 2s",
        severity=Severity.WARNING,
        team="ops",
        runbook="",
        summary="slow",
        labels={"alias": alias},
        value=2.5,
        standing=Standing(state=AlertState.FIRING, held_us=0, gone_us=None, seen_us=now_us),
        began_at_us=now_us,
        fired_at_us=now_us,
    )
    async with api.db.write(SYSTEM) as tx:
        await AlertService(api.clock).write_alerts(tx, [Move(None, alert)])
    return alert.id


async def furnish_drift(api: Api) -> dict[str, str]:
    """Count calls of the endpoint, freeze them as a reference, and give feedback on one."""
    await put_measures(api, "tiny@1.0.0")
    of = {"endpoint": "chat", "model": "tiny@1.0.0"}
    reference = await api.make("/drift-references", of)
    await put_opinion(api, 1)
    return {"reference": reference["id"]}


async def put_measures(api: Api, model: str) -> None:
    """Count a thousand calls that ended half an hour ago."""
    project = await api.show("/projects/default")
    key = AnswerKey(project["id"], "chat", f"ver_of_{model}", model)
    held = Held()
    for number in range(1000):
        held.numbers.add(number)
    place = Place(key, Measure.DURATION, floor(api.clock.now_us()) - SPAN_US)
    async with api.db.write(SYSTEM) as tx:
        await DriftService(api.clock).record(tx, {place: held})


async def put_opinion(api: Api, number: int, comment: bytes = b"", feedback_id: str = "") -> None:
    """Write feedback on a call; ``comment`` is sealed for the feedback's id."""
    tenant = await api.show("/tenants/default")
    feedback = Feedback(
        call_id=f"call_{number}",
        at_us=api.clock.now_us(),
        feedback_id=feedback_id or api.clock.new_id("fbk"),
        project_id=tenant["project_id"],
        tenant_id=tenant["id"],
        key_id="key_a",
        score=1_000_000,
        comment=comment,
    )
    async with api.db.write(SYSTEM) as tx:
        await put_opinions(tx, make_opinions([feedback]))


async def wait_for_feedback(api: Api) -> None:
    """Wait until all feedback has found its call: until then it is looked up again and again."""

    async def list_states() -> set[FeedbackState]:
        async with api.db.engine.connect() as conn:
            return {*await conn.scalars(sa.select(FEEDBACK.c.state))}

    await poll(list_states, lambda states: states == {FeedbackState.MATCHED})


def plan_split(api: Api) -> Json:
    """Return a release to plan for a month from now."""
    return {
        "action": "endpoints.traffic.split",
        "subject": "chat",
        "at": f"{rfc3339(api.clock.now_us() + 30 * 86_400_000_000)[:10]}T06:00:00Z",
        "reason": "furnished",
        "arguments": {"split": {"tiny@1.0.0": 100}},
    }


async def put_decision(api: Api) -> str:
    """Record a forced change of the endpoint's traffic; return the decision's id."""
    project = await api.show("/projects/default")
    endpoint = await api.show("/endpoints/chat")
    actor = Actor(principal_id="usr_gone", project_id=project["id"], reason="furnished")
    async with api.db.write(actor) as tx:
        made = await GovernanceService(api.clock, api.installation.identity).record_change(
            tx,
            kind=DecisionKind.SPLIT,
            subject_id=endpoint["id"],
            subject="chat",
            before={},
            after={"split": {"tiny@1.0.0": "100"}},
            is_forced=True,
        )
    return made.id


async def put_call(api: Api) -> str:
    """Write one call of the default project to the ledger; return its id."""
    tenant = await api.show("/tenants/default")
    ended = msgspec.structs.replace(
        end("call_furnished", "", tenant["id"], tenant["project_id"]), arm="dep_furnished"
    )
    async with api.db.write(SYSTEM) as tx:
        place = SpoolPlace(gateway="furnished", epoch="e", seq=0)
        await FinopsService(api.clock).record(tx, place, 1, [make_charge(ended, "furnished")])
    return ended.call_id


async def put_metrics(api: Api, alias: str) -> None:
    """Count one call of the default project."""
    project = await api.show("/projects/default")
    call = make_call(project_id=project["id"], alias=alias, at_us=api.clock.now_us())
    batch = SpoolBatch(spool=alias, epoch="1", after_seq=0, last_seq=1, records=[])
    async with api.db.write(SYSTEM) as tx:
        await RollupService().record(tx, batch, add_up([call]))


async def put_calls(api: Api, count: int) -> None:
    """Write calls of the default project to the ledger, each on a day of its own."""
    tenant = await api.show("/tenants/default")
    charges = [
        make_charge(
            Ended(
                call_id=api.clock.new_id("call"),
                at_us=1_700_000_000_000_000 + number * 86_400_000_000,
                project_id=tenant["project_id"],
                tenant_id=tenant["id"],
                key_id="key_a",
                alias="chat",
                outcome=Outcome.OK,
                status=200,
                usage=Usage(input=10, output=5),
                cost_nano=1_500_000,
                is_estimated=False,
                duration_us=1,
                ttft_us=1,
                chunks=1,
                attempts=1,
            ),
            "gateway-0",
        )
        for number in range(count)
    ]
    async with api.db.write(SYSTEM) as tx:
        place = SpoolPlace(gateway="gateway-0", epoch="e", seq=0)
        await FinopsService(api.clock).record(tx, place, count, charges)


async def seal_name(api: Api, tenant_id: str, name: str) -> None:
    """Keep the name of an end user, as the ledger's worker does, in the default project."""
    project = await api.show("/projects/default")
    users = Users(Vault(open_root_keys(api.folder.root_keys)))
    async with api.db.write(SYSTEM) as tx:
        await users.label(tx, [make_charge(end("c", name, tenant_id, project["id"]), "gateway-0")])


async def put_operation(api: Api, state: OperationState) -> str:
    """Write an operation that an earlier process left; return its id."""
    project = await api.show("/projects/default")
    operation_id = api.clock.new_id("op")
    async with api.db.write(SYSTEM) as tx:
        await tx.insert(
            OPERATION,
            id=operation_id,
            rev=2,
            project_id=project["id"],
            kind="deploy",
            subject="dep_1",
            state=state,
            phase="starting",
            done=0,
            total=-1,
            created_at_us=tx.now_us,
            updated_at_us=tx.now_us,
        )
    return operation_id


async def furnish_costs(api: Api) -> Json:
    """Make a budget and a closed month, and return a booked cost."""
    await api.make("/budgets", {"name": "spending", "amount": "500"})
    await close_month(api, "1969-12")
    return await api.make("/cost-entries", COST | {"source": "furnished"})


async def close_month(api: Api, month: str) -> None:
    """Close a month in which nothing cost anything."""
    closed = ClosedMonth(
        project_id=(await api.show("/projects/default"))["id"],
        month=month,
        closed_at_us=0,
        calls_nano=0,
        entries_nano=0,
    )
    async with api.db.write(SYSTEM) as tx:
        await insert_month(tx, closed, {})

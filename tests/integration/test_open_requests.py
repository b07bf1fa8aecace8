"""Requests that stay open: their callers may be shown the door, and they do not stay for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api_cases import refusal
from control_api import Api, open_api
from pilotage.endpoints.http import KIND_DEPLOY
from pilotage.endpoints.scaling_http import KIND_WARM
from pilotage.identity.matrix import list_roles
from pilotage.identity.types import Role
from pilotage.kit.api import ApiCall, Route
from pilotage.kit.db import SYSTEM
from pilotage.kit.idempotency import KEPT_REPLY
from pilotage.kit.operations import OperationKind, Operations, Progress
from pilotage.kit.operations_http import OperationView, operation_routes
from pilotage.kit.outbox import get_last_seq
from pilotage.kit.resources import Background
from pilotage.registry.artifacts.http import KIND_IMPORT
from pilotage.registry.datasets.http import KIND_PUSH
from pilotage.registry.pull import KIND_PULL
from pilotage.rollouts.replay.http import KIND as KIND_REPLAY
from pilotage.runtime.backup.http import KIND as KIND_BACKUP
from pilotage.runtime.secrets_http import KIND_ROOT, KIND_TENANT
from pilotage.server import bodies
from pilotage.server.app import PREFIX, make_app
from postgres_server import PostgresServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = (
    KIND_BACKUP,
    KIND_DEPLOY,
    KIND_IMPORT,
    KIND_PULL,
    KIND_PUSH,
    KIND_REPLAY,
    KIND_ROOT,
    KIND_TENANT,
    KIND_WARM,
)
BODIES = {
    "/principals": [b'{"name": "by-', b'mallory", "kind": "service_account"}'],
    "/keys": [b'{"name": ', b'"late"}'],
    "/backups": [b"{", b"}"],
    "/blobs": [b"half ", b"a blob"],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    url = "sqlite"
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.make_empty()
    async with open_api(tmp_path_factory.mktemp("installation"), url) as opened:
        yield opened


# whoever was shown the door


async def revoke_access(api: Api, name: str) -> None:
    await api.make(f"/principals/{name}:revoke-access")


async def revoke_credential(api: Api, name: str) -> None:
    (own,) = (await api.show("/credentials", principal=name))["items"]
    await api.make(f"/credentials/{own['id']}:revoke")


async def end_roles(api: Api, name: str) -> None:
    for binding in (await api.show("/role-bindings", principal=name))["items"]:
        await api.make(f"/role-bindings/{binding['id']}:end")


Way = Callable[[Api, str], Awaitable[None]]
WAYS: dict[Way, tuple[int, str]] = {
    revoke_access: (401, "invalid_credential"),
    revoke_credential: (401, "invalid_credential"),
    end_roles: (403, "permission_denied"),
}


class SlowBody:
    """A body of parts; the last one comes when it is let."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self.is_half_sent = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts[:-1]:
            yield part
        self.is_half_sent.set()
        await self.may_end.wait()
        yield self._parts[-1]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.__name__))
@pytest.mark.parametrize("path", BODIES)
async def test_a_body_that_ends_after_its_sender_was_shown_the_door_does_nothing(
    api: Api, path: str, way: Way
) -> None:
    name = f"m-{way.__name__}-{path.strip('/')}".replace("_", "-")
    credential = await api.make_principal(name, Role.SECURITY, Role.ML_OPS)
    body = SlowBody(BODIES[path])
    headers = {"authorization": f"Bearer {credential}", "content-type": "application/json"}
    sending = asyncio.ensure_future(api.http.post(path, content=body, headers=headers))
    await body.is_half_sent.wait()
    await way(api, name)
    before = await count_changes(api)
    body.may_end.set()

    assert refusal(await sending) == WAYS[way]
    assert await count_changes(api) == before


@pytest.mark.parametrize("path", [path for path in BODIES if path != "/backups"])
async def test_a_slow_body_of_somebody_who_may_is_taken(api: Api, path: str) -> None:
    body = SlowBody(BODIES[path])
    headers = {"content-type": "application/json"}
    sending = asyncio.ensure_future(api.http.post(path, content=body, headers=headers))
    await body.is_half_sent.wait()
    body.may_end.set()

    assert (await sending).is_success


@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.__name__))
async def test_whoever_was_shown_the_door_writes_nothing_afterwards(api: Api, way: Way) -> None:
    name = f"w-{way.__name__}".replace("_", "-")
    credential = await api.make_principal(name, Role.SECURITY)
    asked, may_write, wrote = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def make_late(call: ApiCall) -> None:
        """Take long over something and then write it."""
        asked.set()
        await may_write.wait()
        async with call.write():
            wrote.set()

    late = Route(method="POST", path="/late", permission="identity.keys.create", handler=make_late)
    async with client_of(api, [late], credential) as http:
        asking = asyncio.ensure_future(http.post("/late"))
        await asked.wait()
        await way(api, name)
        may_write.set()
        refused = await asking

    assert refusal(refused) == WAYS[way]
    assert not wrote.is_set()


async def test_a_gateway_that_is_revoked_while_it_sends_records_sends_none(api: Api) -> None:
    made = await api.make("/gateways", {"name": "paris"})
    body = SlowBody([b"half ", b"a piece"])
    path = f"/gateway/spools/gateway-0/{'a' * 32}?from_seq=1"
    headers = {"authorization": f"Bearer {made['secret']}"}
    sending = asyncio.ensure_future(api.http.post(path, content=body, headers=headers))
    await body.is_half_sent.wait()
    await api.make("/gateways/paris:revoke")
    body.may_end.set()

    assert refusal(await sending) == (401, "invalid_credential")


async def count_changes(api: Api) -> tuple[int, int]:
    """Return how many changes and how many operations there were."""
    async with api.db.read(SYSTEM) as tx:
        seq = await get_last_seq(tx)
    return seq, len((await api.show("/operations", limit=500))["items"])


def client_of(api: Api, routes: list[Route], credential: str, **more: Any) -> httpx.AsyncClient:  # noqa: ANN401
    """Return somebody's client of some routes of the same installation."""
    app = make_app(replace(api.installation, routes=routes, **more))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url=f"http://control{PREFIX}",
        headers={"authorization": f"Bearer {credential}"},
    )


# whoever does not go on


@pytest.mark.parametrize(
    ("path", "limit"), [("/keys", "JSON_WITHIN_S"), ("/blobs", "NEXT_WITHIN_S")]
)
async def test_a_body_that_does_not_come_is_waited_for_so_long(
    api: Api, path: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, limit, 0)
    body = SlowBody(BODIES[path])  # it is never let end
    headers = {"content-type": "application/json"}
    before = await count_changes(api)
    reply = await api.http.post(path, content=body, headers=headers)

    assert refusal(reply) == (408, "request_timeout")
    assert reply.headers["connection"] == "close"
    assert await count_changes(api) == before


# what cannot be written

ODD = r'"\ud800"'
DEEP = "[" * 300 + "]" * 300
FREEZE = '"name": "f", "reason": "r", "starts_at": "2099-01-01", "ends_at": "2099-01-02"'
RELEASE = '"action": "endpoints.traffic.split", "subject": "c", "at": "2099-01-01", "reason": "r"'
ISSUER = '"name": "odd", "url": "https://id.example.org", "audience": "a"'
ODD_BODIES = {
    "parties.0": ("/issuers", f'{{{ISSUER}, "parties": [{ODD}]}}'),
    "roles.0.group": ("/issuers", f'{{{ISSUER}, "roles": [{{"group": {ODD}, "role": "viewer"}}]}}'),
    "names.1": ("/calendar/freezes", f'{{{FREEZE}, "names": ["chat", {ODD}]}}'),
    "arguments.split.0": (
        "/calendar/releases",
        f'{{{RELEASE}, "arguments": {{"split": [{ODD}]}}}}',
    ),
    "passphrase": ("/backups", f'{{"passphrase": {ODD}}}'),
    "arguments.split": ("/calendar/releases", f'{{{RELEASE}, "arguments": {{"split": {DEEP}}}}}'),
}


@pytest.mark.parametrize("key", [{}, {"idempotency-key": "odd"}], ids=["", "key"])
@pytest.mark.parametrize("param", ODD_BODIES)
async def test_what_cannot_be_written_is_refused_wherever_it_is(
    api: Api, param: str, key: dict[str, str]
) -> None:
    path, body = ODD_BODIES[param]
    headers = {"content-type": "application/json"} | key
    reply = await api.http.post(path, content=body.encode(), headers=headers)

    assert refusal(reply) == (400, "invalid_request"), reply.text
    assert reply.json()["param"].startswith(param)


# who cancels


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
async def test_long_work_is_cancelled_by_whoever_may_start_it(
    api: Api, kind: OperationKind
) -> None:
    project = await api.show("/projects/default")
    actor = replace(SYSTEM, project_id=project["id"])
    done: dict[Role, tuple[int, str]] = {}
    async with Background() as background:
        operations = Operations(api.db, api.clock, background)
        for role in (Role.ML_ENGINEER, Role.ML_OPS, Role.SECURITY, Role.ADMIN):
            name = f"c-{kind.name}-{role}".replace("_", "-").replace(".", "-")
            credential = await api.make_principal(name, role)
            started = await operations.start(actor, kind, "it", wait_for_ever)
            async with client_of(api, operation_routes(operations), credential) as http:
                reply = await http.post(f"/operations/{started.id}:cancel")
            done[role] = (200, "") if reply.is_success else refusal(reply)
        here = await api.make_principal(
            f"h-{kind.name}".replace(".", "-"), Role.ADMIN, scope=project["id"]
        )
        started = await operations.start(actor, kind, "it", wait_for_ever)
        async with client_of(api, operation_routes(operations), here) as http:
            of_project = await http.post(f"/operations/{started.id}:cancel")

    starters = {role for role in done if role in list_roles(kind.permission)}
    assert {role for role, reply in done.items() if reply == (200, "")} == starters
    assert {reply for role, reply in done.items() if role not in starters} <= {
        (403, "permission_denied")
    }
    assert of_project.is_success == (not kind.is_global)


async def wait_for_ever(progress: Progress) -> object:
    """Work until it is cancelled."""
    progress("waiting")
    return await asyncio.Event().wait()


async def test_what_cancels_is_what_starts(api: Api) -> None:
    starting = {
        (route.permission, route.is_global)
        for route in api.routes
        if route.method == "POST"
        and route.handler.__annotations__["return"] in (OperationView, "OperationView")
        and not route.path.endswith(":cancel")
    }

    assert starting == {(kind.permission, kind.is_global) for kind in KINDS}


# a reply that never came


async def test_a_key_whose_reply_broke_after_a_change_is_not_used_again(api: Api) -> None:
    async def break_down(seq: int) -> list[str]:
        raise OSError(seq)

    routes, key = api.routes, {"idempotency-key": "broken"}
    broken = client_of(api, routes, api.credentials.admin, wait_visible=break_down)
    async with broken as http:
        first = await http.post("/tenants", json={"name": "half-done"}, headers=key)
    again = await api.http.post("/tenants", json={"name": "half-done"}, headers=key)
    other = await api.http.post("/tenants", json={"name": "another"}, headers=key)

    assert refusal(first) == (500, "internal_error")
    assert refusal(again) == (409, "conflict")
    assert "not known" in again.json()["detail"]
    assert "another key" in again.json()["hint"]
    assert refusal(other) == (422, "idempotency_mismatch")
    assert (await api.show("/tenants/half-done"))["name"] == "half-done"


async def test_a_start_says_which_requests_were_interrupted(
    postgres_or_none: PostgresServer | None, tmp_path: Path
) -> None:
    url = "sqlite" if postgres_or_none is None else postgres_or_none.make_empty()
    key = {"idempotency-key": "killed"}
    async with open_api(tmp_path, url) as api:
        answered = await api.http.post("/tenants", json={"name": "killed"}, headers=key)
        async with api.db.write(SYSTEM) as tx:  # as it is while the request is answered
            await tx.change(tx.update(KEPT_REPLY).values(status=None, body=None))
        waiting = await api.http.post("/tenants", json={"name": "killed"}, headers=key)
    async with open_api(tmp_path, url) as api:
        restarted = await api.http.post("/tenants", json={"name": "killed"}, headers=key)

    assert answered.status_code == 201
    assert (refusal(waiting), refusal(restarted)) == ((409, "conflict"), (409, "conflict"))
    assert "not been answered yet" in waiting.json()["detail"]
    assert "not known" in restarted.json()["detail"]

"""The permission matrix against every route, and what one project shows to another."""

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_cases import parameters_of, queries_of
from control_api import Api, furnish, open_api
from pilotage.identity.matrix import MATRIX, list_roles
from pilotage.identity.types import Role
from pilotage.kit.api import RawRoute, Route

QUICK, FULL = 600, 100_000
SECRET = "zebra"  # in every name and text of the project that nobody else may see


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as opened:
        yield opened


def list_routes(api: Api) -> list[Route | RawRoute]:
    opened = api.installation
    return [*opened.routes, *opened.raw_routes, *opened.pages]


def fill(route: Route | RawRoute, names: dict[str, str], default: str = "nothing") -> str:
    path = route.path.replace(":path}", "}")
    for name in parameters_of(route):  # type: ignore[arg-type]
        path = path.replace(f"{{{name}}}", names.get(name, default))
    return path


async def test_every_permission_of_a_route_has_a_row_and_every_row_a_permission(api: Api) -> None:
    permissions = {route.permission for route in list_routes(api)}
    assert not {item for item in permissions if not list_roles(item)}
    first = {next(rule for rule in MATRIX if rule.fits(item)).permissions for item in permissions}
    unused = {rule.permissions for rule in MATRIX} - first - CHECKED_ELSEWHERE
    assert not unused


CHECKED_ELSEWHERE = {  # in a handler
    "registry.pickles.allow",
    "endpoints.upstream.trust",
    "monitoring.comments.reveal",
}


def test_nobody_approves_for_being_an_administrator() -> None:
    assert Role.APPROVER in list_roles("governance.approval.vote")
    for role in Role:
        held = [rule for rule in MATRIX if role in rule.roles]
        assert held
    assert list_roles("strange.things.do") == frozenset()
    assert list_roles("registry.models") == frozenset()


async def test_every_role_may_do_what_its_row_says_and_nothing_else(api: Api) -> None:
    credentials: dict[Role, str] = {
        role: await api.make_principal(f"the-{role}", role)
        for role in Role
        if role is not Role.GATEWAY
    }
    made = await api.make("/gateways", {"name": "paris"})
    credentials[Role.GATEWAY] = made["secret"]
    for route in list_routes(api):
        root = "http://control" if route in api.installation.pages else ""
        for role, credential in credentials.items():
            reply = await api.http.request(
                route.method,
                root + fill(route, {}),
                headers={"authorization": f"Bearer {credential}", "if-match": "*"},
                content=b"{",
            )
            is_refused = reply.status_code == 403
            assert is_refused or role in list_roles(route.permission), f"{role} {route.path}"
            if not is_refused:
                assert reply.status_code != 401
            elif role in list_roles(route.permission):  # only what a handler decides is left
                assert route.permission.startswith("remote."), f"{role} {route.path}: {reply.text}"


async def test_a_role_in_one_project_gives_nothing_in_another_nor_in_the_installation(
    api: Api,
) -> None:
    mine = await api.make("/projects", {"name": "mine"})
    credential = await api.make_principal("ada", Role.ADMIN, scope=mine["id"])
    headers = {"authorization": f"Bearer {credential}"}

    async def get(path: str, **query: str) -> httpx.Response:
        return await api.http.get(path, params=query, headers=headers)

    assert (await get("/models", project="mine")).status_code == 200
    there, nowhere = [await get("/models", project=name) for name in ("default", "nowhere")]
    assert there.status_code == nowhere.status_code == 404
    assert there.json()["detail"].replace("default", "") == nowhere.json()["detail"].replace(
        "nowhere", ""
    )
    assert [item["name"] for item in (await get("/projects")).json()["items"]] == ["mine"]
    assert (await get("/projects/default")).status_code == 404
    assert (await get("/principals")).status_code == 403
    assert (await get("/me")).json()["roles"] == [{"role": "admin", "project_id": mine["id"]}]


async def test_access_is_reviewed_and_taken_away_in_one_step(api: Api) -> None:
    for name in ("ada", "eve"):
        await api.make("/principals", {"name": name})
    for role in ("ml_ops", "approver"):
        await api.make("/role-bindings", {"principal": "ada", "role": role, "project": "default"})
    made = await api.make("/principals/ada/credentials", {})
    headers = {"authorization": f"Bearer {made['secret']}"}
    assert (await api.http.get("/me", headers=headers)).status_code == 200

    review = await api.show("/identity/access-review")
    ada = next(item for item in review["principals"] if item["name"] == "ada")
    assert {role["role"] for role in ada["roles"]} == {"ml_ops", "approver"}
    assert {role["granted_by"] for role in ada["roles"]} == {"admin"}
    assert {"asks_and_approves", "never_expires"} <= set(ada["remarks"])
    assert [key["remarks"] for key in review["keys"]] == [["never_expires", "for_everything"]]

    reply = await api.http.post(
        "/principals/ada:revoke-access", headers={"x-pilotage-reason": "has left"}
    )
    assert reply.status_code == 200
    assert (await api.http.get("/me", headers=headers)).status_code == 401
    review = await api.show("/identity/access-review")
    assert {item["name"] for item in review["principals"]} == {"admin", "eve"}


async def test_keys_whose_text_somebody_knows_who_has_left_are_named(api: Api) -> None:
    await api.make_principal("ada", Role.SECURITY)
    sue = await api.make_principal("sue", Role.SECURITY)
    headers = {"authorization": f"Bearer {sue}"}
    for name in ("first", "mine", "gone"):
        made = await api.http.post("/keys", json={"name": name}, headers=headers)
        assert made.status_code == 201
    await api.make(f"/keys/{made.json()['id']}:revoke")
    await api.make("/keys", {"name": "theirs"})

    revoked = (await api.http.post("/principals/sue:revoke-access")).json()
    again = (await api.http.post("/principals/ada:revoke-access")).json()

    assert [key["name"] for key in revoked["keys"]] == ["first", "mine"]
    assert again["keys"] == []
    keys = (await api.show("/identity/access-review"))["keys"]
    assert [
        (key["name"], key["created_by"], "made_by_disabled" in key["remarks"]) for key in keys
    ] == [
        ("first", "system", False),
        ("first", "sue", True),
        ("mine", "sue", True),
        ("theirs", "admin", False),
    ]


async def test_nobody_raises_themselves(api: Api) -> None:
    credential = await api.make_principal("ada", Role.SECURITY)
    headers = {"authorization": f"Bearer {credential}"}
    for role in ("approver", "admin"):
        body = {"principal": "ada", "role": role}
        reply = await api.http.post("/role-bindings", json=body, headers=headers)
        assert reply.status_code == 403
    own = {"principal": "admin", "role": "approver"}
    assert (await api.http.post("/role-bindings", json=own)).status_code == 403
    assert (await api.http.post("/role-bindings", json=own, headers=headers)).status_code == 201


async def test_nobody_stays_longer_than_they_were_let_in_for(api: Api) -> None:
    await api.make("/principals", {"name": "ada"})
    await api.make("/role-bindings", {"principal": "ada", "role": "viewer"})
    made = await api.make("/principals/ada/credentials", {"expires_in": "1h"})
    headers = {"authorization": f"Bearer {made['secret']}"}
    path = f"/me/credentials/{made['id']}:rotate"

    longer = await api.http.post(path, json={"expires_in": "61m"}, headers=headers)
    same = await api.http.post(path, json={"expires_in": "1h"}, headers=headers)

    assert (longer.status_code, longer.json()["code"]) == (403, "permission_denied")
    assert same.status_code == 201
    admin = (await api.show("/me"))["id"]
    assert same.json()["created_by"] == admin  # who may know what let her in
    path = f"/credentials/{same.json()['id']}:rotate"
    assert (await api.http.post(path, json={"expires_in": "90d"})).status_code == 201


# from outside


async def test_a_stranger_learns_nothing_of_a_project(api: Api, tiny_gguf: Path) -> None:
    assert await attack(api, tiny_gguf, QUICK) == []


@pytest.mark.nightly
@pytest.mark.timeout(3600)
async def test_a_stranger_learns_nothing_of_a_project_in_100_000_requests(
    api: Api, tiny_gguf: Path
) -> None:
    assert await attack(api, tiny_gguf, FULL) == []


async def test_the_attack_would_see_a_leak(api: Api, tiny_gguf: Path) -> None:
    assert await attack(api, tiny_gguf, 300, is_let_in=True)


async def attack(api: Api, gguf: Path, count: int, *, is_let_in: bool = False) -> list[str]:
    """Ask for everything of the default project from another one; return what came of it.

    ``is_let_in`` gives the stranger a role there, as if the door stood open.
    """
    names = await furnish(api, gguf)
    names["default_id"] = (await api.show("/projects/default"))["id"]
    for path, name in (("/models", f"{SECRET}-m"), ("/tenants", f"{SECRET}-t")):
        await api.make(path, {"name": name})
    project = await api.make("/projects", {"name": "stranger"})
    roles = [role for role in Role if role is not Role.GATEWAY]
    credential = await api.make_principal("stranger", *roles, scope=project["id"])
    if is_let_in:
        role = {"principal": "stranger", "role": "viewer", "project": "default"}
        await api.make("/role-bindings", role)
    headers = {"authorization": f"Bearer {credential}", "if-match": "*"}
    secrets = [value for name, value in names.items() if len(value) > 20 and name != "sha256"]
    leaks = []
    draws = random.Random(4)
    for route, path, query, sent in draw_requests(api, names, draws, count):
        reply = await call(api, route.method, path, query, sent, headers)
        text = reply.text
        asked = path + str(query) + str(sent)
        told = [item for item in (SECRET, *secrets) if item in text and item not in asked]
        if told or reply.status_code >= 500:
            leaks.append(f"{route.method} {path} {query}: {reply.status_code} {told} {text[:200]}")
        is_there = query["project"] in ("default", names["default_id"]) and not route.is_global
        if is_there and reply.status_code not in (403, 404):
            leaks.append(f"{route.method} {path} {query}: {reply.status_code} {text[:200]}")
    return leaks


async def call(
    api: Api,
    method: str,
    path: str,
    query: dict[str, str],
    sent: dict[str, Any] | None,
    headers: dict[str, str],
) -> httpx.Response:
    """Send one request through the application."""
    return await api.http.request(method, path, params=query, json=sent, headers=headers)


def draw_requests(
    api: Api, names: dict[str, str], draws: random.Random, count: int
) -> Iterator[tuple[Route | RawRoute, str, dict[str, str], dict[str, Any] | None]]:
    """Yield requests: by name and id, in path, query, body and cursor, to every route in turn."""
    routes = list_routes(api)
    values = [*names.values(), f"{SECRET}-m", f"{SECRET}-t", "default"]
    for number in range(count):
        route = routes[number % len(routes)]
        picked = {
            name: draws.choice([names.get(name, "x"), *values])
            for name in (
                parameters_of(route)  # type: ignore[arg-type]
            )
        }
        path = fill(route, picked)
        project = draws.choice(["stranger", "default", names["default_id"], "nowhere"])
        query = {"project": project}
        if isinstance(route, Route):
            for name in queries_of(route):
                if draws.random() < 0.4:
                    query[name] = draws.choice(values)
        sent = None
        if route.method in ("POST", "PUT", "PATCH"):
            keys = ("tenant", "subject", "model", "name", "principal", "action", "key", "of")
            sent = {key: draws.choice(values) for key in keys if draws.random() < 0.3}
            if project == "stranger" and "name" in sent:
                sent["name"] = f"own-{number}"  # what one named oneself is no leak when it is shown
        yield route, path, query, sent

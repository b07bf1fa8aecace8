"""The conventions of the control API, held by every route there is: one table, one suite."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api_cases import (
    GET_QUERIES,
    JSON_TYPE,
    LIST_QUERIES,
    LISTS,
    OF_EVERY_PROJECT,
    Ask,
    World,
    body_of,
    lists,
    make_asks,
    parameters_of,
    problem_of,
    queries_of,
    refusal,
    sent,
)
from control_api import Json, furnish, open_api, put_calls, put_operation
from pilotage.identity.rules import is_allowed
from pilotage.identity.types import ADMIN_PREFIX, Role
from pilotage.kit.api import RawRoute, Route
from pilotage.kit.crypto import make_secret
from pilotage.kit.db import SYSTEM
from pilotage.kit.operations import OperationState
from pilotage.migrations.tables import get_metadata
from pilotage.registry.backends.packages import PACKAGED_WEIGHTS, PackagedWeights
from pilotage.rollouts import store as rollouts_store
from pilotage.rollouts.types import Rollout
from pilotage.server.app import PREFIX
from pilotage.server.bodies import MAX_JSON_BYTES
from pilotage.server.conventions import MAX_PAGE
from postgres_server import PostgresServer
from system import poll

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = {"/healthz", f"{PREFIX}/openapi.json"}
BAD_LIMITS = ("0", "-1", str(MAX_PAGE + 1), str(10**9), str(10**30), "ten", "")
HOSTILE_TEXTS = ("a\x00b", "-1", "9" * 30, "x" * 3000, "' OR 1=1 --", "ü/é", "%", "..")
HOSTILE_VALUES: tuple[object, ...] = (
    "a\x00b",
    "\ud800",
    "",
    "-1",
    "1e400000",
    "x" * 3000,
    None,
    True,
    -1,
    10**30,
    1e308,
    ["\x00", "\ud800"],
    {},
    {"\x00": 1},
    {"\ud800": 1},
    {"tiny@1.0.0": "1e400000"},
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path
) -> AsyncIterator[World]:
    url = "sqlite"
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.make_empty()
    async with open_api(tmp_path_factory.mktemp("installation"), url) as api:
        names = await furnish(api, tiny_gguf)
        await api.make("/projects", {"name": "other"})
        await api.make(
            "/models/tiny/versions", {"version": "3.0.0", "artifact_sha256": names["sha256"]}
        )
        await put_calls(api, 5)
        yield World(api, names, tiny_gguf)


# what is there


async def test_every_route_says_who_may_use_it(world: World) -> None:
    document = world.api.app.openapi()
    described = {
        (method.upper(), path): operation.get("x-pilotage-permission")
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    expected = {
        (route.method, PREFIX + re.sub(r":path\}", "}", route.path)): route.permission
        for route in world.api.routes
    }

    assert described == expected
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+\.[a-z_]+", text or "") for text in described.values())
    served = {route.path for route in world.api.app.routes if hasattr(route, "path")}
    opened = world.api.installation
    raw = {route.path for route in opened.raw_routes}
    served -= {page.path for page in opened.pages}
    assert served - {PREFIX + path for path in raw | {r.path for r in world.api.routes}} == PUBLIC


@pytest.mark.parametrize("permission", ["", "read", "tenants.read", "identity.tenants.", "a.b.C"])
async def test_a_route_without_a_permission_cannot_be_made(permission: str) -> None:
    async def handler() -> None: ...

    with pytest.raises(ValueError, match="GET /x needs a permission"):
        Route(method="GET", path="/x", permission=permission, handler=handler)
    with pytest.raises(TypeError, match="permission"):
        Route(method="GET", path="/x", handler=handler)  # type: ignore[call-arg]


async def test_the_tables_of_this_suite_know_every_route(world: World) -> None:
    asked = {(r.method, r.path) for r in world.api.routes if r.method in ("POST", "PUT", "PATCH")}

    assert set(make_asks(world)) == asked
    assert set(LISTS) == {route.path for route in lists(world)}


# who asks


async def test_without_a_credential_nothing_is_read_or_done(world: World) -> None:
    before, admin = await world.last_seq(), world.api.credentials.admin
    credentials = {
        "none": "",
        "nonsense": "Bearer nonsense",
        "unknown": f"Bearer {make_secret(ADMIN_PREFIX)}",
        "an API key": f"Bearer {world.api.credentials.api_key}",
        "another scheme": f"Basic {admin}",
        "too long": f"Bearer {admin}x",
    }

    for route in world.api.routes:
        for what, credential in credentials.items():
            headers = {"authorization": credential, "idempotency-key": "k", **JSON_TYPE}
            reply = await world.send(route, headers=headers, content=b"{")
            found = refusal(reply)
            assert found == (401, "invalid_credential"), f"{what}: {route.method} {route.path}"
            assert reply.headers["www-authenticate"] == "Bearer"
            assert ("/v1" in reply.json()["hint"]) == (what == "an API key")
    assert await world.last_seq() == before


async def test_a_viewer_may_do_what_the_matrix_says(world: World) -> None:
    credential = await world.api.make_viewer()
    before = await world.last_seq()

    for route in world.api.routes:
        headers = {"authorization": f"bearer {credential}", **JSON_TYPE}
        reply = await world.send(route, headers=headers, content=b"{")
        place = f"{route.method} {route.path}: {reply.text}"
        if is_allowed({Role.VIEWER}, route.permission):
            assert reply.status_code == (200 if route.method == "GET" else 400), place
        else:
            assert refusal(reply) == (403, "permission_denied"), place
            assert route.permission in reply.json()["detail"]
    assert await world.last_seq() == before


# what is asked


async def test_an_unknown_path_is_a_problem(world: World) -> None:
    for path in ("/nothing", "/tenants/", "/tenants/a/b", "http://control/", "http://control/api"):
        for method in ("GET", "POST", "DELETE"):
            reply = await world.api.http.request(method, path)
            assert refusal(reply) == (404, "unknown_url"), f"{method} {path}"


async def test_a_wrong_method_is_told_the_right_ones(world: World) -> None:
    for route in world.api.routes:
        path = world.fill(route)
        routes: list[Route | RawRoute] = [*world.api.routes, *world.api.installation.raw_routes]
        there = [other for other in routes if is_matched(other, path)]
        taken: set[str] = {other.method for other in there}
        if any(isinstance(other, RawRoute) and other.method == "GET" for other in there):
            taken.add("HEAD")
        assert route.method in taken
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - taken:
            reply = await world.api.http.request(method, path)
            assert refusal(reply) == (405, "method_not_allowed"), f"{method} {path}"
            assert set(reply.headers["allow"].split(", ")) == taken, f"{method} {path}"


def is_matched(route: Route | RawRoute, path: str) -> bool:
    pattern = re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+:path\}", ".*", route.path))
    return re.fullmatch(pattern, path) is not None


async def test_a_body_that_is_not_what_it_should_be_is_refused(world: World) -> None:
    asks = make_asks(world)
    for route in world.api.routes:
        if body_of(route) is None:
            continue
        ask = asks[route.method, route.path].body
        assert isinstance(ask, dict)
        unknown = json.dumps(ask | {"colour": "red"}).encode()
        expected = {
            b"{": (400, "invalid_json", None),
            b'{"name": "\xff"}': (400, "invalid_json", None),
            unknown: (400, "invalid_request", "colour"),
            b"": (400, "invalid_request", "body"),
            b"[]": (400, "invalid_request", "body"),
            b"null": (400, "invalid_request", "body"),
            b" " * (MAX_JSON_BYTES + 1): (413, "request_too_large", None),
        }
        for content, (status, code, param) in expected.items():
            reply = await world.send(route, content=content, headers=JSON_TYPE)
            place = f"{route.method} {route.path} {content[:40]!r}: {reply.text[:300]}"
            assert (*refusal(reply), reply.json()["param"]) == (status, code, param), place
        plain = {"content-type": "text/plain"}
        reply = await world.send(route, content=json.dumps(ask).encode(), headers=plain)
        assert refusal(reply) == (400, "invalid_request")


# done once


def other_name(world: World, route: Route) -> dict[str, str]:
    """Return the parameters of the same route for another object."""
    return dict.fromkeys(parameters_of(route), "another")


async def test_a_repeated_post_is_done_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_tiny(monkeypatch, world)
    cancelled = await put_operation(world.api, OperationState.CANCELLED)
    for (method, path), ask in make_asks(world).items():
        if method != "POST":
            continue
        route = next(r for r in world.api.routes if (r.method, r.path) == (method, path))
        key = {"idempotency-key": f"key of {path}"}
        url = world.fill(route, operation=cancelled)
        first = await world.send(route, path=url, **with_headers(ask.sent, key))
        after = await count(world)
        again = await world.send(route, path=url, **with_headers(ask.sent, key))

        assert first.is_success, f"{path}: {first.text}"
        assert "idempotent-replayed" not in first.headers
        assert again.status_code == first.status_code, path
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers.get("etag") == first.headers.get("etag"), path
        assert again.json() == first.json() | dict.fromkeys(route.secrets), path
        assert await count(world) == after, path

        if ask.other is not None:
            other = await world.send(route, path=url, **with_headers(sent(ask.other), key))
            assert refusal(other) == (422, "idempotency_mismatch"), path
        if parameters_of(route):
            elsewhere = world.fill(route, **other_name(world, route))
            moved = await world.send(route, path=elsewhere, **with_headers(ask.sent, key))
            assert refusal(moved) == (422, "idempotency_mismatch"), path
        foreign = await world.api.http.post("/tenants", json={"name": "foreign"}, headers=key)
        expected = (422, "idempotency_mismatch")
        assert refusal(foreign) == expected, path
        assert await count(world) == after, path


def with_headers(request: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    return request | {"headers": request.get("headers", {}) | headers}


async def list_unsettled(world: World) -> Sequence[Rollout]:
    async with world.api.db.read(SYSTEM) as tx:
        return await rollouts_store.list_unsettled(tx)


async def count(world: World) -> tuple[int, int]:
    """Return how many changes and how many operations there were, once those have ended."""
    await poll(lambda: list_unsettled(world), lambda left: not left)
    operations = await poll(
        lambda: world.api.show("/operations", limit=MAX_PAGE),
        lambda shown: all(item["state"] != "running" for item in shown["items"]),
    )
    return await world.last_seq(), len(operations["items"])


def offer_tiny(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Put the furnished file among the packaged weights: what is there is not fetched again."""
    weights = PackagedWeights(
        model="tiny",
        version="9.0.0",
        description="A tiny model.",
        license="MIT",
        package="tiny",
        package_version="1",
        file="tiny/tiny.gguf",
        file_bytes=world.gguf.stat().st_size,
        sha256=world.names["sha256"],
    )
    monkeypatch.setitem(PACKAGED_WEIGHTS, "tiny", weights)


async def test_a_refused_request_leaves_its_key_free(world: World) -> None:
    key = {"idempotency-key": "used twice"}
    refused = await world.api.http.post("/tenants", json={"name": "NO NAME"}, headers=key)
    made = await world.api.http.post("/tenants", json={"name": "freed"}, headers=key)

    assert (refused.status_code, made.status_code) == (400, 201)


@pytest.mark.parametrize("key", ["", "k" * 256, "tab\there"])
async def test_a_key_that_is_none_is_refused(world: World, key: str) -> None:
    reply = await world.api.http.post(
        "/tenants", json={"name": "unkeyed"}, headers={"idempotency-key": key}
    )

    assert refusal(reply) == (400, "invalid_request")


async def test_a_secret_is_in_the_first_reply_and_nowhere_else(world: World) -> None:
    key = {"idempotency-key": "secret"}
    made = await world.api.http.post("/keys", json={"name": "secret"}, headers=key)
    again = await world.api.http.post("/keys", json={"name": "secret"}, headers=key)
    secrets = [
        made.json()["secret"],
        world.api.credentials.admin,
        world.api.credentials.api_key,
    ]

    assert made.json()["secret"].startswith("plt_live_")
    assert again.json()["secret"] is None
    shown = await world.api.show(f"/keys/{made.json()['id']}")
    assert "secret" not in shown
    everything = await read_everything(world)
    assert made.json()["id"].encode() in everything  # the search finds what is there
    assert [secret for secret in secrets if secret.encode() in everything] == []
    assert [secret for secret in secrets if secret[9:40].encode() in everything] == []


async def read_everything(world: World) -> bytes:
    """Return all bytes of the database: its files, or the rows of a server."""
    files = world.api.folder.path.glob("pilotage.db*")
    content = b"".join(path.read_bytes() for path in files)
    if content:
        return content
    async with world.api.db.read(SYSTEM) as tx:
        rows = [await tx.all(tx.select(table)) for table in get_metadata().tables.values()]
    return repr(rows).encode()


# changed knowingly


async def test_a_change_names_the_revision_it_changes(world: World) -> None:
    for route in world.api.routes:
        if route.method not in ("PUT", "PATCH"):
            continue
        ask = make_asks(world)[route.method, route.path]
        shown = world.fill(route).removesuffix("/split").removesuffix("/routing")
        old = (await world.api.http.get(shown)).headers["etag"]
        path, before = world.fill(route), await world.last_seq()

        bare = await world.api.http.request(route.method, path, **ask.sent)
        assert refusal(bare) == (428, "precondition_required"), path
        for tag in ('"999999"', '"x"', b"\xb2", "9" * 5000, '"1", "2"', "", "7" + old.strip('"')):
            reply = await world.send(route, **with_headers(ask.sent, {"if-match": tag}))
            assert refusal(reply) == (412, "precondition_failed"), f"{path} {tag[:20]!r}"
        assert await world.last_seq() == before

        fresh = await world.send(route, **with_headers(ask.sent, {"if-match": old}))
        assert fresh.status_code == 200, fresh.text
        assert fresh.headers["etag"] != old, path
        assert (await world.api.http.get(shown)).headers["etag"] == fresh.headers["etag"]
        stale = await world.send(route, **with_headers(sent(ask.other), {"if-match": old}))
        assert refusal(stale) == (412, "precondition_failed"), path
        forced = await world.send(route, **with_headers(sent(ask.other), {"if-match": "*"}))
        assert forced.status_code == 200, forced.text


# page by page


async def test_every_list_pages_without_loss_or_repetition(world: World) -> None:
    for path, make in LISTS.items():
        for number in range(5):
            await make(world, number)
        route = next(r for r in world.api.routes if (r.method, r.path) == ("GET", path))
        if path == "/audit/entries":
            await poll(
                lambda: world.api.show("/audit/entries", limit=9), lambda r: len(r["items"]) == 9
            )
        query = LIST_QUERIES.get(path, {})
        whole = await world.api.show(world.fill(route), limit=MAX_PAGE, **query)
        assert whole["next"] is None or path == "/audit/entries", path  # of which there are many
        assert path == "/packages" or len(whole["items"]) >= 5, path

        pages = [page async for page in read_pages(world, world.fill(route), query)]
        paged = [item for page in pages for item in page]
        assert [len(page) for page in pages[:-1]] == [2] * (len(pages) - 1), path
        assert [identify(item) for item in paged[: len(whole["items"])]] == [
            identify(item) for item in whole["items"]
        ], path
        assert len({identify(item) for item in paged}) == len(paged), path


async def read_pages(world: World, path: str, query: dict[str, str]) -> AsyncIterator[list[Json]]:
    after: str | None = ""
    while after is not None:
        place = {"after": after} if after else {}
        page = await world.api.show(path, **query | place, limit=2)
        yield page["items"]
        after = page["next"]


def identify(item: Json) -> str:
    return json.dumps(
        [item.get(name) for name in ("id", "seq", "position", "groups", "model", "path", "month")]
    )


async def test_a_page_has_one_to_five_hundred_items(world: World) -> None:
    for route in lists(world):
        for limit in BAD_LIMITS:
            reply = await world.send(route, params={"limit": limit})
            place = f"{route.path}?limit={limit}"
            assert refusal(reply) == (400, "invalid_request"), place
            assert reply.json()["param"] == "limit", place
        for limit in ("1", str(MAX_PAGE)):
            reply = await world.send(route, params={"limit": limit})
            assert reply.status_code == 200, f"{route.path}?limit={limit}"


# kept apart


async def test_an_unknown_project_is_told(world: World) -> None:
    asks = make_asks(world)
    for route in world.api.routes:
        ask = asks.get((route.method, route.path), Ask(None))
        if not route.is_global:
            reply = await world.send(route, project="nobody", **ask.sent)
            assert (*refusal(reply), reply.json()["param"]) == (404, "not_found", "project")


async def test_nothing_is_found_from_another_project(world: World) -> None:
    names, asks = world.names, make_asks(world)
    by_id = {name: names[f"{name}_id"] for name in ("tenant", "model", "endpoint")}
    before = await show_mine(world)
    seq = await world.last_seq()

    for route in world.api.routes:
        if route.is_global or not parameters_of(route) or route.path in OF_EVERY_PROJECT:
            continue
        ask = asks.get((route.method, route.path), Ask(None))
        for other in ({}, by_id):
            path = world.fill(route, **other)
            reply = await world.send(route, project="other", path=path, **ask.sent)
            assert refusal(reply) == (404, "not_found"), f"{route.method} {path}"

    assert await show_mine(world) == before
    assert await world.last_seq() == seq


async def show_mine(world: World) -> list[Json]:
    """Return every object of the default project that has an address, without its last look."""
    shown = [
        await world.api.show(world.fill(route), **GET_QUERIES.get(route.path, {}))
        for route in world.api.routes
        if route.method == "GET" and parameters_of(route) and not route.path.endswith("/content")
    ]
    assert len(shown) >= 8
    return [{name: value for name, value in one.items() if name != "look"} for one in shown]


async def test_lists_and_filters_end_at_the_project(world: World) -> None:
    for route in lists(world):
        if route.is_global or parameters_of(route):
            continue
        mine = await world.api.show(route.path, limit=MAX_PAGE)
        other = await world.api.show(route.path, limit=MAX_PAGE, project="other")
        assert mine["items"], route.path
        if route.path == "/usage":
            assert (mine["items"][0]["calls"], other["items"][0]["calls"]) == (6, 0)
        else:
            assert other["items"] == [], route.path
        if "tenant" in queries_of(route):
            reply = await world.send(route, project="other", params={"tenant": "acme"})
            assert refusal(reply) == (404, "not_found"), route.path
    traffic = await world.api.show("/traffic", project="other", tenant=world.names["tenant_id"])
    assert traffic["items"] == []


async def test_a_file_of_another_project_makes_no_version(world: World) -> None:
    await world.api.make("/models", {"name": "borrowed"}, params={"project": "other"})
    reply = await world.api.http.post(
        "/models/borrowed/versions",
        params={"project": "other"},
        json={"version": "1.0.0", "artifact_sha256": world.names["sha256"]},
    )
    removed = await world.api.http.delete("/models/borrowed", params={"project": "other"})

    assert (*refusal(reply), reply.json()["param"]) == (404, "not_found", "artifact_sha256")
    assert removed.status_code == 204


# whatever is sent


async def test_no_query_or_path_breaks_a_route(world: World) -> None:
    for route in world.api.routes:
        for text in HOSTILE_TEXTS:
            for name in [*queries_of(route), "project"] if route.method == "GET" else ():
                assert_told(await world.send(route, params={name: text}), f"{route.path} {name}")
            for name in parameters_of(route):
                path = world.fill(route, **{name: text.replace("/", "") or "x"})
                if text != "..":  # a client resolves it before it asks
                    reply = await world.send(route, path=path, content=b"{}", headers=JSON_TYPE)
                    assert_told(reply, f"{route.method} {path[:80]}")


async def test_no_body_breaks_a_route(world: World) -> None:
    asks = make_asks(world)
    for route in world.api.routes:
        model, ask = body_of(route), asks.get((route.method, route.path))
        if model is None or ask is None or not isinstance(ask.body, dict):
            continue
        for name in model.model_fields:
            for value in HOSTILE_VALUES:
                body = ask.body | {name: value}
                reply = await world.send(route, **sent(body))
                assert_told(reply, f"{route.method} {route.path} {str(body)[:200]}")
        for name in ("\x00", "\ud800"):
            reply = await world.send(route, **sent(ask.body | {name: 1}))
            assert refusal(reply) == (400, "invalid_request")


def assert_told(reply: httpx.Response, place: str) -> None:
    """A request is answered or refused; nothing breaks."""
    assert reply.status_code < 500, f"{place}: {reply.text}"
    if not reply.is_success:
        problem_of(reply)


async def test_the_reason_given_is_kept_as_it_was_written(world: World) -> None:
    reason = "größer, weil es nötig war"
    await world.api.make(
        "/tenants", {"name": "reasoned"}, headers={"x-pilotage-reason": reason.encode()}
    )
    query = {"event": "identity.tenant.created", "text": "weil es nötig"}
    entries = await poll(
        lambda: world.api.show("/audit/entries", **query), lambda shown: bool(shown["items"])
    )

    assert [entry["reason"] for entry in entries["items"]] == [reason]

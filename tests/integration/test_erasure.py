"""Erasing a tenant: afterwards no file and no table of the installation knows its users."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from control_api import Api, Json, open_api, seal_name
from pilotage.finops.store import add_to_counters, list_counter_totals
from pilotage.finops.types import CounterTotal
from pilotage.identity.types import Role
from pilotage.kit.clock import rfc3339
from pilotage.kit.db import SYSTEM
from pilotage.migrations.tables import get_metadata
from pilotage.monitoring.calls.rules import DAY_US
from system import poll

MARKER = "Zaphod-Beeblebrox-4711"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "data") as opened:
        yield opened


async def erase(api: Api, credential: str, reason: str = "asked", **body: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {credential}", "x-pilotage-reason": reason}
    return await api.http.post("/tenants/acme:erase", json=body, headers=headers)


async def furnish_acme(api: Api) -> Json:
    """Make a tenant with a key, a user whose name is the marker, and a counter of that user."""
    tenant = await api.make("/tenants", {"name": "acme"})
    await api.make("/keys", {"tenant": "acme", "name": "ci"})
    for name in (MARKER, "somebody else"):
        await seal_name(api, tenant["id"], name)
    await seal_name(api, "ten_other", "of another tenant")
    each = {"measure": "usd", "amount": "5", "per": "total", "user": "*"}
    limit = await api.make("/limits", {"name": "each", **each})
    async with api.db.write(SYSTEM) as tx:
        await add_to_counters(
            tx,
            [
                CounterTotal(
                    counter=f"{limit['id']}|cost|total|{of}",
                    gateway="g",
                    epoch="e",
                    used=1,
                    forget_at_us=0,
                )
                for of in (f"user={MARKER}", "user=kept", f"tenant={tenant['id']}|user=x{MARKER}")
            ],
        )
    return tenant


def find_marker(folder: Path) -> list[str]:
    return sorted(find_bytes(folder, MARKER.encode()))


def find_bytes(folder: Path, content: bytes) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and content in path.read_bytes()
    }


async def test_nothing_in_the_data_folder_names_a_user_of_an_erased_tenant(api: Api) -> None:
    tenant = await furnish_acme(api)
    assert find_marker(api.folder.path)  # the counter: the search does find
    security = await api.make_principal("sue", Role.SECURITY)

    planned = (await erase(api, security, dry_run=True)).json()
    assert await api.show("/tenants/acme")
    done = await erase(api, security)

    report = done.json()
    assert done.status_code == 200
    assert planned | {"is_done": True} == report | {"remnants": planned["remnants"]}
    assert (report["users"], report["data_keys"], report["api_keys"]) == (2, 1, 1)
    assert {"spools", "gateways' counters", "audit log", "backups elsewhere"} <= {
        item["where"] for item in report["remnants"]
    }
    assert find_marker(api.folder.path) == []
    assert [item["name"] for item in (await api.show("/users"))["items"]] == ["of another tenant"]
    (key,) = [
        item for item in (await api.show("/data-keys"))["items"] if item["owner_id"] == tenant["id"]
    ]
    assert key["destroyed_at"]
    assert (await api.http.get("/tenants/acme")).status_code == 404
    await seal_name(api, tenant["id"], MARKER)  # a call of it that comes late
    assert find_marker(api.folder.path) == []
    (counter,) = await _list_counters(api)
    assert counter.endswith("|cost|total|user=kept")


async def test_every_table_that_tells_tenants_apart_is_in_the_report(api: Api) -> None:
    await furnish_acme(api)
    report = (await erase(api, await api.make_principal("sue", Role.SECURITY), dry_run=True)).json()
    listed = {item["where"]: item["until"] for item in report["remnants"]}

    told = {
        "ledger, costs, budgets": {"ledger_entry", "cost_entry", "cost_line", "budget"},
        "feedback": {"feedback"},
        "metrics": {"rollup_cell"},
        "rollouts": {"rollout_answer"},
        "alerts and notices": {"alert", "alert_rule"},
    }
    gone = {"user_label", "call_limit", "api_key", "call_sample"}
    tables = {
        table.name
        for table in get_metadata().sorted_tables
        if {"tenant_id", "user", "labels"} & set(table.c.keys())
    }
    assert set().union(gone, *told.values()) == tables
    assert listed.keys() >= {*told, "rows of calls"}
    soon, late = (rfc3339(api.clock.now_us() + days * DAY_US) for days in (399, 401))
    assert soon < listed["rows of calls"] < late
    assert soon < listed["feedback"] < late < listed["metrics"]


async def test_what_a_reader_keeps_in_the_write_ahead_log_is_listed_and_goes_with_it(
    api: Api,
) -> None:
    tenant = await furnish_acme(api)
    security = await api.make_principal("sue", Role.SECURITY)
    with closing(sqlite3.connect(api.folder.database)) as reader:
        (wrapped,) = reader.execute(
            "SELECT wrapped FROM data_key WHERE owner_id = ?", [tenant["id"]]
        ).fetchone()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM revision").fetchone()  # as a backup does

        report = (await erase(api, security)).json()
        kept = find_bytes(api.folder.path, wrapped)

    assert kept
    assert kept <= {name for item in report["remnants"] for name in item["where"].split(", ")}

    async def find() -> Json:
        return {"kept": find_bytes(api.folder.path, wrapped)}

    await poll(find, lambda found: not found["kept"])


async def test_only_security_erases_with_a_reason_and_not_under_a_hold(api: Api) -> None:
    await furnish_acme(api)
    security = await api.make_principal("sue", Role.SECURITY)
    await api.make("/audit/holds", {"name": "case-1", "reason": "a letter"})

    refused = [
        await erase(api, api.credentials.admin),
        await erase(api, security, reason=""),
        await erase(api, security),
    ]

    assert [reply.json()["code"] for reply in refused] == [
        "permission_denied",
        "invalid_request",
        "on_hold",
    ]
    assert await api.show("/tenants/acme")
    await api.http.post("/audit/holds/case-1:release", headers={"x-pilotage-reason": "case closed"})
    assert (await erase(api, security)).status_code == 200


async def test_keys_are_rotated_while_everything_goes_on(api: Api) -> None:
    await furnish_acme(api)
    before = await api.show("/users")

    for path in ("/root-keys", "/tenants/acme/data-keys", "/root-keys"):
        operation = await api.make(path)
        while operation["state"] == "running":
            operation = await api.show(f"/operations/{operation['id']}")
        assert operation["state"] == "succeeded", operation

    assert operation["result"] == {"root": 3, "data_keys": 3}
    assert await api.show("/users") == before
    keys = (await api.show("/data-keys"))["items"]
    assert {key["root"] for key in keys} == {3}
    assert sorted(key["number"] for key in keys) == [1, 1, 2]


async def _list_counters(api: Api) -> list[str]:
    async with api.db.read(SYSTEM) as tx:
        return [total.counter for total in await list_counter_totals(tx)]

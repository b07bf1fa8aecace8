"""Costs, budgets and chargeback through the control API and the command line."""

import asyncio
import csv
import io
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx
import msgspec
import pytest

from command_line import CommandLine
from control_api import COST, Api, open_api, put_call, put_calls
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import SpoolPlace
from pilotage.kit.db import SYSTEM
from users_calls import end

NOVEMBER = {"end": "2023-11-16"}
BROKEN = b'date,model,cost\n"2026-03-01,a,1\n' + b"x" * 200_000


async def test_a_month_is_a_file_that_adds_up_and_reconciles_with_itself(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        await put_calls(api, 3)
        await api.make("/cost-entries", COST | {"source": "gcp", "start": "2023-11-15"} | NOVEMBER)
        before = await api.show("/costs", by="kind")
        month = await api.http.get("/chargeback/2023-11", params={"format": "csv"})
        parquet = await api.http.get("/chargeback/2023-11", params={"format": "parquet"})
        rows = list(csv.DictReader(io.StringIO(month.text)))
        total = sum(Decimal(row["BilledCost"]) for row in rows)
        own = await api.http.post(
            "/chargeback/2023-11:reconcile", params={"provider": "openai"}, content=month.content
        )
        checked = await api.show("/costs:check")

    assert month.headers["content-type"] == "text/csv; charset=utf-8"
    assert parquet.content[:4] == parquet.content[-4:] == b"PAR1"
    assert [(item["groups"]["kind"], item["cost_usd"]) for item in before["items"]] == [
        ("calls", "0.0045"),
        ("network", "1.50"),
    ]
    assert total == Decimal("1.5045")
    assert checked["is_equal"] is True
    assert own.status_code == 200, own.text
    assert own.json()["invoiced"] == "1.5045"
    assert own.json()["recorded"] == "0"


async def test_files_of_tenants_of_nobody_and_of_copies_add_up_to_the_months(
    tmp_path: Path,
) -> None:
    async def add(api: Api, form: str, tenant: str | None) -> Decimal:
        query = {"format": form} | ({} if tenant is None else {"tenant": tenant})
        reply = await api.http.get("/chargeback/2023-11", params=query)
        assert reply.status_code == 200, reply.text
        if form == "csv":
            rows = csv.DictReader(io.StringIO(reply.text))
            return sum((Decimal(row["BilledCost"]) for row in rows), start=Decimal(0))
        return await asyncio.to_thread(sum_parquet, reply.content)

    async with open_api(tmp_path) as api:
        await put_calls(api, 3)
        await put_copy(api)
        await api.make("/cost-entries", COST | {"source": "gcp", "start": "2023-11-15"} | NOVEMBER)
        of = {
            form: [await add(api, form, tenant) for tenant in (None, "default", "shadow", "none")]
            for form in ("csv", "parquet")
        }
        shown = [
            (await api.show("/costs", tenant=tenant))["items"][0]["cost_usd"]
            for tenant in ("default", "shadow", "none")
        ]
        of_none = {"name": "b", "amount": "1", "tenant": "none"}
        refused = await api.http.post("/budgets", json=of_none)

    parts = [Decimal("0.0045"), Decimal("0.000000007"), Decimal("1.5")]
    assert of["csv"] == of["parquet"] == [sum(parts), *parts]
    assert [Decimal(usd) for usd in shown] == parts
    assert (refused.status_code, refused.json()["param"]) == (400, "tenant")


async def put_copy(api: Api) -> None:
    """Write a copy of a call that no client waited for to the ledger."""
    tenant = await api.show("/tenants/default")
    copy = msgspec.structs.replace(
        end("call_copy", "", tenant["id"], tenant["project_id"]),
        at_us=1_700_000_000_000_000,
        cost_nano=7,
        flags=["shadow"],
    )
    async with api.db.write(SYSTEM) as tx:
        place = SpoolPlace(gateway="gateway-1", epoch="e", seq=0)
        await FinopsService(api.clock).record(tx, place, 1, [make_charge(copy, "gateway-1")])


def sum_parquet(content: bytes) -> Decimal:
    """Return what the rows of a Parquet file cost."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect() as connection:
        file.write(content)
        file.flush()
        statement = f"SELECT SUM(BilledCost) FROM read_parquet('{file.name}')"
        ((found,),) = connection.execute(statement).fetchall()
    return Decimal(found)


async def test_a_correction_of_a_month_is_compared_with_the_invoice_of_that_month(
    tmp_path: Path,
) -> None:
    usage = {
        "kind": "usage",
        "start": "2023-11-15",
        "end": "2023-11-16",
        "model": "o3",
        "provider": "openai",
    }

    async def compare(api: Api, month: str) -> dict[str, Any]:
        content = f"month,model,usd\n{month},o3,1.5\n2021-01,o3,9\n".encode()
        reply = await api.http.post(
            f"/chargeback/{month}:reconcile", params={"provider": "openai"}, content=content
        )
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    async with open_api(tmp_path) as api:
        await api.make("/cost-entries", usage | {"source": "a", "cost_usd": "1.5"})
        wrong = await api.make("/cost-entries", usage | {"source": "b", "cost_usd": "4"})
        reversal = await api.make(f"/cost-entries/{wrong['id']}:reverse")
        then = await compare(api, "2023-11")
        now = await compare(api, reversal["created_at"][:7])

    assert (then["recorded"], then["difference"]) == ("1.5", "0")
    assert now["recorded"] == "0"  # what is taken back there is of another month's invoice
    assert (then["outside_lines"], then["outside"]) == (1, "9")


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/chargeback/2026-3", "month"),
        ("/chargeback/2026-03?format=xlsx", "format"),
        ("/costs?by=colour", "by"),
        ("/costs?since=yesterday", "since"),
        ("/costs?by=day&after=x", "after"),
        ("/costs:savings?reference=nothing", "reference"),
        ("/costs:release?release=dep_none", "release"),
    ],
)
async def test_what_cannot_be_asked_is_told_with_a_hint(
    tmp_path: Path, path: str, param: str
) -> None:
    async with open_api(tmp_path) as api:
        reply = await api.http.get(path)

    assert reply.status_code in (400, 404), reply.text
    assert reply.json()["param"] == param
    assert reply.json()["hint"]


async def test_what_cannot_be_said_is_refused(tmp_path: Path) -> None:
    async def refused(api: Api, path: str, **more: object) -> tuple[int, str]:
        reply: httpx.Response = await api.http.post(path, **more)  # type: ignore[arg-type]
        return reply.status_code, reply.json()["code"]

    async with open_api(tmp_path) as api:
        invoice = "/chargeback/2026-03:reconcile"
        found = [
            await refused(api, "/cost-entries", json=COST | {"source": ""}),
            await refused(api, "/cost-entries", json=COST | {"source": "a", "cost_usd": "x"}),
            await refused(api, "/cost-entries", json=COST | {"source": "a", "quantity": "1e-9"}),
            await refused(api, "/cost-entries", json=COST | {"source": "a", "start": "x"}),
            await refused(api, invoice, content=b"a,b\n", params={"provider": "acme"}),
            await refused(api, invoice, content=b"\xff", params={"provider": "openai"}),
            await refused(api, invoice, content=BROKEN, params={"provider": "openai"}),
            await refused(api, "/charges/call_none:reverse"),
            await refused(api, "/cost-entries/cst_none:reverse"),
        ]

    assert [status for status, _ in found] == [400] * 7 + [404, 404]
    assert {code for _, code in found} == {"invalid_request", "not_found"}


async def test_a_charge_that_is_taken_back_is_in_no_sum(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        call_id = await put_call(api)
        before = await api.show("/costs")
        reversal = await api.make(f"/charges/{call_id}:reverse")
        after = await api.show("/costs")
        release = await api.show("/costs:release", release="dep_furnished")

    assert before["items"][0]["cost_nano"] > 0
    assert reversal["kind"] == "reversal"
    assert reversal["cost_nano"] == -before["items"][0]["cost_nano"]
    assert after["items"][0]["cost_nano"] == 0
    assert release["calls"] == 1


def test_a_month_on_the_command_line_is_no_path(tmp_path: Path) -> None:
    pilotage = CommandLine(tmp_path)
    file = tmp_path / "x.csv"

    for month in ("../usage", "2026/03", "..", "2026-3"):
        said = pilotage("chargeback", "export", month, str(file))
        assert (said.code, file.exists()) == (1, False)
        assert "month" in said.err or "name" in said.err


def test_lines_of_other_months_are_told_of_on_the_command_line(tmp_path: Path) -> None:
    pilotage = CommandLine(tmp_path)
    invoice = tmp_path / "february.csv"
    invoice.write_text("date,model,cost\n2026-02-01,gpt-4o,7\n")

    said = pilotage.ok("chargeback", "reconcile", "2026-03", str(invoice), "--provider", "openai")

    assert "1 line of another month is not compared, USD 7." in said.err


def test_a_release_has_its_cost_on_the_command_line(tmp_path: Path) -> None:
    pilotage = CommandLine(tmp_path)

    unknown = pilotage("cost", "release", "dep_none")

    assert unknown.code == 1
    assert "dep_none" in unknown.err
    assert "pilotage cost show --by release" in unknown.err

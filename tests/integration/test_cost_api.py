"""Costs, budgets and chargeback through the control API and the command line."""

import csv
import io
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from command_line import CommandLine
from control_api import COST, Api, open_api, put_call, put_calls


async def test_a_month_is_a_file_that_adds_up_and_reconciles_with_itself(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        await put_calls(api, 3)
        await api.make("/cost-entries", COST | {"source": "gcp", "start": "2023-11-15"})
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
            await refused(api, "/charges/call_none:reverse"),
            await refused(api, "/cost-entries/cst_none:reverse"),
        ]

    assert [status for status, _ in found] == [400, 400, 400, 400, 400, 400, 404, 404]
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


def test_a_release_has_its_cost_on_the_command_line(tmp_path: Path) -> None:
    pilotage = CommandLine(tmp_path)

    unknown = pilotage("cost", "release", "dep_none")

    assert unknown.code == 1
    assert "dep_none" in unknown.err
    assert "pilotage cost show --by release" in unknown.err

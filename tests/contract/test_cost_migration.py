"""A ledger that was there before there were lines of costs gets them, on both databases."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from alembic import command

import stores
from pilotage.finops.costs.rules import find_corrected, make_line, make_lines
from pilotage.finops.costs.store import COST_LINE
from pilotage.finops.insights.service import CostInsights
from pilotage.finops.rules import make_charge, make_reversal
from pilotage.finops.service import FinopsService
from pilotage.finops.store import LEDGER_ENTRY
from pilotage.finops.types import LedgerEntry
from pilotage.finops.user_store import PLAIN_USERS
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, open_postgres, open_sqlite
from pilotage.kit.outbox import CURSOR
from pilotage.migrations.run import make_config, migrate
from postgres_server import PostgresServer
from users_calls import end

DAY_US = 86_400_000_000


@pytest.fixture
async def older(
    postgres_or_none: PostgresServer | None, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Database]:
    """Return a database as it was before there were costs."""
    if postgres_or_none is None:
        opened = open_sqlite(tmp_path / "test.db", clock)
    else:
        opened = open_postgres(postgres_or_none.make_empty(), "", clock)
    async with opened.engine.begin() as conn:
        await conn.run_sync(lambda sync: command.upgrade(make_config(sync), "0019"))
    yield opened
    await opened.close()


def make_entries(project_id: str) -> list[LedgerEntry]:
    """Return charges of two days with odd names and long prompts, and two reversals."""
    ended = end("c", "ada", project_id=project_id)
    charges = [
        make_charge(
            msgspec.structs.replace(
                ended,
                call_id=f"c{number}",
                at_us=ended.at_us + (number % 2) * DAY_US,
                feature=("faq", 'q"\\\t\u00e9\u2028', "")[number % 3],
                usage=msgspec.structs.replace(ended.usage, input=number * 60_000),
                cost_nano=number * 7,
                is_estimated=number == 4,
            ),
            "gateway-0",
        )
        for number in range(8)
    ]
    soon, late = charges[3].at_us + 1, charges[5].at_us + 40 * DAY_US
    return [*charges, make_reversal(charges[3], soon), make_reversal(charges[5], late)]


async def test_lines_are_filled_from_the_ledger(older: Database, clock: ManualClock) -> None:
    projects = await stores.make_projects(older, clock)
    entries = make_entries(projects.mine.project_id or "")
    newer = {"seq", "billed_day"}
    columns = [name for name in LedgerEntry.__dataclass_fields__ if name not in newer]
    rows: list[dict[str, object]] = [{n: getattr(e, n) for n in columns} for e in entries]
    async with older.write(SYSTEM) as tx:
        await tx.insert_many(LEDGER_ENTRY, rows)
        await tx.insert(CURSOR, consumer=PLAIN_USERS, seq=2)

    await migrate(older)

    unnamed = [replace(entry, user="") for entry in entries[:2]] + entries[2:]
    charged = {entry.call_id: entry.day for entry in entries[:8]}
    corrects = {
        entry.call_id: find_corrected(charged[entry.call_id], entry.day) for entry in entries[8:]
    }
    async with older.read(projects.mine) as tx:
        rows_now = await tx.all(tx.select(COST_LINE))
        checked = await CostInsights(FinopsService(clock)).check(tx, "2000-01-01", "2100-01-01")
    found = {row["id"]: make_line(dict(row)) for row in rows_now}
    assert found == make_lines(unnamed, corrects)
    assert {line.corrects for line in found.values()} == {"", "2023-11"}
    assert {line.user for line in found.values()} == {"", "ada"}
    assert checked.ledger_nano == checked.lines_nano == sum(e.cost_nano for e in entries)

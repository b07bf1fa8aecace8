"""Calls and a bill of a day, for tests of what they cost."""

import msgspec

from pilotage.core.frames import Ended, Outcome
from pilotage.core.usage import Usage
from pilotage.finops.costs.types import CostKind, EntrySpec, Span
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import LedgerEntry
from pilotage.kit.clock import parse_rfc3339
from pilotage.kit.db import SYSTEM, Database

NOON = parse_rfc3339("2026-03-10T12:00:00Z")
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
ALL = Span(since="2026-01-01", until="2027-01-01")
LUMP = EntrySpec(
    kind=CostKind.NETWORK, source="bill", start_us=NOON, end_us=NOON + 1, cost_nano=500
)


def charge(call_id: str, project_id: str | None, **more: object) -> LedgerEntry:
    """Return the charge of a call at noon."""
    ended = Ended(
        call_id=call_id,
        at_us=NOON,
        project_id=project_id or "",
        tenant_id="ten_a",
        key_id="key_a",
        alias="chat",
        outcome=Outcome.OK,
        status=200,
        usage=Usage(input=1000, output=200),
        cost_nano=1_000,
        is_estimated=False,
        duration_us=5_000_000,
        ttft_us=900,
        chunks=4,
        attempts=1,
        arm="dep_a",
        model="tiny@1.0.0",
        price_id="prc_a",
    )
    return make_charge(msgspec.structs.replace(ended, **more), "gateway-0")


async def put(
    database: Database, finops: FinopsService, *charges: LedgerEntry, spool: str = "gateway-0"
) -> None:
    """Write charges to the ledger."""
    async with database.write(SYSTEM) as tx:
        place = await finops.get_place(tx, spool, "e")
        await finops.record(tx, place, place.seq + len(charges), charges)

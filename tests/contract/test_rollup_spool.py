"""What calls add up to, from real spool folders: exactly once, whatever happens in between."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calls import NOON_US, make_call, open_writer, put_calls
from pilotage.core.frames import Ended, Outcome
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.monitoring.rollups.service import ANYBODY, RollupService
from pilotage.monitoring.rollups.types import SHADOW_TENANT, Cell, Dimension, Selection
from pilotage.monitoring.rollups.worker import RollupReader

BATCH = 4
MINUTE_US = 60_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def reader(database: Database, root: Path) -> AsyncIterator[RollupReader]:
    made = RollupReader(database, root, RollupService(), batch=BATCH)
    yield made
    made.close()


async def drain(reader: RollupReader) -> None:
    while await reader.step():
        pass


async def read_all(
    database: Database,
    select: Selection = ANYBODY,
    by: tuple[Dimension, ...] = (),
    actor: Actor = SYSTEM,
) -> dict[tuple[str, ...], Cell]:
    async with database.read(actor) as tx:
        return await RollupService().read_cells(tx, select, 0, NOON_US + 3600 * MINUTE_US, by)


async def test_calls_are_told_apart_and_added_up(
    database: Database, reader: RollupReader, root: Path
) -> None:
    calls = [
        make_call(alias="chat", duration_us=200_000),
        make_call(alias="chat", tenant_id="ten_b", duration_us=400_000),
        make_call(alias="code", at_us=NOON_US + MINUTE_US, outcome=Outcome.UPSTREAM_CUT),
        make_call(alias="code", outcome=Outcome.CLIENT_GONE),
        make_call(alias="code", outcome=Outcome.REFUSED, code="rate_limited", duration_us=10),
        make_call(alias="code", flags=["shadow"]),
    ]
    with open_writer(root) as spool:
        put_calls(spool, calls)
    await drain(reader)

    found = await read_all(database, by=(Dimension.ALIAS,))
    assert {labels: cell.calls for labels, cell in found.items()} == {("chat",): 2, ("code",): 3}
    assert found["chat",].duration.mean == 300_000
    assert found["code",].error_rate == 1 / 2
    assert found["code",].codes == {"rate_limited": 1}
    assert found["code",].duration.count == 2
    copies = await read_all(database, Selection(tenant_id=SHADOW_TENANT))
    assert copies[()].calls == 1
    mine = await read_all(database, Selection(tenant_id="ten_b"), (Dimension.TENANT,))
    assert {labels: cell.calls for labels, cell in mine.items()} == {("ten_b",): 1}


async def test_a_project_sees_only_its_own(
    database: Database, reader: RollupReader, root: Path
) -> None:
    with open_writer(root) as spool:
        put_calls(spool, [make_call(), make_call(project_id="prj_other")])
    await drain(reader)
    somebody = Actor(principal_id="usr_1", project_id="prj_other")
    found = await read_all(database, by=(Dimension.PROJECT,), actor=somebody)
    assert {labels: cell.calls for labels, cell in found.items()} == {("prj_other",): 1}


async def test_a_batch_that_fails_is_counted_once(database: Database, root: Path) -> None:
    class Dying:
        deaths = 2
        written: list[int]

        def __init__(self) -> None:
            self.written = []

        async def prepare(self, batch: object) -> None:
            pass

        async def write(self, tx: object) -> None:
            self.written.append(1)
            if len(self.written) % 2 and self.deaths:
                self.deaths -= 1
                raise RuntimeError("the process dies here")

    calls = [make_call(duration_us=n * 1000, at_us=NOON_US + n * 7_000_000) for n in range(23)]
    with open_writer(root) as spool:
        put_calls(spool, calls)
    reader = RollupReader(database, root, RollupService(), sinks=[Dying()], batch=BATCH)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await drain(reader)
    await drain(reader)
    reader.close()
    assert await read_all(database) == {(): add(calls)}


def add(calls: list[Ended]) -> Cell:
    cell = Cell()
    for call in calls:
        cell.add(call)
    return cell

"""What has lost its price is served on; on both databases."""

from decimal import Decimal
from pathlib import Path

import pytest

from pilotage.core.usage import Rates
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Database
from published import Plane, open_plane


@pytest.fixture
async def plane(database: Database, clock: ManualClock, tmp_path: Path) -> Plane:
    return await open_plane(database, clock, tmp_path)


def list_served_rates(plane: Plane) -> list[Rates]:
    """Return what the arms of the one endpoint of a Snapshot cost."""
    (alias,) = plane.read().list_aliases(plane.actor.project_id or "")
    return [arm.rates for arm in alias.entry.arms]


class Forgetful(FinopsService):
    """A price book that knows nothing any more, as an offline list of another version may be."""

    async def find_rates(self, *_: object, **__: object) -> None:
        """Return that nobody knows."""
        return


async def test_what_has_lost_its_price_is_served_at_the_one_that_it_had(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    await plane.serve("chat", "tiny@1.0.0", "tiny@2.0.0")
    await plane.set_price("tiny")
    assert await plane.open_publisher().publish()
    before = list_served_rates(plane)

    forgetful = plane._replace(finops=Forgetful(plane.clock))
    publisher = forgetful.open_publisher()
    for shares in ({"tiny@2.0.0": Decimal(100)}, {"tiny@1.0.0": Decimal(100)}):
        async with plane.db.write(plane.actor) as tx:  # to and fro: both have served
            await plane.endpoints.split(tx, "chat", shares)
        assert await publisher.publish()
        assert list_served_rates(plane) == before
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" ")[0] for line in said if "no price any more" in line] == [
        *("tiny@1.0.0", "tiny@2.0.0")
    ]

    await plane.serve("new", "tiny@1.0.0")  # it has never had one
    assert await publisher.publish()
    assert [item.name for item in publisher.unpublished] == ["new"]

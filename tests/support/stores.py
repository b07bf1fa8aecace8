"""What the suites of the stores share: two projects to act in, and races between transactions."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx

Result = TypeVar("Result")


class Projects(NamedTuple):
    """Somebody in one project, somebody in another."""

    mine: Actor
    other: Actor


async def make_projects(db: Database, clock: Clock) -> Projects:
    """Make two projects and an actor in each."""
    identity = IdentityService(clock)
    async with db.write(SYSTEM) as tx:
        mine = await identity.create_project(tx, "mine")
        other = await identity.create_project(tx, "other")
    return Projects(
        Actor(principal_id="usr_1", project_id=mine.id, reason="a test"),
        Actor(principal_id="usr_2", project_id=other.id),
    )


async def race(
    db: Database, actor: Actor, work: Callable[[Tx], Awaitable[Result]], runners: int = 4
) -> tuple[list[Result], list[Exception]]:
    """Run the same work in so many transactions at once; return what they returned and raised."""

    async def run() -> Result:
        async with db.write(actor) as tx:
            return await work(tx)

    ended = await asyncio.gather(*(run() for _ in range(runners)), return_exceptions=True)
    won = [item for item in ended if not isinstance(item, BaseException)]
    lost: list[Exception] = []
    for item in ended:
        if isinstance(item, PilotageError | sa.exc.IntegrityError):
            lost.append(item)
        elif isinstance(item, BaseException):
            raise item
    return won, lost

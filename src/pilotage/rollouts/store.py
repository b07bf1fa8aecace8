"""The tables of rollouts, and all SQL on them."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.rollouts.step_rules import leave_out_unseen
from pilotage.rollouts.types import ENDED, Judgement, Look, Plan, Progress, Rollout, State

ROLLOUT = sa.Table(
    "rollout",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoint.id"), nullable=False, index=True),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("baseline_id", sa.Text, nullable=False),
    sa.Column("baseline", sa.Text, nullable=False),
    sa.Column("candidate_id", sa.Text, nullable=False),
    sa.Column("candidate", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("since_us", sa.BigInteger, nullable=False),
    sa.Column("began_us", sa.BigInteger, nullable=False),
    sa.Column("has_passed", sa.Boolean, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("said", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("decision_id", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("ended_at_us", sa.BigInteger),
    sa.Column("lease_holder", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("lease_until_us", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("is_settled", sa.Boolean, nullable=False, server_default=sa.false(), index=True),
)
LOOK = sa.Table(
    "rollout_look",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rollout_id", sa.Text, sa.ForeignKey("rollout.id"), nullable=False),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("judged", sa.Text, nullable=False),
    sa.Index("ix_rollout_look_rollout_id_id", "rollout_id", "id"),
)
_PLAIN = (
    *("id", "rev", "project_id", "endpoint_id", "endpoint", "baseline_id", "baseline"),
    *("candidate_id", "candidate", "weight", "said", "reason", "fingerprint", "decision_id"),
    *("created_by", "created_at_us", "ended_at_us"),
)
_GOES_ON = ROLLOUT.c.state.in_(sorted(set(State) - ENDED))  # named, so that the index finds them


class Lease(NamedTuple):
    """Which process looks after a rollout, and until when; ``holder`` is "" before the first."""

    holder: str
    until_us: int


async def insert_rollout(tx: Tx, rollout: Rollout) -> None:
    """Add a rollout."""
    values = {name: getattr(rollout, name) for name in _PLAIN}
    plan = msgspec.json.encode(rollout.plan, order="sorted").decode()
    await tx.insert(ROLLOUT, **values, plan=plan, **_spread(rollout.progress))


async def find_rollout(tx: Tx, rollout_id: str) -> Rollout | None:
    """Return a rollout by id."""
    row = await tx.find(tx.select(ROLLOUT).where(ROLLOUT.c.id == rollout_id))
    return _rollout(row) if row else None


async def find_running(tx: Tx, endpoint_id: str) -> Rollout | None:
    """Return the rollout of an endpoint that has not ended."""
    goes_on = tx.select(ROLLOUT).where(ROLLOUT.c.endpoint_id == endpoint_id, _GOES_ON)
    row = await tx.find(goes_on)
    return _rollout(row) if row else None


async def list_rollouts(
    tx: Tx, after: str, limit: int, *, endpoint_id: str = "", state: State | None = None
) -> Sequence[Rollout]:
    """Return rollouts, newest first; ``after`` is the id of the last one that was seen."""
    statement = tx.select(ROLLOUT)
    if after:
        statement = statement.where(ROLLOUT.c.id < after)
    if endpoint_id:
        statement = statement.where(ROLLOUT.c.endpoint_id == endpoint_id)
    if state is not None:
        statement = statement.where(ROLLOUT.c.state == state)
    rows = await tx.all(statement.order_by(ROLLOUT.c.id.desc()).limit(limit))
    return [_rollout(row) for row in rows]


async def list_running(tx: Tx) -> Sequence[Rollout]:
    """Return all rollouts that have not ended, oldest first."""
    rows = await tx.all(tx.select(ROLLOUT).where(_GOES_ON).order_by(ROLLOUT.c.id))
    return [_rollout(row) for row in rows]


async def list_unsettled(tx: Tx) -> Sequence[Rollout]:
    """Return the rollouts that have ended and left something to do, oldest first."""
    ended = tx.select(ROLLOUT).where(~ROLLOUT.c.is_settled, ROLLOUT.c.state.in_(sorted(ENDED)))
    return [_rollout(row) for row in await tx.all(ended.order_by(ROLLOUT.c.id))]


async def settle_rollout(tx: Tx, rollout_id: str) -> bool:
    """Write that an ended rollout has nothing left to do; False if somebody else has."""
    mine = tx.update(ROLLOUT).where(ROLLOUT.c.id == rollout_id, ~ROLLOUT.c.is_settled)
    return await tx.change(mine.values(is_settled=True)) == 1


async def move_rollout(tx: Tx, rollout: Rollout, after: Rollout) -> bool:
    """Write how far a rollout is and count its revision up; False if it has moved meanwhile."""
    guarded = tx.update(ROLLOUT).where(ROLLOUT.c.id == rollout.id, ROLLOUT.c.rev == rollout.rev)
    values = {
        "rev": rollout.rev + 1,
        "weight": after.weight,
        "said": after.said,
        "decision_id": after.decision_id,
        "ended_at_us": after.ended_at_us,
        **_spread(after.progress),
    }
    return await tx.change(guarded.values(**values)) == 1


async def say(tx: Tx, rollout: Rollout, said: str) -> bool:
    """Write why a rollout stands where it does; False if it has moved meanwhile."""
    guarded = tx.update(ROLLOUT).where(ROLLOUT.c.id == rollout.id, ROLLOUT.c.rev == rollout.rev)
    return await tx.change(guarded.values(said=said)) == 1


async def find_lease(tx: Tx, rollout_id: str) -> Lease:
    """Return who looks after a rollout, and until when."""
    row = await tx.find(tx.select(ROLLOUT).where(ROLLOUT.c.id == rollout_id))
    return Lease(row["lease_holder"], row["lease_until_us"]) if row else Lease("", 0)


async def take_lease(tx: Tx, rollout: Rollout, holder: str, until_us: int) -> bool:
    """Let one process alone look after a rollout until a time; False while another one does.

    The time since the last lease ended does not count for what the rollout waits for.
    """
    free = (ROLLOUT.c.lease_holder == holder) | (ROLLOUT.c.lease_until_us < tx.now_us)
    mine = (ROLLOUT.c.id == rollout.id, ROLLOUT.c.rev == rollout.rev, free)
    row = await tx.find(tx.select(ROLLOUT).where(*mine))
    if row is None:
        return False
    progress = leave_out_unseen(rollout.progress, row["lease_until_us"], tx.now_us)
    taken = {"lease_holder": holder, "lease_until_us": until_us, **_spread(progress)}
    return await tx.change(tx.update(ROLLOUT).where(*mine).values(taken)) == 1


async def insert_look(tx: Tx, look: Look) -> None:
    """Keep a look."""
    values = {name: getattr(look, name) for name in Look.__dataclass_fields__}
    judged = msgspec.json.encode(look.judged, order="sorted").decode()
    await tx.insert(LOOK, **values | {"judged": judged})


async def list_looks(tx: Tx, rollout_id: str, after: str, limit: int) -> Sequence[Look]:
    """Return the looks at a rollout, newest first; ``after`` is the last one that was seen."""
    statement = tx.select(LOOK).where(LOOK.c.rollout_id == rollout_id)
    if after:
        statement = statement.where(LOOK.c.id < after)
    rows = await tx.all(statement.order_by(LOOK.c.id.desc()).limit(limit))
    return [
        Look(**dict(row) | {"judged": msgspec.json.decode(row["judged"], type=Judgement)})
        for row in rows
    ]


def _spread(progress: Progress) -> dict[str, object]:
    return {name: getattr(progress, name) for name in Progress.__dataclass_fields__}


def _rollout(row: Row) -> Rollout:
    far = {name: row[name] for name in Progress.__dataclass_fields__}
    progress = Progress(**far | {"state": State(row["state"])})
    plan = msgspec.json.decode(row["plan"], type=Plan)
    return Rollout(**{name: row[name] for name in _PLAIN}, plan=plan, progress=progress)

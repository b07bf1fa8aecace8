"""The tables of what was counted of rollouts, and all SQL on them."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.rollouts.measuring.types import (
    Answer,
    CallKey,
    Standing,
    StepCount,
    UnitSeen,
    Watched,
)

ROLLOUT_WATCH = sa.Table(
    "rollout_watch",
    METADATA,
    sa.Column("rollout_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("is_open", sa.Boolean, nullable=False),
    sa.Column("watched", sa.LargeBinary, nullable=False),
    sa.Column("standing", sa.LargeBinary, nullable=False),
)
ROLLOUT_COUNT = sa.Table(
    "rollout_count",
    METADATA,
    sa.Column("rollout_id", sa.Text, primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("held", sa.LargeBinary, nullable=False),
)
ROLLOUT_UNIT = sa.Table(
    "rollout_unit",
    METADATA,
    sa.Column("rollout_id", sa.Text, primary_key=True),
    sa.Column("unit", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("held", sa.LargeBinary, nullable=False),
)
ROLLOUT_ANSWER = sa.Table(
    "rollout_answer",
    METADATA,
    sa.Column("call_id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("rollout_id", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("is_candidate", sa.Boolean, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("score", sa.Integer, nullable=False),
    sa.Index(None, "rollout_id", "at_us"),
)
Item = TypeVar("Item")
_W, _C, _U, _A = ROLLOUT_WATCH.c, ROLLOUT_COUNT.c, ROLLOUT_UNIT.c, ROLLOUT_ANSWER.c
_PAGE = 500  # units or calls in one statement
_PORTION = 2_000  # rows that are deleted at once: nobody waits for long
_WAITS_US = 3_600_000_000  # for the end of a call that was scored
_GROWING = 7_310_591  # the lock of whoever counts: what is there is read, grown and written back
_PACK = msgspec.msgpack.Encoder().encode
_WATCHED = msgspec.msgpack.Decoder(Watched)
_STANDING = msgspec.msgpack.Decoder(Standing)
_COUNT = msgspec.msgpack.Decoder(StepCount)
_UNIT = msgspec.msgpack.Decoder(UnitSeen)


async def hold_counts(tx: Tx) -> None:
    """Let no other process count before this transaction ends."""
    await tx.lock(_GROWING)


async def insert_watch(tx: Tx, watched: Watched, standing: Standing) -> None:
    """Write that a rollout is counted from now on."""
    await tx.insert(
        ROLLOUT_WATCH,
        rollout_id=watched.rollout_id,
        project_id=watched.project_id,
        is_open=True,
        watched=_PACK(watched),
        standing=_PACK(standing),
    )


async def find_watch(tx: Tx, rollout_id: str) -> tuple[Watched, Standing] | None:
    """Return how a rollout is or was counted, and what is known beside its counts."""
    row = await tx.find(tx.select(ROLLOUT_WATCH).where(_W.rollout_id == rollout_id))
    return (_WATCHED.decode(row["watched"]), _STANDING.decode(row["standing"])) if row else None


async def list_open(tx: Tx, project_ids: Collection[str]) -> list[tuple[Watched, Standing]]:
    """Return the rollouts of some projects that are counted now."""
    mine = tx.select(ROLLOUT_WATCH).where(_W.project_id.in_(sorted(project_ids)), _W.is_open)
    return [
        (_WATCHED.decode(row["watched"]), _STANDING.decode(row["standing"]))
        for row in await tx.all(mine.order_by(_W.rollout_id))
    ]


async def close_watch(tx: Tx, rollout_id: str) -> None:
    """Write that a rollout is not counted any more."""
    mine = tx.update(ROLLOUT_WATCH).where(_W.rollout_id == rollout_id)
    await tx.change(mine.values(is_open=False))


async def drop_units(tx: Tx, rollout_id: str) -> bool:
    """Drop some of what units did in a rollout; False if there was less to drop."""
    some = tx.select(ROLLOUT_UNIT, _U.unit).where(_U.rollout_id == rollout_id).limit(_PORTION)
    mine = tx.delete(ROLLOUT_UNIT).where(_U.rollout_id == rollout_id, _U.unit.in_(some))
    return await tx.change(mine) == _PORTION


async def drop_answers(tx: Tx, rollout_id: str) -> bool:
    """Drop some of the calls of a rollout that might be scored; False if there were fewer."""
    return await _drop_answers(tx, _A.rollout_id == rollout_id)


async def drop_scores(tx: Tx, *, are_wanted: bool) -> bool:
    """Drop some scores of calls of no rollout: all, or if they are wanted those that waited long.

    False if there were fewer.
    """
    is_old = _A.at_us < tx.now_us - _WAITS_US if are_wanted else sa.true()
    return await _drop_answers(tx, _A.rollout_id == "", is_old)


async def write_standing(tx: Tx, rollout_id: str, standing: Standing) -> None:
    """Write what is known beside a rollout's counts."""
    mine = tx.update(ROLLOUT_WATCH).where(_W.rollout_id == rollout_id)
    await tx.change(mine.values(standing=_PACK(standing)))


async def list_counts(tx: Tx, rollout_id: str) -> dict[int, StepCount]:
    """Return what was counted of a rollout by step."""
    rows = await tx.all(tx.select(ROLLOUT_COUNT).where(_C.rollout_id == rollout_id))
    return {row["step"]: _COUNT.decode(row["held"]) for row in rows}


async def add_counts(tx: Tx, watched: Watched, counts: Mapping[int, StepCount]) -> None:
    """Add counts to those of a rollout's steps."""
    known = await list_counts(tx, watched.rollout_id) if counts else {}
    changed: list[dict[str, object]] = []
    made: list[dict[str, object]] = []
    for step, count in counts.items():
        if step in known:
            known[step].merge(count)
            changed.append({"b_step": step, "b_held": _PACK(known[step])})
        else:
            made.append(
                {
                    "rollout_id": watched.rollout_id,
                    "step": step,
                    "project_id": watched.project_id,
                    "held": _PACK(count),
                }
            )
    same = (_C.rollout_id == watched.rollout_id, _C.step == sa.bindparam("b_step"))
    grown = tx.update(ROLLOUT_COUNT).where(*same).values(held=sa.bindparam("b_held"))
    await tx.change_many(grown, changed)
    await tx.insert_many(ROLLOUT_COUNT, made)


async def list_units(tx: Tx, rollout_id: str, units: Collection[str]) -> dict[str, UnitSeen]:
    """Return what some units have done in a rollout; those that are new to it are left out."""
    found: dict[str, UnitSeen] = {}
    for page in _split(sorted(units)):
        mine = tx.select(ROLLOUT_UNIT).where(_U.rollout_id == rollout_id, _U.unit.in_(page))
        found |= await asyncio.to_thread(_open_units, await tx.all(mine))
    return found


async def put_units(
    tx: Tx, watched: Watched, units: Mapping[str, UnitSeen], known: Collection[str]
) -> None:
    """Write what units have done; ``known`` are those that were there before."""
    rollout_id = watched.rollout_id
    same = (_U.rollout_id == rollout_id, _U.unit == sa.bindparam("b_unit"))
    changed = tx.update(ROLLOUT_UNIT).where(*same).values(held=sa.bindparam("b_held"))
    made: dict[str, object] = {"rollout_id": rollout_id, "project_id": watched.project_id}
    for page in _split(list(units)):
        old: list[dict[str, object]] = []
        new: list[dict[str, object]] = []
        for unit in page:
            held = _PACK(units[unit])
            if unit in known:
                old.append({"b_unit": unit, "b_held": held})
            else:
                new.append(made | {"unit": unit, "held": held})
        await tx.change_many(changed, old)
        await tx.insert_many(ROLLOUT_UNIT, new)


async def find_answers(tx: Tx, keys: Collection[CallKey]) -> dict[CallKey, Answer]:
    """Return what is known of some calls."""
    found: dict[CallKey, Answer] = {}
    for page in _split(sorted(keys)):
        named = sa.tuple_(_A.call_id, _A.tenant_id).in_([tuple(key) for key in page])
        for row in await tx.all(tx.select(ROLLOUT_ANSWER).where(named)):
            answer = Answer(**row)
            found[answer.key] = answer
    return found


async def insert_answers(tx: Tx, answers: Sequence[Answer]) -> None:
    """Write what is known of calls that were not."""
    await tx.insert_many(ROLLOUT_ANSWER, [answer._asdict() for answer in answers])


async def change_answers(tx: Tx, answers: Sequence[Answer]) -> None:
    """Write more of calls that are known."""
    same = (_A.call_id == sa.bindparam("b_call_id"), _A.tenant_id == sa.bindparam("b_tenant_id"))
    names = ("rollout_id", "step", "is_candidate", "unit", "score")
    changed = tx.update(ROLLOUT_ANSWER).where(*same)
    changed = changed.values({name: sa.bindparam(f"b_{name}") for name in names})
    rows = [
        {f"b_{name}": getattr(answer, name) for name in ("call_id", "tenant_id", *names)}
        for answer in answers
    ]
    await tx.change_many(changed, rows)


async def _drop_answers(tx: Tx, *which: sa.ColumnElement[bool]) -> bool:
    some = tx.select(ROLLOUT_ANSWER, _A.call_id, _A.tenant_id).where(*which).limit(_PORTION)
    named = sa.tuple_(_A.call_id, _A.tenant_id).in_(some)
    return await tx.change(tx.delete(ROLLOUT_ANSWER).where(named)) == _PORTION


def _open_units(rows: Sequence[Row]) -> dict[str, UnitSeen]:
    return {row["unit"]: _UNIT.decode(row["held"]) for row in rows}


def _split(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield some at a time."""
    for start in range(0, len(items), _PAGE):
        yield items[start : start + _PAGE]

"""The tables of drift, and all SQL on them."""

import asyncio
from collections.abc import Collection, Sequence

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.monitoring.drift.types import (
    AnswerKey,
    Cells,
    Frozen,
    Held,
    Measure,
    Place,
    Reference,
)

MEASURE_CELL = sa.Table(
    "measure_cell",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),  # no foreign keys: calls outlive everything
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version_id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("measure", sa.Text, primary_key=True),
    sa.Column("at_us", sa.BigInteger, primary_key=True, index=True),
    sa.Column("held", sa.LargeBinary, nullable=False),
)
DRIFT_REFERENCE = sa.Table(
    "drift_reference",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("is_automatic", sa.Boolean, nullable=False),
    sa.Column("frozen_at_us", sa.BigInteger, nullable=False),
    sa.Column("frozen_by", sa.Text, nullable=False),
    sa.Column("held", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("project_id", "alias", "version_id", "model"),
)
_C = MEASURE_CELL.c
_R = DRIFT_REFERENCE.c
_PLACE = (_C.project_id, _C.alias, _C.version_id, _C.model, _C.measure, _C.at_us)
_HELD = msgspec.msgpack.Decoder(Held)
_FROZEN = msgspec.msgpack.Decoder(dict[str, Frozen])
_PAGE = 200  # spans in one statement
_GROWING = 7_310_585  # the lock of whoever adds to cells: they are read, grown and written back
_PACK = msgspec.msgpack.Encoder().encode


async def add_cells(tx: Tx, cells: Cells) -> None:
    """Add cells to those that are there, which grow by what they count."""
    await tx.lock(_GROWING)
    changed, made = await asyncio.to_thread(_grow, cells, await _list_known(tx, cells))
    same = [column == sa.bindparam(f"b_{column.name}") for column in _PLACE]
    grown = tx.update(MEASURE_CELL).where(*same).values(held=sa.bindparam("b_held"))
    await tx.change_many(grown, changed)
    await tx.insert_many(MEASURE_CELL, made)


async def list_cells(
    tx: Tx,
    since_us: int,
    until_us: int,
    key: AnswerKey | None = None,
    measures: Collection[Measure] | None = None,
) -> Cells:
    """Return the cells whose spans begin from one time to before another.

    Those of one key or of all, and of some measures or (None) of all.
    """
    statement = tx.select(MEASURE_CELL).where(_C.at_us >= since_us, _C.at_us < until_us)
    if key is not None:
        statement = statement.where(*_match(MEASURE_CELL, key))
    if measures is not None:
        statement = statement.where(_C.measure.in_(sorted(measures)))
    return await asyncio.to_thread(_open, await tx.all(statement))


async def list_keys(tx: Tx, since_us: int) -> Sequence[AnswerKey]:
    """Return whose answers have been counted since a time, in order."""
    columns = (_C.project_id, _C.alias, _C.version_id, _C.model)
    rows = await tx.all(
        tx.select(MEASURE_CELL, *columns).where(_C.at_us >= since_us).distinct().order_by(*columns)
    )
    return [AnswerKey(**row) for row in rows]


async def drop_cells(tx: Tx, before_us: int) -> int:
    """Drop the cells whose spans began before a time; return how many."""
    return await tx.change(tx.delete(MEASURE_CELL).where(_C.at_us < before_us))


async def insert_reference(tx: Tx, reference: Reference) -> bool:
    """Write a new reference; False if there is one of its key."""
    try:
        await tx.insert(DRIFT_REFERENCE, id=reference.id, **_columns(reference))
    except sa.exc.IntegrityError:
        return False
    return True


async def change_reference(tx: Tx, reference: Reference, rev: int) -> bool:
    """Replace a reference of a revision; False if it has another by now."""
    guarded = tx.update(DRIFT_REFERENCE).where(_R.id == reference.id, _R.rev == rev)
    return await tx.change(guarded.values(**_columns(reference))) == 1


async def delete_reference(tx: Tx, reference_id: str, rev: int) -> bool:
    """Delete a reference of a revision; False if it has another by now."""
    guarded = tx.delete(DRIFT_REFERENCE).where(_R.id == reference_id, _R.rev == rev)
    return await tx.change(guarded) == 1


async def find_reference(tx: Tx, reference_id: str) -> Reference | None:
    """Return a reference by its id."""
    row = await tx.find(tx.select(DRIFT_REFERENCE).where(_R.id == reference_id))
    return _reference(row) if row else None


async def find_reference_of(tx: Tx, key: AnswerKey) -> Reference | None:
    """Return the reference of a key."""
    row = await tx.find(tx.select(DRIFT_REFERENCE).where(*_match(DRIFT_REFERENCE, key)))
    return _reference(row) if row else None


async def list_references(
    tx: Tx, alias: str | None = None, after: str = "", limit: int = 1_000_000
) -> Sequence[Reference]:
    """Return references in order of their ids, of one endpoint or of all."""
    statement = tx.select(DRIFT_REFERENCE).where(_R.id > after).order_by(_R.id).limit(limit)
    if alias is not None:
        statement = statement.where(_R.alias == alias)
    return [_reference(row) for row in await tx.all(statement)]


async def _list_known(tx: Tx, cells: Collection[Place]) -> list[Row]:
    """Return the rows of those of some places that have one."""
    known: list[Row] = []
    spans = sorted({place.at_us for place in cells})
    projects = {place.key.project_id for place in cells}
    aliases = {place.key.alias for place in cells}
    for start in range(0, len(spans), _PAGE):
        near = tx.select(MEASURE_CELL).where(
            _C.at_us.in_(spans[start : start + _PAGE]),
            _C.project_id.in_(projects),
            _C.alias.in_(aliases),
        )
        known += [row for row in await tx.all(near) if _place(row) in cells]
    return known


def _grow(
    cells: Cells, known: Sequence[Row]
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return the rows that grow, as parameters, and those that are made."""
    grown = _open(known)
    for place, held in grown.items():
        held.merge(cells[place])
    changed = [_values(place, held, "b_") for place, held in grown.items()]
    return changed, [_values(place, held) for place, held in cells.items() if place not in grown]


def _open(rows: Sequence[Row]) -> Cells:
    return {_place(row): _HELD.decode(row["held"]) for row in rows}


def _match(table: sa.Table, key: AnswerKey) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in key._asdict().items()]


def _place(row: Row) -> Place:
    key = AnswerKey(row["project_id"], row["alias"], row["version_id"], row["model"])
    return Place(key, Measure(row["measure"]), row["at_us"])


def _values(place: Place, held: Held, prefix: str = "") -> dict[str, object]:
    values = {
        **place.key._asdict(),
        "measure": place.measure.value,
        "at_us": place.at_us,
        "held": _PACK(held),
    }
    return {f"{prefix}{name}": value for name, value in values.items()}


def _columns(reference: Reference) -> dict[str, object]:
    return {
        **reference.key._asdict(),
        "rev": reference.rev,
        "is_automatic": reference.is_automatic,
        "frozen_at_us": reference.frozen_at_us,
        "frozen_by": reference.frozen_by,
        "held": _PACK({measure.value: held for measure, held in reference.measures.items()}),
    }


def _reference(row: Row) -> Reference:
    held = _FROZEN.decode(row["held"])
    plain = {name: row[name] for name in Reference.__dataclass_fields__ if name != "measures"}
    return Reference(**plain, measures={Measure(name): held[name] for name in sorted(held)})

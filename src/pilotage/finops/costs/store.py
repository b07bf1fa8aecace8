"""The tables of costs, and all SQL on them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import sqlalchemy as sa

from pilotage.core.frames import Outcome
from pilotage.core.names import SHADOW_TENANT
from pilotage.finops.costs.rules import HOUR_US, LINE_KEY, LINE_SUMS, make_line
from pilotage.finops.costs.types import (
    CostBy,
    CostEntry,
    CostKind,
    CostLine,
    CostRow,
    Resource,
    ResourcePrice,
    Share,
    Span,
)
from pilotage.finops.rules import get_day
from pilotage.finops.store import LEDGER_ENTRY
from pilotage.finops.types import EntryKind
from pilotage.kit.db import METADATA, SYSTEM, Row, Tx


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


COST_LINE = sa.Table(
    "cost_line",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    *(_text(name) for name in LINE_KEY if name != "band"),
    _number("band"),
    *map(_number, LINE_SUMS),
    sa.Index(None, "project_id", "day"),
)
COST_ENTRY = sa.Table(
    "cost_entry",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    *map(_text, ("project_id", "kind", "source", "tenant_id", "alias")),
    *map(_text, ("release", "version_id", "model", "provider", "unit", "unit_price")),
    *map(_text, ("note", "reverses", "created_by")),
    sa.Column("is_spot", sa.Boolean, nullable=False),
    *map(_number, ("start_us", "end_us", "quantity", "cost_nano", "created_at_us")),
    sa.UniqueConstraint("project_id", "source"),
)
COST_SHARE = sa.Table(
    "cost_share",
    METADATA,
    sa.Column("entry_id", sa.Text, primary_key=True),
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("corrects", sa.Text, primary_key=True),
    _text("project_id"),
    *map(_number, ("cost_nano", "quantity")),
    sa.Index(None, "project_id", "day"),
)
RESOURCE_PRICE = sa.Table(
    "resource_price",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    *map(_text, ("kind", "subject", "price", "spot_price", "created_by")),
    *map(_number, ("valid_from_us", "created_at_us")),
    sa.UniqueConstraint("project_id", "kind", "subject", "valid_from_us"),
)
_ENTRY_FIELDS = tuple(name for name in CostEntry.__dataclass_fields__ if name != "shares")
_SHARE_FIELDS = tuple(Share.__dataclass_fields__)
_OF_ENTRY = COST_SHARE.c.entry_id == COST_ENTRY.c.id
_PAGE = 500
_GOOD = (Outcome.OK.value, Outcome.CLIENT_GONE.value)  # who left had an answer coming
_LINE_COLUMNS: Mapping[CostBy, sa.ColumnElement[str]] = {
    CostBy.TENANT: COST_LINE.c.tenant_id,
    CostBy.USER: COST_LINE.c.user,
    CostBy.KEY: COST_LINE.c.key_id,
    CostBy.FEATURE: COST_LINE.c.feature,
    CostBy.ALIAS: COST_LINE.c.alias,
    CostBy.MODEL: COST_LINE.c.model,
    CostBy.VERSION: COST_LINE.c.version_id,
    CostBy.RELEASE: COST_LINE.c.arm,
    CostBy.UPSTREAM: COST_LINE.c.upstream_id,
    CostBy.DAY: COST_LINE.c.day,
    CostBy.MONTH: sa.func.substr(COST_LINE.c.day, 1, 7),
    CostBy.KIND: sa.literal(CostKind.CALLS.value),
}
_ENTRY_COLUMNS: Mapping[CostBy, sa.ColumnElement[str]] = {
    CostBy.TENANT: COST_ENTRY.c.tenant_id,
    CostBy.USER: sa.literal(""),
    CostBy.KEY: sa.literal(""),
    CostBy.FEATURE: sa.literal(""),
    CostBy.ALIAS: COST_ENTRY.c.alias,
    CostBy.MODEL: COST_ENTRY.c.model,
    CostBy.VERSION: COST_ENTRY.c.version_id,
    CostBy.RELEASE: COST_ENTRY.c.release,
    CostBy.UPSTREAM: sa.literal(""),
    CostBy.DAY: COST_SHARE.c.day,
    CostBy.MONTH: sa.func.substr(COST_SHARE.c.day, 1, 7),
    CostBy.KIND: COST_ENTRY.c.kind,
}
_CALL_COLUMNS: Mapping[CostBy, sa.ColumnElement[str]] = {
    name: LEDGER_ENTRY.c[column.name]
    for name, column in _LINE_COLUMNS.items()
    if isinstance(column, sa.Column)
}
_TOKENS = sum((COST_LINE.c[name] for name in LINE_SUMS[1:6]), start=sa.literal(0))
_GROWING = 7_310_588  # the lock of whoever adds to lines: they are read, grown and written back


# lines


async def add_lines(tx: Tx, lines: Mapping[str, CostLine]) -> None:
    """Add to lines by their ids; those that are there are put in place anew, a page at a time."""
    await tx.lock(_GROWING)
    ids = sorted(lines)
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        theirs = COST_LINE.c.id.in_(page)
        old = {row["id"]: row for row in await tx.all(tx.select(COST_LINE).where(theirs))}
        if old:
            await tx.change(tx.delete(COST_LINE).where(COST_LINE.c.id.in_(old)))
        await tx.insert_many(
            COST_LINE, [_merge(line_id, lines[line_id], old.get(line_id)) for line_id in page]
        )


async def list_lines(tx: Tx, span: Span) -> Sequence[CostLine]:
    """Return lines with keys and users summed up: what is billed says neither."""
    kept = [name for name in LINE_KEY if name not in {"key_id", "user"}]
    columns = [COST_LINE.c[name] for name in kept]
    sums = [sa.func.sum(COST_LINE.c[name]).label(name) for name in LINE_SUMS]
    statement = tx.select(COST_LINE, *columns, *sums).where(*_within(COST_LINE, span))
    rows = await tx.all(statement.group_by(*columns).order_by(*columns))
    return [
        make_line({"key_id": "", "user": ""} | dict(row) | {n: int(row[n]) for n in LINE_SUMS})
        for row in rows
    ]


async def sum_costs(tx: Tx, by: Sequence[CostBy], span: Span) -> list[CostRow]:
    """Sum calls and entries by groups, in the order of their keys."""
    rows: dict[tuple[str, ...], CostRow] = {}
    for row in (*await _sum_lines(tx, by, span), *await _sum_entries(tx, by, span)):
        key = tuple(row.groups.values())
        rows[key] = _add(rows[key], row) if key in rows else row
    return [rows[key] for key in sorted(rows)]


async def sum_ledger(tx: Tx, span: Span) -> int:
    """Return what the ledger itself says that calls cost, to check the lines by."""
    columns = LEDGER_ENTRY.c
    total = 0
    late = columns.billed_day.is_not(None)
    for day, is_such in ((columns.day, ~late), (columns.billed_day, late)):
        statement = tx.select(LEDGER_ENTRY, sa.func.sum(columns.cost_nano).label("total")).where(
            is_such, day >= span.since, day < span.until
        )
        if span.project_id is not None:
            statement = statement.where(columns.project_id == span.project_id)
        row = await tx.find(statement)
        total += int(row["total"] or 0) if row else 0
    return total


async def list_price_days(tx: Tx, span: Span) -> dict[str, str]:
    """Return the ids of the prices that lines have, and the last day of each."""
    last = tx.select(COST_LINE, COST_LINE.c.price_id, sa.func.max(COST_LINE.c.day).label("last"))
    rows = await tx.all(last.where(*_within(COST_LINE, span)).group_by(COST_LINE.c.price_id))
    return {row["price_id"]: row["last"] for row in rows}


async def sum_calls_since(
    tx: Tx, project_id: str, start_us: int, by: Sequence[CostBy]
) -> list[tuple[dict[str, str], int]]:
    """Sum what the ledger has from a recent time on, by groups."""
    columns = [_CALL_COLUMNS[name].label(f"by_{name}") for name in by]
    total = sa.func.sum(LEDGER_ENTRY.c.cost_nano).label("total")
    since = tx.select(LEDGER_ENTRY, *columns, total).where(
        LEDGER_ENTRY.c.project_id == project_id,
        LEDGER_ENTRY.c.day >= get_day(start_us),  # the day is what the index knows
        LEDGER_ENTRY.c.at_us >= start_us,
    )
    rows = await tx.all(since.group_by(*(sa.text(f"by_{name}") for name in by)))
    return [
        ({name.value: row[f"by_{name}"] for name in by}, int(row["total"]))
        for row in rows
        if row["total"] is not None
    ]


async def list_spans(
    tx: Tx, project_id: str, release: str, start_us: int, end_us: int
) -> list[tuple[int, int]]:
    """Return when calls ran that a release answered and that ended from a time on.

    A call is of the hour that it ends in or of the one before; longer ones count from there.
    """
    columns = (LEDGER_ENTRY.c.at_us, LEDGER_ENTRY.c.duration_us)
    days = {get_day(at_us) for at_us in (start_us, end_us, end_us + HOUR_US)}
    found = tx.select(LEDGER_ENTRY, *columns).where(
        LEDGER_ENTRY.c.project_id == project_id,
        LEDGER_ENTRY.c.arm == release,
        LEDGER_ENTRY.c.kind == EntryKind.CHARGE,
        LEDGER_ENTRY.c.at_us >= start_us,
        LEDGER_ENTRY.c.at_us - LEDGER_ENTRY.c.duration_us < end_us,
        LEDGER_ENTRY.c.day.in_(sorted(days)),  # the day is what the index knows
    )
    return [
        (row["at_us"] - max(0, row["duration_us"]), row["at_us"]) for row in await tx.all(found)
    ]


async def sum_failed(tx: Tx, release: str, since: str, until: str) -> int:
    """Return what the calls of a release cost that failed, copies for nobody left out."""
    total = sa.func.sum(LEDGER_ENTRY.c.cost_nano).label("total")
    failed = tx.select(LEDGER_ENTRY, total).where(
        LEDGER_ENTRY.c.arm == release,
        LEDGER_ENTRY.c.day >= since,
        LEDGER_ENTRY.c.day < until,
        LEDGER_ENTRY.c.tenant_id != SHADOW_TENANT,
        LEDGER_ENTRY.c.outcome.not_in(_GOOD),
    )
    row = await tx.find(failed)
    return int(row["total"] or 0) if row else 0


async def sum_models(tx: Tx, since: str, until: str, task: str) -> list[tuple[str, int, int, int]]:
    """Return model, calls, failed calls and cost of calls of a feature or alias ("" all)."""
    columns = LEDGER_ENTRY.c
    is_charge = columns.kind == EntryKind.CHARGE
    has_failed = is_charge & columns.outcome.not_in(_GOOD)
    statement = tx.select(
        LEDGER_ENTRY,
        columns.model,
        sa.func.sum(sa.case((is_charge, 1), else_=0)).label("calls"),
        sa.func.sum(sa.case((has_failed, 1), else_=0)).label("failed"),
        sa.func.sum(columns.cost_nano).label("total"),
    ).where(
        columns.day >= since,
        columns.day < until,
        columns.model != "",
        columns.tenant_id != SHADOW_TENANT,
    )
    if task:
        statement = statement.where((columns.feature == task) | (columns.alias == task))
    return [
        (row["model"], int(row["calls"]), int(row["failed"]), int(row["total"]))
        for row in await tx.all(statement.group_by(columns.model))
    ]


# entries


async def insert_entry(tx: Tx, entry: CostEntry) -> bool:
    """Add an entry and its shares; False if its source is booked already."""
    known = tx.select(COST_ENTRY, COST_ENTRY.c.id).where(
        COST_ENTRY.c.project_id == entry.project_id, COST_ENTRY.c.source == entry.source
    )
    if await tx.find(known) is not None:
        return False
    await tx.insert(COST_ENTRY, **{name: getattr(entry, name) for name in _ENTRY_FIELDS})
    whose = {"entry_id": entry.id, "project_id": entry.project_id}
    shares = [
        whose | {name: getattr(share, name) for name in _SHARE_FIELDS} for share in entry.shares
    ]
    await tx.insert_many(COST_SHARE, shares)
    return True


async def find_entry(tx: Tx, entry_id: str) -> CostEntry | None:
    """Return an entry."""
    return next(iter(await _load_entries(tx, COST_ENTRY.c.id == entry_id)), None)


async def find_source(tx: Tx, source: str) -> CostEntry | None:
    """Return the entry of a source."""
    return next(iter(await _load_entries(tx, COST_ENTRY.c.source == source)), None)


async def list_entries(
    tx: Tx, after: str, limit: int, kind: CostKind | None
) -> Sequence[CostEntry]:
    """Return entries by id, which is by age."""
    page = tx.select(COST_ENTRY, COST_ENTRY.c.id).where(COST_ENTRY.c.id > after)
    if kind is not None:
        page = page.where(COST_ENTRY.c.kind == kind)
    return await _load_entries(tx, COST_ENTRY.c.id.in_(page.order_by("id").limit(limit)))


async def list_shares(tx: Tx, span: Span) -> Sequence[CostEntry]:
    """Return what counts of entries on some days, by id: only those of their shares."""
    return await _load_entries(tx, *_within(COST_SHARE, span))


async def find_last_end(tx: Tx, project_id: str, kind: CostKind) -> int | None:
    """Return when the time ends up to which a kind of cost is booked; None for not at all."""
    last = tx.select(COST_ENTRY, sa.func.max(COST_ENTRY.c.end_us).label("last")).where(
        COST_ENTRY.c.project_id == project_id,
        COST_ENTRY.c.kind == kind,
        COST_ENTRY.c.created_by == SYSTEM.principal_id,
    )
    row = await tx.find(last)
    return int(row["last"]) if row and row["last"] is not None else None


# prices of resources


async def insert_price(tx: Tx, price: ResourcePrice) -> bool:
    """Add a price; False (and a transaction that can only roll back) if that moment has one."""
    try:
        await tx.insert(
            RESOURCE_PRICE,
            **{name: getattr(price, name) for name in ResourcePrice.__dataclass_fields__},
        )
    except sa.exc.IntegrityError:
        return False
    return True


async def list_prices(
    tx: Tx, after: str = "", limit: int = 1_000_000, project_id: str | None = None
) -> Sequence[ResourcePrice]:
    """Return prices of resources by id."""
    statement = tx.select(RESOURCE_PRICE).where(RESOURCE_PRICE.c.id > after)
    if project_id is not None:
        statement = statement.where(RESOURCE_PRICE.c.project_id == project_id)
    rows = await tx.all(statement.order_by(RESOURCE_PRICE.c.id).limit(limit))
    return [ResourcePrice(**dict(row) | {"kind": Resource(row["kind"])}) for row in rows]


async def _sum_lines(tx: Tx, by: Sequence[CostBy], span: Span) -> list[CostRow]:
    columns = [_LINE_COLUMNS[name].label(f"by_{name}") for name in by]
    statement = tx.select(
        COST_LINE,
        *columns,
        sa.func.sum(COST_LINE.c.calls).label("calls"),
        sa.func.sum(_TOKENS).label("tokens"),
        sa.func.sum(COST_LINE.c.cost_nano).label("cost_nano"),
        sa.func.sum(COST_LINE.c.estimated_nano).label("estimated_nano"),
    ).where(*_within(COST_LINE, span))
    found = await tx.all(statement.group_by(*(sa.text(f"by_{name}") for name in by)))
    return [
        CostRow(
            groups={name.value: row[f"by_{name}"] for name in by},
            calls=int(row["calls"]),
            tokens=int(row["tokens"]),
            cost_nano=int(row["cost_nano"]),
            estimated_nano=int(row["estimated_nano"]),
            by_kind={CostKind.CALLS.value: int(row["cost_nano"])},
        )
        for row in found
        if row["calls"] is not None  # without groups there is a row of nothing
    ]


async def _sum_entries(tx: Tx, by: Sequence[CostBy], span: Span) -> list[CostRow]:
    columns = [_ENTRY_COLUMNS[name].label(f"by_{name}") for name in by]
    total = sa.func.sum(COST_SHARE.c.cost_nano).label("total")
    kind = COST_ENTRY.c.kind.label("of_kind")
    statement = tx.select(COST_SHARE, *columns, kind, total).join(COST_ENTRY, _OF_ENTRY)
    statement = statement.where(*_within(COST_SHARE, span))
    names = ("of_kind", *(f"by_{name}" for name in by))
    return [
        CostRow(
            groups={name.value: row[f"by_{name}"] for name in by},
            cost_nano=int(row["total"]),
            by_kind={row["of_kind"]: int(row["total"])},
        )
        for row in await tx.all(statement.group_by(*map(sa.text, names)))
    ]


def _within(table: sa.Table, span: Span) -> Iterable[sa.ColumnElement[bool]]:
    columns = _LINE_COLUMNS if table is COST_LINE else _ENTRY_COLUMNS
    yield table.c.day >= span.since
    yield table.c.day < span.until
    if span.project_id is not None:
        yield table.c.project_id == span.project_id
    if span.corrects:
        yield table.c.corrects == span.corrects
    for name, value in span.only:
        yield columns[name] == value


def _add(one: CostRow, other: CostRow) -> CostRow:
    by_kind = dict(one.by_kind)
    for kind, nano in other.by_kind.items():
        by_kind[kind] = by_kind.get(kind, 0) + nano
    return CostRow(
        groups=one.groups,
        calls=one.calls + other.calls,
        tokens=one.tokens + other.tokens,
        cost_nano=one.cost_nano + other.cost_nano,
        estimated_nano=one.estimated_nano + other.estimated_nano,
        by_kind=by_kind,
    )


def _merge(line_id: str, line: CostLine, old: Row | None) -> dict[str, object]:
    key = {name: getattr(line, name) for name in LINE_KEY}
    sums = {
        name: getattr(line, name) + (int(old[name]) if old is not None else 0) for name in LINE_SUMS
    }
    return {"id": line_id} | key | sums


async def _load_entries(tx: Tx, *conditions: sa.ColumnElement[bool]) -> list[CostEntry]:
    """Return entries by id with those of their shares for which some conditions hold."""
    columns = [COST_ENTRY.c[name] for name in _ENTRY_FIELDS]
    shares = [COST_SHARE.c[name].label(f"share_{name}") for name in _SHARE_FIELDS]
    found = tx.select(COST_SHARE, *columns, *shares).join(COST_ENTRY, _OF_ENTRY).where(*conditions)
    rows = await tx.all(found.order_by(COST_ENTRY.c.id, COST_SHARE.c.day, COST_SHARE.c.corrects))
    entries = []
    for _, own in groupby(rows, key=lambda row: row["id"]):
        parts = list(own)
        values = {name: parts[0][name] for name in _ENTRY_FIELDS}
        made = [Share(**{name: row[f"share_{name}"] for name in _SHARE_FIELDS}) for row in parts]
        entries.append(
            CostEntry(**values | {"kind": CostKind(values["kind"]), "shares": tuple(made)})
        )
    return entries

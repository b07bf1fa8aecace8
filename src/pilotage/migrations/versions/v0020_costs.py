"""Cost lines, entries of what is no call, prices of resources, replicas' times, and budgets."""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
_NAMES = ("tenant_id", "key_id", "user", "feature", "alias", "arm", "version_id", "model")
_KEY = ("project_id", "day", *_NAMES, "upstream_id", "price_id", "band", "corrects")
_SUMS = ("calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
_ALL_SUMS = (*_SUMS, "reasoning_tokens", "cost_nano", "estimated_nano")
_PAGE = 1000
_GROUPED = """
SELECT e.project_id, e.day, e.tenant_id, e.key_id,
    CASE WHEN e.seq <= p.last THEN '' ELSE e."user" END AS "user",
    e.feature, e.alias, e.arm, e.version_id, e.model, e.upstream_id, e.price_id,
    CASE
        WHEN ABS(e.prompt_tokens) > 272000 THEN 272000
        WHEN ABS(e.prompt_tokens) > 200000 THEN 200000
        WHEN ABS(e.prompt_tokens) > 128000 THEN 128000
        WHEN ABS(e.prompt_tokens) > 100000 THEN 100000
        ELSE 0
    END AS band,
    CASE
        WHEN c.day IS NULL OR SUBSTR(c.day, 1, 7) = SUBSTR(e.day, 1, 7) THEN ''
        ELSE SUBSTR(c.day, 1, 7)
    END AS corrects,
    SUM(CASE WHEN e.kind = 'charge' THEN 1 ELSE 0 END) AS calls,
    SUM(e.input_tokens) AS input_tokens,
    SUM(e.cache_read_tokens) AS cache_read_tokens,
    SUM(e.cache_write_tokens) AS cache_write_tokens,
    SUM(e.output_tokens) AS output_tokens,
    SUM(e.reasoning_tokens) AS reasoning_tokens,
    SUM(e.cost_nano) AS cost_nano,
    SUM(CASE WHEN e.is_estimated THEN e.cost_nano ELSE 0 END) AS estimated_nano
FROM (
    SELECT ledger_entry.*,
        input_tokens + cache_read_tokens + cache_write_tokens AS prompt_tokens
    FROM ledger_entry
) e
CROSS JOIN (
    SELECT COALESCE(MAX(seq), 0) AS last
    FROM outbox_cursor WHERE consumer = 'finops.plain_users'
) p
LEFT JOIN ledger_entry c
    ON c.call_id = e.call_id AND c.kind = 'charge' AND e.kind = 'reversal'
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
"""


def upgrade() -> None:
    """Add the tables, and fill the lines from the ledger."""
    lines = op.create_table(
        "cost_line",
        _text("id"),
        *map(_text, (*_KEY[:-2], "corrects")),
        _number("band"),
        *map(_number, _ALL_SUMS),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cost_line")),
    )
    op.create_index("ix_cost_line_project_id_day", "cost_line", ["project_id", "day"])
    _create_entries()
    _create_months()
    _create_resources()
    _create_budgets()
    for page in _sum_ledger():
        op.bulk_insert(lines, page)


def _create_entries() -> None:
    op.create_table(
        "cost_entry",
        *map(_text, ("id", "project_id", "kind", "source", "tenant_id", "alias")),
        *map(_text, ("release", "version_id", "model", "provider", "unit", "unit_price")),
        *map(_text, ("note", "reverses", "created_by")),
        sa.Column("is_spot", sa.Boolean(), nullable=False),
        *map(_number, ("start_us", "end_us", "quantity", "cost_nano", "created_at_us")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cost_entry")),
        sa.UniqueConstraint("project_id", "source", name=op.f("uq_cost_entry_project_id_source")),
    )
    op.create_table(
        "cost_share",
        *map(_text, ("entry_id", "day", "corrects", "project_id")),
        *map(_number, ("cost_nano", "quantity")),
        sa.PrimaryKeyConstraint("entry_id", "day", "corrects", name=op.f("pk_cost_share")),
    )
    op.create_index("ix_cost_share_project_id_day", "cost_share", ["project_id", "day"])


def _create_months() -> None:
    op.create_table(
        "closed_month",
        *map(_text, ("project_id", "month")),
        *map(_number, ("closed_at_us", "calls_nano", "entries_nano")),
        sa.PrimaryKeyConstraint("project_id", "month", name=op.f("pk_closed_month")),
    )
    op.create_table(
        "closed_rates",
        *map(_text, ("project_id", "month", "price_id", "rates")),
        sa.PrimaryKeyConstraint("project_id", "month", "price_id", name=op.f("pk_closed_rates")),
    )
    op.add_column("ledger_entry", sa.Column("billed_day", sa.Text()))
    late = sa.text("billed_day IS NOT NULL")
    op.create_index(
        "ix_ledger_entry_project_id_billed_day",
        "ledger_entry",
        ["project_id", "billed_day"],
        sqlite_where=late,
        postgresql_where=late,
    )


def _create_resources() -> None:
    op.create_table(
        "resource_price",
        *map(_text, ("id", "project_id", "kind", "subject", "price", "spot_price", "created_by")),
        *map(_number, ("valid_from_us", "created_at_us")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resource_price")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_resource_price_project_id")
        ),
        sa.UniqueConstraint(
            "project_id",
            "kind",
            "subject",
            "valid_from_us",
            name=op.f("uq_resource_price_project_id_kind_subject_valid_from_us"),
        ),
    )
    op.create_table(
        "replica_time",
        *map(_text, ("id", "project_id", "replica_id", "release", "alias", "version_id", "model")),
        sa.Column("is_spot", sa.Boolean(), nullable=False),
        *map(_number, ("pid", "start_us", "seen_us", "booked_us")),
        sa.Column("end_us", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replica_time")),
    )
    op.create_index("ix_replica_time_booked_us", "replica_time", ["booked_us"])


def _create_budgets() -> None:
    op.create_table(
        "budget",
        *map(_text, ("id", "project_id", "name", "per", "tenant_id", "alias", "model")),
        *map(_text, ("feature", "thresholds")),
        *map(_number, ("rev", "amount_nano", "created_at_us")),
        sa.Column("deleted_at_us", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_budget_project_id")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_budget_project_id_name")),
    )
    op.create_table(
        "budget_mark",
        *map(_text, ("budget_id", "project_id", "period")),
        *map(_number, ("percent", "at_us", "spent_nano")),
        sa.PrimaryKeyConstraint("budget_id", "period", "percent", name=op.f("pk_budget_mark")),
    )


def _sum_ledger() -> Iterator[list[dict[str, object]]]:
    """Yield the lines of the whole ledger; users in plain words, which get tokens later, are left.

    A reversal whose charge is of an earlier month corrects that month.
    """
    found = op.get_bind().execute(sa.text(_GROUPED)).mappings()
    while page := found.fetchmany(_PAGE):
        yield [_line(dict(row)) for row in page]


def _line(row: dict[str, Any]) -> dict[str, object]:
    sums = {name: int(row[name]) for name in _ALL_SUMS}
    key = msgspec.json.encode([row[name] for name in _KEY])
    digest = hashlib.blake2b(key, digest_size=16)
    return row | sums | {"id": digest.hexdigest()}


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)

"""Rows as files: CSV by the standard library, Parquet made of CSV by DuckDB."""

import csv
import io
import tempfile
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from pilotage.finops.chargeback.rules import AMOUNTS, COLUMNS, TIMES
from pilotage.finops.chargeback.types import FocusRow, FocusValue

_AMOUNT = "DECIMAL(38, 15)"
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what begins one


def to_csv(rows: Iterable[FocusRow]) -> bytes:
    """Return rows as CSV with a header, in UTF-8, for programs and for spreadsheets.

    What is null is empty, times are RFC 3339 in UTC. A text that a spreadsheet would take for a
    formula has an apostrophe before it, as OWASP recommends against CSV injection.
    """
    return _write(rows, _show_safe).encode()


def to_parquet(rows: Iterable[FocusRow]) -> bytes:
    """Return rows as Parquet, with decimals and times as such and texts as they are; blocks."""
    import duckdb

    columns = {name: _type(name) for name in COLUMNS}
    with tempfile.TemporaryDirectory(prefix="pilotage-focus-") as folder:
        source, target = Path(folder, "rows.csv"), Path(folder, "rows.parquet")
        source.write_text(_write(rows, _show), encoding="utf-8")
        with duckdb.connect(config={"threads": 1, "memory_limit": "512MB"}) as connection:
            connection.read_csv(
                str(source), header=True, columns=columns, na_values="", quotechar='"'
            ).write_parquet(str(target), compression="zstd")
        return target.read_bytes()


def _write(rows: Iterable[FocusRow], show: Callable[[FocusValue], str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([show(row[name]) for name in COLUMNS])
    return text.getvalue()


def _type(name: str) -> str:
    if name in TIMES:
        return "TIMESTAMPTZ"
    if name in AMOUNTS:
        return _AMOUNT
    return {"x_Calls": "BIGINT", "x_PeriodClosed": "BOOLEAN"}.get(name, "VARCHAR")


def _show(value: FocusValue) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _show_safe(value: FocusValue) -> str:
    shown = _show(value)
    is_formula = isinstance(value, str) and shown.startswith(_FORMULAS)
    return f"'{shown}" if is_formula else shown

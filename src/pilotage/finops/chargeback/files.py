"""Rows as files: CSV by the standard library, Parquet made of that CSV by DuckDB."""

import csv
import io
import tempfile
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from pilotage.finops.chargeback.rules import AMOUNTS, COLUMNS, TIMES
from pilotage.finops.chargeback.types import FocusRow, FocusValue

_AMOUNT = "DECIMAL(38, 15)"


def to_csv(rows: Iterable[FocusRow]) -> str:
    """Return rows as CSV with a header; what is null is empty, times are RFC 3339 in UTC."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_show(row[name]) for name in COLUMNS])
    return text.getvalue()


def to_parquet(csv_text: str) -> bytes:
    """Return CSV of :func:`to_csv` as Parquet, with decimals and times as such; blocks."""
    import duckdb

    columns = {name: _type(name) for name in COLUMNS}
    with tempfile.TemporaryDirectory(prefix="pilotage-focus-") as folder:
        source, target = Path(folder, "rows.csv"), Path(folder, "rows.parquet")
        source.write_text(csv_text, encoding="utf-8")
        with duckdb.connect(config={"threads": 1, "memory_limit": "512MB"}) as connection:
            connection.read_csv(
                str(source), header=True, columns=columns, na_values="", quotechar='"'
            ).write_parquet(str(target), compression="zstd")
        return target.read_bytes()


def _type(name: str) -> str:
    if name in TIMES:
        return "TIMESTAMPTZ"
    if name in AMOUNTS:
        return _AMOUNT
    return "BIGINT" if name == "x_Calls" else "VARCHAR"


def _show(value: FocusValue) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return format(value, "f") if isinstance(value, Decimal) else str(value)

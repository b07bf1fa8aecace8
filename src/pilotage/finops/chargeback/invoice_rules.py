"""A provider's invoice beside the ledger: lines of a CSV file, and where the two differ. Pure."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from pilotage.core.errors import PilotageError
from pilotage.finops.chargeback.types import Difference, FocusRow, InvoiceLine, Match

MOST_LINES = 200_000
# The names that providers' files have for a column, as they are written in lower case.
_COLUMNS = {
    "period": ("date", "day", "chargeperiodstart", "usage_date", "start_time", "month", "period"),
    "model": ("model", "model_name", "snapshot_id", "x_model", "resourcename", "skuid", "sku"),
    "amount": ("cost", "billedcost", "amount", "cost_usd", "amount_value", "total", "usd"),
    "token_class": ("token_class", "x_tokenclass", "skumeter", "token_type", "line_item", "meter"),
}
_CLASSES = (  # the first whose words a meter's name has
    ("cache_write", ("cache write", "cache_write", "cache creation", "cache_creation")),
    ("cache_read", ("cache", "cached")),
    ("reasoning", ("reasoning", "thinking")),
    ("output", ("output", "completion")),
    ("input", ("input", "prompt")),
)
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")
_DAY = re.compile(r"\d{4}-\d{2}(?:-\d{2})?")

_Key = tuple[str, str, str]


def read_invoice(text: str) -> list[InvoiceLine]:
    """Read an invoice from CSV with a header; raise ``invalid_request`` that names the line.

    It needs a column of days or months, of models and of amounts in USD, and may have one of token
    classes; what they can be called is in docs/how-to/charge-back.md.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    fields = {name.strip().lower(): name for name in reader.fieldnames or () if name}
    found = {part: _find(part, fields) for part in _COLUMNS}
    for part in ("period", "model", "amount"):
        if found[part] is None:
            raise PilotageError(
                "invalid_request",
                f"The invoice has no column for the {part}.",
                hint=f"Name one of its columns {_COLUMNS[part][0]}.",
                param=part,
            )
    lines: list[InvoiceLine] = []
    for row in reader:
        if len(lines) >= MOST_LINES:
            raise PilotageError(
                "invalid_request",
                f"The invoice has more than {MOST_LINES:,} lines.",
                hint="Sum it up by day and model first, or send it in parts.",
            )
        lines.append(_read_line(row, found, reader.line_num))
    return lines


def reconcile(
    invoice: Sequence[InvoiceLine], rows: Iterable[FocusRow], month: str
) -> list[Difference]:
    """Return a difference for each period, model and class of tokens that either side has.

    The invoice decides what is compared: days or months, and classes if all its lines have one. A
    model is the same under its provider's name with and without a date.
    """
    by_day = any(len(line.period) > len("2026-03") for line in invoice)
    by_class = bool(invoice) and all(line.token_class for line in invoice)
    theirs: dict[_Key, Decimal] = defaultdict(Decimal)
    for line in invoice:
        period = line.period if by_day else line.period[:7]
        if period.startswith(month):
            theirs[period, line.model, line.token_class if by_class else ""] += line.amount
    ours: dict[_Key, Decimal] = defaultdict(Decimal)
    for row in rows:
        period = str(row["ChargePeriodStart"])[: 10 if by_day else 7]
        token_class = str(row["x_TokenClass"] or "") if by_class else ""
        model = normalize_model(str(row["ResourceName"] or ""))
        ours[period, model, token_class] += Decimal(str(row["BilledCost"]))
    return [_compare(key, theirs, ours) for key in sorted(theirs.keys() | ours.keys())]


def normalize_model(name: str) -> str:
    """Return a model's name without its upstream, version or date: what two sides agree on."""
    plain = name.strip().lower().rpartition("/")[2].partition("@")[0]
    return _DATED.sub("", plain)


def _compare(key: _Key, theirs: Mapping[_Key, Decimal], ours: Mapping[_Key, Decimal]) -> Difference:
    invoiced, recorded = theirs.get(key), ours.get(key)
    if invoiced is None:
        match = Match.ONLY_RECORDED
    elif recorded is None:
        match = Match.ONLY_INVOICED
    else:
        match = Match.SAME if invoiced == recorded else Match.DIFFERS
    period, model, token_class = key
    return Difference(
        period=period,
        model=model,
        token_class=token_class,
        invoiced=invoiced or Decimal(0),
        recorded=recorded or Decimal(0),
        match=match,
    )


def _find(part: str, fields: Mapping[str, str]) -> str | None:
    return next((fields[name] for name in _COLUMNS[part] if name in fields), None)


def _read_line(
    row: Mapping[str, str | None], found: Mapping[str, str | None], number: int
) -> InvoiceLine:
    texts = {part: (row.get(name) or "").strip() if name else "" for part, name in found.items()}
    period = _DAY.match(texts["period"])
    if period is None:
        raise _refuse(number, "period", texts["period"], "a day or month such as 2026-03-31")
    try:
        amount = Decimal(texts["amount"].removeprefix("$").replace(",", ""))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or abs(amount) > 10**12:
        raise _refuse(number, "amount", texts["amount"], "decimal USD such as 12.34")
    return InvoiceLine(
        period=period[0],
        model=normalize_model(texts["model"]),
        token_class=_find_class(texts["token_class"]),
        amount=amount,
    )


def _find_class(text: str) -> str:
    said = text.lower()
    return next((name for name, words in _CLASSES if any(word in said for word in words)), "")


def _refuse(number: int, param: str, text: str, wanted: str) -> PilotageError:
    return PilotageError(
        "invalid_request",
        f"Line {number} of the invoice: {text[:40]!r} is not {wanted}.",
        hint="Mend the line, or leave it out.",
        param=param,
    )

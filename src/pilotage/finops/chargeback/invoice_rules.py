"""A provider's invoice beside the ledger: lines of a CSV file, and where the two differ. Pure."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation

from pilotage.core.errors import PilotageError
from pilotage.finops.chargeback.types import (
    Difference,
    FocusRow,
    InvoiceLine,
    Match,
    Reconciliation,
)

MOST_LINES = 200_000
REASONING, OUTPUT = "reasoning", "output"
# The names that providers' files have for a column, as they are written in lower case.
_COLUMNS = {
    "period": (
        *("date", "day", "chargeperiodstart", "usage_date", "usage_date_utc"),
        *("start_time_iso", "start_time", "month", "period"),
    ),
    "model": (
        *("model", "model_name", "snapshot_id", "x_model", "resourcename", "skuid", "sku"),
        "line_item",  # of OpenAI: "gpt-4o-2024-08-06, input"
    ),
    "amount": ("cost", "billedcost", "amount", "cost_usd", "amount_value", "total", "usd"),
    "token_class": ("token_class", "x_tokenclass", "skumeter", "token_type", "line_item", "meter"),
}
_CLASSES = (  # the first that a meter's name agrees with, which has blanks between its words
    ("input", re.compile(r"\b(uncached|cache miss|(no|non|not|without) cach)")),
    ("cache_write", re.compile(r"\bcach\w* (write|writing|creation)")),
    ("cache_read", re.compile(r"\bcach")),
    (REASONING, re.compile(r"\b(reasoning|thinking)")),
    (OUTPUT, re.compile(r"\b(output|completion)")),
    ("input", re.compile(r"\b(input|prompt)")),
)
_NO_WORD = re.compile(r"[\W_]+")
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")
_PERIOD = re.compile(r"(\d{4}-\d{2})(-\d{2})?(?![\d-])")
_OTHER_COMMA = re.compile(r",(?!\d{3}(?!\d))")
_LARGEST = 10**12
_MOST_DECIMALS = 30

_Key = tuple[str, str, str]


def read_invoice(text: str) -> list[InvoiceLine]:
    """Read an invoice from CSV with a header; raise ``invalid_request`` that names the line.

    It needs a column of days or months, of models and of amounts in USD, and may have one of token
    classes; what they can be called is in docs/how-to/charge-back.md.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        return list(_read_lines(reader))
    except csv.Error as wrong:
        raise PilotageError(
            "invalid_request",
            f"Line {reader.line_num} of the invoice is not CSV: {wrong}.",
            hint="A quotation mark within a field is written twice, and each has its end.",
        ) from None


def reconcile(
    invoice: Sequence[InvoiceLine], rows: Iterable[FocusRow], month: str
) -> Reconciliation:
    """Return a difference for each period, model and class of tokens that either side has.

    ``rows`` are what the month's calls cost, of whichever month they are: a correction counts to
    the month that it corrects, as on the provider's invoice, and which day it was of nobody knows.

    The invoice decides what is compared: days if all its lines are of days, or else months, and
    classes if all its lines have one. A model is the same under its provider's name with and
    without a date. Reasoning is output where no line of the invoice tells it apart.
    """
    by_day = bool(invoice) and all(_is_day(line.period) for line in invoice)
    by_class = bool(invoice) and all(line.token_class for line in invoice)
    names_reasoning = any(line.token_class == REASONING for line in invoice)
    theirs: dict[_Key, Decimal] = defaultdict(Decimal)
    outside: list[Decimal] = []
    for line in invoice:
        if line.period[:7] != month:
            outside.append(line.amount)
            continue
        period = line.period if by_day else month
        theirs[period, line.model, line.token_class if by_class else ""] += line.amount
    ours: dict[_Key, Decimal] = defaultdict(Decimal)
    for row in rows:
        is_of_day = by_day and not row["x_CorrectsPeriod"]
        period = str(row["ChargePeriodStart"])[:10] if is_of_day else month
        token_class = str(row["x_TokenClass"] or "") if by_class else ""
        if token_class == REASONING and not names_reasoning:
            token_class = OUTPUT
        model = normalize_model(str(row["ResourceName"] or ""))
        ours[period, model, token_class] += Decimal(str(row["BilledCost"]))
    return Reconciliation(
        items=[_compare(key, theirs, ours) for key in sorted(theirs.keys() | ours.keys())],
        outside_lines=len(outside),
        outside=sum(outside, start=Decimal(0)),
    )


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


def _read_lines(reader: "csv.DictReader[str]") -> Iterator[InvoiceLine]:
    fields = {name.strip().lower(): name for name in reader.fieldnames or () if name}
    found = {
        part: next((fields[name] for name in names if name in fields), None)
        for part, names in _COLUMNS.items()
    }
    for part in ("period", "model", "amount"):
        if found[part] is None:
            raise PilotageError(
                "invalid_request",
                f"The invoice has no column for the {part}.",
                hint=f"Name one of its columns {_COLUMNS[part][0]}.",
                param=part,
            )
    for count, row in enumerate(reader):
        if count >= MOST_LINES:
            raise PilotageError(
                "invalid_request",
                f"The invoice has more than {MOST_LINES:,} lines.",
                hint="Sum it up by day and model first, or send it in parts.",
            )
        texts = {part: ((row[name] or "") if name else "").strip() for part, name in found.items()}
        if texts["model"] or texts["amount"]:  # or else it is a day on which nothing was charged
            yield _read_line(texts, reader.line_num)


def _read_line(texts: Mapping[str, str], number: int) -> InvoiceLine:
    period = _find_period(texts["period"])
    if not period:
        raise _refuse(number, "period", texts["period"], "a day or month such as 2026-03-31")
    amount = _find_amount(texts["amount"])
    if amount is None:
        raise _refuse(number, "amount", texts["amount"], "decimal USD such as 12.34")
    return InvoiceLine(
        period=period,
        model=normalize_model(texts["model"].partition(",")[0]),
        token_class=_find_class(texts["token_class"]),
        amount=amount,
    )


def _find_period(text: str) -> str:
    """Return the day or the month that a text begins with, "" for none of the calendar."""
    found = _PERIOD.match(text)
    if found is None:
        return ""
    try:
        date.fromisoformat(f"{found[1]}{found[2] or '-01'}")
    except ValueError:
        return ""
    return found[0]


def _find_amount(text: str) -> Decimal | None:
    if _OTHER_COMMA.search(text):  # 12,34 may be twelve and some
        return None
    try:
        amount = Decimal(text.removeprefix("$").replace(",", ""))
    except InvalidOperation:
        return None
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_MOST_DECIMALS or abs(amount) > _LARGEST:
        return None
    return amount


def _is_day(period: str) -> bool:
    return len(period) == len("2026-03-31")


def _find_class(text: str) -> str:
    said = _NO_WORD.sub(" ", text.lower())
    return next((name for name, words in _CLASSES if words.search(said)), "")


def _refuse(number: int, param: str, text: str, wanted: str) -> PilotageError:
    return PilotageError(
        "invalid_request",
        f"Line {number} of the invoice: {text[:40]!r} is not {wanted}.",
        hint="Mend the line, or leave it out.",
        param=param,
    )

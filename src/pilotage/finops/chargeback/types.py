"""What chargeback is: rows that a billing program reads, and an invoice beside the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

FocusValue = str | int | Decimal | datetime | None
FocusRow = dict[str, FocusValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the rows of a month say beside amounts: what ids are called, and whether it is closed.

    Tenants are by id, and so are upstreams, with their name and their provider.
    """

    account: str
    tenants: dict[str, str]
    upstreams: dict[str, tuple[str, str]]
    is_closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The rows of a month; their sum is ``total_nano``, the ledger's calls and what is booked."""

    month: str
    rows: Sequence[FocusRow]
    calls_nano: int
    entries_nano: int

    @property
    def total_nano(self) -> int:
        """All of it."""
        return self.calls_nano + self.entries_nano


class Match(StrEnum):
    """How a line of an invoice and the ledger agree."""

    SAME = "same"
    DIFFERS = "differs"
    ONLY_INVOICED = "only_invoiced"
    ONLY_RECORDED = "only_recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """What a provider charges: for a day or month, a model and perhaps a class of tokens."""

    period: str
    model: str
    token_class: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One line of an invoice beside what was recorded, in USD; ``difference`` is invoice - own."""

    period: str
    model: str
    token_class: str
    invoiced: Decimal
    recorded: Decimal
    match: Match

    @property
    def difference(self) -> Decimal:
        """What the invoice has more; below 0 where it has less."""
        return self.invoiced - self.recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """An invoice beside the ledger; ``outside`` is what its lines of other months cost."""

    items: Sequence[Difference]
    outside_lines: int
    outside: Decimal

    @property
    def invoiced(self) -> Decimal:
        """What the lines of the month cost together."""
        return sum((item.invoiced for item in self.items), start=Decimal(0))

    @property
    def recorded(self) -> Decimal:
        """What was recorded of the month."""
        return sum((item.recorded for item in self.items), start=Decimal(0))

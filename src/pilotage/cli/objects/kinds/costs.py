"""Kinds of costs: budgets, and prices of what is no call's."""

from decimal import Decimal
from typing import Any

import msgspec

from pilotage.cli.budgets import read_amount
from pilotage.cli.objects.kinds.base import Object
from pilotage.core.budgets import check_budget
from pilotage.core.money import format_usd, parse_usd
from pilotage.core.names import check_alias, check_name
from pilotage.finops.budgets.types import THRESHOLDS
from pilotage.finops.costs.types import ANY, MOST_PRICE_NANO, Resource
from pilotage.kit.clock import parse_time


class BudgetObject(Object, frozen=True):
    """A budget; what is left out is the default, also where it was something else."""

    name: str
    usd: str
    tenant: str = ""
    endpoint: str = ""
    model: str = ""
    feature: str = ""
    thresholds: list[int] = msgspec.field(default_factory=lambda: list(THRESHOLDS))

    @property
    def body(self) -> dict[str, Any]:
        """What it says, as the API shows it, without the name."""
        said = read_amount(self.usd)
        return {
            "amount": format_usd(check_budget(said["amount"], self.thresholds)),
            "per": said["per"],
            "tenant": self.tenant,
            "alias": self.endpoint,
            "model": self.model,
            "feature": self.feature,
            "thresholds": self.thresholds,
        }

    def check(self) -> None:
        """Check the names, the amount and the thresholds."""
        check_name(self.name)
        if self.endpoint:
            check_alias(self.endpoint, "endpoint")
        _ = self.body


class ResourcePriceObject(Object, frozen=True, rename={"valid_from": "from"}):
    """A price of a replica's hour, of storage or of what is sent; it is only ever added."""

    resource: Resource
    usd: str
    spot_usd: str = ""
    endpoint: str = ANY
    valid_from: str | None = None

    @property
    def title(self) -> str:
        """What it is for."""
        return f"{self.resource.value} {self.endpoint}"

    @property
    def amounts(self) -> dict[str, Decimal | None]:
        """The price, and that on machines that may go away; None for none."""
        return {
            "usd": _read_price("usd", self.usd),
            "spot_usd": _read_price("spot_usd", self.spot_usd) if self.spot_usd else None,
        }

    def check(self) -> None:
        """Check the endpoint, the amounts and the time."""
        if self.endpoint != ANY:
            if self.resource is not Resource.COMPUTE:
                raise ValueError(f"endpoint: {self.resource.value} has one price for all")
            check_alias(self.endpoint, "endpoint")
        _ = self.amounts
        if self.valid_from is not None:
            parse_time(self.valid_from)


def _read_price(place: str, text: str) -> Decimal:
    try:
        nano = parse_usd(text)
    except ValueError as wrong:
        raise ValueError(f"{place}: {wrong}") from None
    if not 0 <= nano <= MOST_PRICE_NANO:
        raise ValueError(f"{place}: {text!r} is not a price from 0 to 1000000")
    return Decimal(nano).scaleb(-9)

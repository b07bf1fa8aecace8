"""What applying budgets and prices of resources would change."""

from decimal import Decimal
from typing import Any

from pilotage.cli.budgets import repeat_budget
from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import BudgetObject, ResourcePriceObject
from pilotage.cli.objects.step import (
    CHANGED,
    CREATED,
    UNCHANGED,
    Step,
    There,
    compare,
    plan_change,
    post,
)
from pilotage.cli.session import at
from pilotage.core.names import SHADOW_TENANT
from pilotage.kit.clock import parse_rfc3339, parse_time

_SCOPE = {"per": "usd", "tenant": "tenant", "alias": "endpoint"} | {
    "model": "model",
    "feature": "feature",
}


async def plan_budget(there: There, document: Document, budget: BudgetObject) -> Step:
    """Return the step of a budget; raise ``invalid_request`` if it would count something else."""
    wanted = budget.body | {"tenant": await _find_payer(there, document, budget)}
    path = at("budgets", budget.name)
    found = await there.find(document, path)
    if found is None:
        made = post(there, document, "/budgets", {"name": budget.name} | budget.body)
        return Step(document=document, result=CREATED, act=made)
    now = repeat_budget(found)
    for name, field in _SCOPE.items():
        if now[name] != wanted[name]:
            raise document.refuse(
                f"{field}: it is there already and counts something else",
                f"Delete it first: pilotage budgets delete {budget.name}",
            )
    return plan_change(there, document, path, now, wanted, found["rev"])


async def plan_resource_price(there: There, document: Document, price: ResourcePriceObject) -> Step:
    """Return the step of a price of a resource; prices are only added."""
    is_dated = price.valid_from is not None
    prices = await there.list(document, "/resource-prices", current=not is_dated)
    since_us = parse_time(price.valid_from or "0001-01-01")
    found = [
        item
        for item in prices
        if (item["kind"], item["subject"]) == (price.resource.value, price.endpoint)
        and (not is_dated or parse_rfc3339(item["valid_from"]) == since_us)
    ]
    body = {
        "kind": price.resource.value,
        "subject": price.endpoint,
        "price": price.usd,
        "spot_price": price.spot_usd,
        "valid_from": price.valid_from,
    }
    add = post(there, document, "/resource-prices", body)
    if not found:
        return Step(document=document, result=CREATED, act=add)
    differences = compare(_show_amounts(found[0]), price.amounts)
    if not differences:
        return Step(document=document, result=UNCHANGED)
    if is_dated:
        problem = f"from: there is another price from {price.valid_from} on already"
        raise document.refuse(problem, "Prices are only added: choose a later time.")
    return Step(document=document, result=CHANGED, differences=differences, act=add)


async def _find_payer(there: There, document: Document, budget: BudgetObject) -> str:
    """Return the tenant as the API shows it; or raise ``invalid_request``."""
    if budget.tenant in {"", SHADOW_TENANT}:
        return budget.tenant
    found = await there.find(document, at("tenants", budget.tenant))
    if found is not None:
        return str(found["id"])
    if there.will_make("Tenant", document, budget.tenant):
        return budget.tenant
    raise document.refuse(
        f"tenant: there is no tenant {budget.tenant!r}", "Add a document of kind Tenant."
    )


def _show_amounts(found: dict[str, Any]) -> dict[str, Decimal | None]:
    return {
        "usd": Decimal(found["price"]),
        "spot_usd": Decimal(found["spot_price"]) if found["spot_price"] else None,
    }

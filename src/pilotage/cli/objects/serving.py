"""What applying upstreams and prices would change."""

from decimal import Decimal

from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import CLASSES, PriceObject, UpstreamObject
from pilotage.cli.objects.step import (
    CHANGED,
    CREATED,
    UNCHANGED,
    Step,
    There,
    compare,
    plan_settings,
    post,
)
from pilotage.cli.session import at
from pilotage.cli.upstreams import FIELDS as UPSTREAM_FIELDS
from pilotage.kit.clock import parse_rfc3339, parse_time


async def plan_upstream(there: There, document: Document, upstream: UpstreamObject) -> Step:
    """Return the step of an upstream."""
    path = at("upstreams", upstream.name)
    found = await there.find(document, path)
    if found is not None:
        settings = upstream.settings
        return plan_settings(there, document, path, found, settings, UPSTREAM_FIELDS)
    if upstream.provider is None or upstream.base_url is None:
        raise document.refuse("a new upstream needs provider and base_url")
    body = {"name": upstream.name} | upstream.settings
    return Step(document=document, result=CREATED, act=post(there, document, "/upstreams", body))


async def plan_price(there: There, document: Document, price: PriceObject) -> Step:
    """Return the step of a price; prices are only added."""
    is_dated = price.valid_from is not None
    prices = await there.list(document, "/prices", subject=price.model, current=not is_dated)
    if is_dated:
        since_us = parse_time(price.valid_from or "")
        prices = [item for item in prices if parse_rfc3339(item["valid_from"]) == since_us]
    found = prices[0] if prices else None
    if found is not None:
        is_same = price.rates == {name: Decimal(found[name]) for name in CLASSES}
        if is_same and found["is_free"] == price.free:
            return Step(document=document, result=UNCHANGED)
        if is_dated:
            problem = f"from: there is another price from {price.valid_from} on already"
            raise document.refuse(problem, "Prices are only added: choose a later time.")

    async def act() -> None:
        body = {name: getattr(price, name) for name in CLASSES} | {
            "subject": price.model,
            "input": price.input or "0",
            "output": price.output or "0",
            "is_free": price.free,
            "valid_from": price.valid_from,
        }
        await there.control.post("/prices", body, project=document.project)

    if found is None:
        return Step(document=document, result=CREATED, act=act)
    now = {name: Decimal(found[name]) for name in CLASSES} | {"free": found["is_free"]}
    differences = compare(now, price.rates | {"free": price.free})
    return Step(document=document, result=CHANGED, differences=differences, act=act)

"""What applying alert rules and objectives would change."""

from typing import Any

from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import AlertRuleObject, SloObject
from pilotage.cli.objects.step import CREATED, Step, There, plan_settings, post
from pilotage.cli.session import at


async def plan_alert_rule(there: There, document: Document, rule: AlertRuleObject) -> Step:
    """Return the step of a rule."""
    return await _plan(there, document, "alert-rules", rule.name, rule.body)


async def plan_slo(there: There, document: Document, slo: SloObject) -> Step:
    """Return the step of an objective."""
    return await _plan(there, document, "slos", slo.name, slo.body)


async def _plan(
    there: There, document: Document, kind: str, name: str, body: dict[str, Any]
) -> Step:
    """Plan to make an object, or to replace what is said of it."""
    path = at(kind, name)
    found = await there.find(document, path)
    if found is None:
        made = post(there, document, f"/{kind}", {"name": name} | body)
        return Step(document=document, result=CREATED, act=made)
    return plan_settings(there, document, path, found, body, list(body))

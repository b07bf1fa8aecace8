"""What was in production at any moment, from revisions alone: no table of today is read."""

from pilotage.core.errors import PilotageError
from pilotage.endpoints.past import (
    DECISION_EVENT,
    DEPLOYMENT_EVENTS,
    ENDPOINT_EVENTS,
    FACT_EVENT,
    VERSION_CREATED,
    VERSION_EVENTS,
    Changes,
    Past,
    fold_endpoints,
    fold_versions,
)
from pilotage.kit.clock import rfc3339
from pilotage.kit.db import Tx
from pilotage.kit.outbox import list_first, list_last, list_made_at


async def as_of(tx: Tx, at_us: int, *, has_all: bool = False) -> Past:
    """Return what was in production in the transaction's project at a moment.

    The endpoints that there were, and the versions that had ever left development; with ``has_all``
    every version. Raises ``invalid_request`` for a moment that has not come.
    """
    if at_us > tx.now_us:
        raise PilotageError(
            "invalid_request",
            f"{rfc3339(at_us)} has not come yet: it is {rfc3339(tx.now_us)}.",
            hint="Ask about now, or about the past.",
            param="at",
        )
    endpoints = await list_last(tx, ENDPOINT_EVENTS, at_us)
    deployments = await list_last(tx, DEPLOYMENT_EVENTS, at_us)
    moved = await list_last(tx, VERSION_EVENTS, at_us)
    if has_all:
        created = await list_last(tx, [VERSION_CREATED], at_us)
    else:
        promoted = {item.object_id for item in moved if item.event == VERSION_EVENTS[0]}
        created = await list_first(tx, promoted)
    made = {item.at_us for item in [*endpoints, *moved]}
    decisions = await list_made_at(tx, DECISION_EVENT, made)
    facts = await list_made_at(tx, FACT_EVENT, {item.at_us for item in decisions})
    changes = Changes(decisions, facts)
    seen = (*endpoints, *deployments, *moved, *created, *decisions, *facts)
    return Past(
        at_us=at_us,
        seq=max((item.seq for item in seen), default=0),
        endpoints=fold_endpoints(endpoints, deployments, changes),
        versions=fold_versions(created, moved, changes),
    )

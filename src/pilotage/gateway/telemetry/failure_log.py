"""Calls that fail, in the log: one line a minute for each tenant, model and code; never a text."""

import logging

from pilotage.core.frames import Outcome
from pilotage.gateway.call import Call
from pilotage.gateway.telemetry.rarely import Rarely
from pilotage.kit.clock import Clock

_LOG = logging.getLogger("pilotage.gateway")
UNKNOWN = "unknown"
_QUIET = frozenset({Outcome.CLIENT_GONE, Outcome.CANCELLED, Outcome.DRAINING})


class FailureLog:
    """Told of every call. What clients do to themselves is information, the rest a warning."""

    def __init__(self, clock: Clock) -> None:
        self._kinds: Rarely[tuple[str, str, str]] = Rarely(clock)

    def note(self, call: Call) -> None:
        """Say that calls of this kind fail, unless that was said within the last minute."""
        error = call.error
        if error is None or call.outcome in _QUIET:
            return
        alias = call.alias.entry.name if call.alias is not None else UNKNOWN
        count = self._kinds.count((call.tenant.id, alias, error.code))
        if not count:
            return
        level = logging.INFO if call.outcome is Outcome.REFUSED else logging.WARNING
        said = {"call_id": call.id, "tenant": call.tenant.id, "alias": alias, "count": count}
        _LOG.log(level, "calls fail: %s", error.code, extra=said)

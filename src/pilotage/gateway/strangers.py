"""Requests that never became calls: no valid key, malformed, too large.

They are counted, and said once a minute for each source.
"""

import logging

from pilotage.gateway.telemetry.rarely import Rarely
from pilotage.kit.clock import Clock

_LOG = logging.getLogger("pilotage.security")


class Strangers:
    """Counts refusals: ``by_code`` has all of them."""

    def __init__(self, clock: Clock) -> None:
        self.by_code: dict[str, int] = {}
        self._sources: Rarely[str] = Rarely(clock)

    def count(self, code: str) -> None:
        """Count a refusal that says nothing of who asked."""
        self.by_code[code] = self.by_code.get(code, 0) + 1

    def accuse(self, source: str, code: str) -> None:
        """Count a refusal; log it if this source was not heard of within the window."""
        self.count(code)
        if unsaid := self._sources.count(source):
            _LOG.warning(
                "refused before it was a call: %s",
                code,
                extra={"source": source, "count": unsaid},
            )

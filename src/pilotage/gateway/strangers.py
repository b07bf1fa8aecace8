"""Requests that never became calls: no valid key, malformed, too large.

They are counted, and said once a minute for each source.
"""

import logging
from collections import OrderedDict

from pilotage.kit.clock import Clock

_LOG = logging.getLogger("pilotage.security")
WINDOW_S = 60.0
MAX_SOURCES = 1024


class Strangers:
    """A bounded table of sources: how many refusals since the last line about each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self.total = 0

    def count(self, source: str, code: str) -> None:
        """Count a refusal; log it if this source was not heard of within the window."""
        self.total += 1
        now_s = self._clock.monotonic_s()
        said_s, unsaid = self._seen.pop(source, (-WINDOW_S, 0))
        if now_s - said_s >= WINDOW_S:
            _LOG.warning(
                "refused before it was a call: %s",
                code,
                extra={"source": source, "count": unsaid + 1},
            )
            said_s, unsaid = now_s, -1
        self._seen[source] = (said_s, unsaid + 1)
        if len(self._seen) > MAX_SOURCES:
            self._seen.popitem(last=False)

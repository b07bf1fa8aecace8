"""What happens often and is said rarely: once a minute for each kind, with how often it was."""

from collections import OrderedDict
from typing import Generic, TypeVar

from pilotage.kit.clock import Clock

WINDOW_S = 60.0
MAX_KINDS = 1024

Kind = TypeVar("Kind")


class Rarely(Generic[Kind]):
    """A bounded table of kinds: how many of each since it was said last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: OrderedDict[Kind, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def count(self, kind: Kind) -> int:
        """Count one; return how many there were since the last time if it is due to be said."""
        now_s = self._clock.monotonic_s()
        said_s, unsaid = self._seen.pop(kind, (-WINDOW_S, 0))
        unsaid += 1
        is_due = now_s - said_s >= WINDOW_S
        self._seen[kind] = (now_s, 0) if is_due else (said_s, unsaid)
        if len(self._seen) > MAX_KINDS:
            self._seen.popitem(last=False)
        return unsaid if is_due else 0

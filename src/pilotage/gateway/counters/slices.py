"""Slices: what this owner may use of a counter without asking anybody.

Calls take from a slice and settle with it in fractions of a microsecond. At every exchange with
the store a slice says what was used for good and what it holds, hands back what it will not need
soon, and asks for more before it runs out. A slice never holds more than the store last granted.
"""

from typing import NamedTuple

from pilotage.core.snapshot import LimitEntry
from pilotage.gateway.counters.types import Draw, Drawn, Row, Told
from pilotage.gateway.counters.windows import Window

COST, TOKENS, REQUESTS, CONCURRENCY = range(4)
MEASURES = {"cost": COST, "tokens": TOKENS, "requests": REQUESTS, "concurrency": CONCURRENCY}

STOCK_CALLS = 4  # a stock lasts for so many calls of the largest size asked for
STOCK_TICKS = 2  # or for what the last so many ticks took, if that is more
STOCK_PART = 32  # but it is at most this part of the cap
IDLE_TICKS = 10  # after so many ticks without a call a slice hands everything back
REPEAT_TICKS = 50  # rows that lapse are repeated this often even if nothing changed


class Demand(NamedTuple):
    """What waiting calls want of a counter in all, and the least amount that one of them lacks.

    ``owed`` is the part of those that have been told to go on.
    """

    total: int = 0
    smallest: int = 0
    owed: int = 0


NO_DEMAND = Demand()
UNSAID = (-1, 0, 0)


class Slice:
    """One counter as its owner sees it.

    ``avail`` can be taken, ``reserved`` was taken by calls that run, ``used`` is what this owner
    used of the counter for good since it began. ``avail`` is negative after calls that took
    nothing, or less than they came to. ``heard`` numbers the last exchange that told of it.
    """

    __slots__ = (
        "avail", "calls", "heard", "idle_ticks", "is_active", "is_bucket", "is_low", "key",
        "lapse_ms", "largest", "limit", "measure", "quiet_ticks", "refill_at", "reserved", "said",
        "stock", "taken", "told", "told_held", "told_used", "used", "window",
    )  # fmt: skip

    def __init__(
        self, key: str, limit: LimitEntry, window: Window, *, used: int = 0, lapse_ms: int = 0
    ) -> None:
        self.key = key
        self.limit = limit
        self.window = window
        self.measure = MEASURES[limit.measure]
        self.is_bucket = is_bucket(limit)
        self.lapse_ms = lapse_ms if self.measure == CONCURRENCY else 0
        self.avail = 0
        self.reserved = 0
        self.used = used
        self.calls = 0
        self.heard = 0
        self.taken = 0
        self.largest = 0
        self.stock = 0
        self.refill_at = 0
        self.idle_ticks = 0
        self.quiet_ticks = 0
        self.is_active = False
        self.is_low = False
        self.said = UNSAID  # used, held and spare, as the store knows it if no answer is due
        self.told: Told | None = None
        self.told_used = 0  # of what it told, this owner's own part
        self.told_held = 0

    @property
    def is_total(self) -> bool:
        """Whether what is used of it stays used until the window ends."""
        return not self.is_bucket and self.measure != CONCURRENCY

    @property
    def used_by_all(self) -> int:
        """What all owners used of it for good, as far as this one knows: it is not less."""
        return self.used + (self.told.used - self.told_used if self.told else 0)

    @property
    def is_at_rest(self) -> bool:
        """Whether there is nothing to say of it, to hand back, or to wait for."""
        if self.calls or self.reserved or self.avail:
            return False
        return self.is_bucket or self.said == (self.used, 0, 0)

    @property
    def is_news(self) -> bool:
        """Whether the store should hear of it now, though no call waits."""
        if self.is_bucket:
            return self.avail != 0
        if self.avail or self.said != (self.used, self.reserved, 0):
            return True
        return self.lapse_ms > 0 and self.quiet_ticks >= REPEAT_TICKS

    @property
    def left_elsewhere(self) -> int:
        """What the store said last that nobody has: it can be had by asking."""
        if self.told is None:
            return 0
        return self.limit.amount - self.told.used - self.told.held

    @property
    def spare_elsewhere(self) -> int:
        """What the store said last that other owners hold without need: they can hand it back."""
        return self.told.spare if self.told else 0

    @property
    def held_elsewhere(self) -> int:
        """What other owners held, reserved or not, when the store spoke last."""
        return self.told.held - self.told_held if self.told else 0

    def seconds_until(self, lack: int) -> float:
        """Return when a bucket will have so much more than this owner has."""
        missing = max(lack - self.left_elsewhere, 0)
        return missing * 60.0 / max(self.limit.amount, 1)

    def tick(self) -> None:
        """Look at what was taken since the last tick, and plan the stock by it."""
        is_idle = self.taken == 0
        self.idle_ticks = self.idle_ticks + 1 if is_idle else 0
        self.quiet_ticks += 1
        if self.is_bucket:
            self.stock = self.taken
        else:
            least = self.largest * STOCK_CALLS if self.idle_ticks < IDLE_TICKS else 0
            self.stock = max(least, self.taken * STOCK_TICKS, 0 if is_idle else self.stock // 2)
        self.stock = min(self.stock, self.limit.amount // STOCK_PART)
        self.largest = self.largest if self.idle_ticks < IDLE_TICKS else 0
        self.taken = 0

    def say(self, demand: Demand, *, may_ask: bool = True) -> Row:
        """Return the row to post. What is handed back is gone from here on, answer or not.

        While somebody lacks something nothing is kept for calls that cannot go on yet: two owners
        that each keep half of what a call needs would wait for each other.
        """
        self.said = UNSAID  # should the answer be lost, nobody knows what was granted: say it again
        stock = 0 if self.is_low else self.stock
        keep = demand.owed if self.is_low else max(demand.total, stock * 2)
        self.avail = min(max(self.avail, 0), keep)
        need = max(demand.total - self.avail, 0) if may_ask else 0
        want = max(need, demand.total + stock - self.avail) if may_ask else 0
        return Row(
            key=self.key,
            cap=self.limit.amount,
            used=self.used,
            held=self.reserved + self.avail,
            spare=self.avail,
            least=max(demand.smallest - self.avail, 1),
            need=need,
            want=want if self.avail < max(stock, demand.total) else 0,
            lapse_ms=self.lapse_ms,
            expires_at_ms=self.window.forget_at_us // 1000,
        )

    def hear(self, row: Row, told: Told) -> None:
        """Take the answer to a row in."""
        self.avail += told.granted
        self.said = (row.used, row.held + told.granted, row.spare + told.granted)
        self.told_used, self.told_held, _ = self.said
        self.told = told._replace(spare=told.spare - row.spare - told.granted)
        self.is_low = told.is_low
        self.quiet_ticks = 0
        self.refill_at = 0 if self.is_low else min(self.stock, max(self.avail, 0)) // 2

    def say_draw(self, demand: Demand) -> Draw:
        """Return the draw to ask for, and hand back what was not needed since the last tick."""
        keep = min(max(self.avail, 0), demand.total + self.stock)
        back, self.avail = self.avail - keep, keep
        need = max(demand.total - keep, 0)
        return Draw(
            key=self.key,
            amount=self.limit.amount,
            back=back,
            least=max(demand.smallest - keep, 1),
            need=need,
            want=max(need, demand.total + self.stock - keep),
        )

    def hear_draw(self, drawn: Drawn) -> None:
        """Take the answer to a draw in."""
        self.avail += drawn.granted
        held = self.limit.amount - drawn.level
        self.told = Told(drawn.granted, 0, held, 0, is_low=False)
        self.told_held = held
        self.refill_at = min(self.stock, max(self.avail, 0)) // 2


def is_bucket(limit: LimitEntry) -> bool:
    """Say whether a limit is a rate, which refills, rather than an amount, which is used up."""
    return limit.per == "minute" and limit.measure in ("requests", "tokens")

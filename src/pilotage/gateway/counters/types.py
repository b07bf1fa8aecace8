"""What gateways and the store of counters say to each other.

A *counter* is one limit for one subject in one window. It has a row for each *owner* (the life of
one gateway slot's spool): what the owner used for good, and what it holds to use or hand back. Only
the owner writes its row, and always as absolute numbers, so that saying a thing twice says it once.
"""

from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec


class Stage(IntEnum):
    """What an owner is doing when it asks."""

    RUN = 0  # says what changed and asks for grants
    ROWS = 1  # registers: says all that it has, in parts
    DONE = 2  # registers: that was all


class Status(StrEnum):
    """How the store took what an owner said."""

    OPEN = "open"
    CLOSED = "closed"  # rows are taken, totals and gauges grant nothing: owners are missing
    REGISTER = "register"  # nothing was taken: say first all that you have
    STALE = "stale"  # nothing was taken: a later word of the same owner came before


class Row(NamedTuple):
    """What an owner says of a counter, and what it asks for.

    ``held`` is what it may still use, ``spare`` the part of that which no call has reserved.
    ``need`` is what waiting calls lack together and ``least`` what the smallest of them lacks;
    ``want`` is ``need`` and a stock ahead of need. ``lapse_ms`` (0: never) is how long a row counts
    that its owner does not repeat, ``expires_at_ms`` (0: never) when the counter is forgotten.
    """

    key: str
    cap: int
    used: int
    held: int
    spare: int
    least: int = 0
    need: int = 0
    want: int = 0
    lapse_ms: int = 0
    expires_at_ms: int = 0


class Draw(NamedTuple):
    """What an owner asks of a bucket of ``amount`` per minute; ``back`` is what it hands back.

    A negative ``back`` is a debt: more was used than had been drawn.
    """

    key: str
    amount: int
    back: int
    least: int = 0
    need: int = 0
    want: int = 0


class SeedRow(NamedTuple):
    """What an owner that will not come back used of a counter."""

    key: str
    owner: str
    used: int
    expires_at_ms: int = 0


class Ask(NamedTuple):
    """All that an owner says at once. ``life`` counts its processes, ``seq`` what each one said.

    ``acked`` is the last ``seq`` that was answered: a store that remembers less has lost something.
    ``generation`` names the contents of the store that the owner registered with;
    ``fresh_generation`` is a name for new contents, should there be none. ``peers`` is how many
    owners it knows of. The rest goes with DONE: the owners that must register before totals are
    granted again, those that are gone for good, and what those had used.
    """

    owner: str
    life: int
    seq: int
    acked: int
    generation: str
    fresh_generation: str
    stage: Stage
    rows: tuple[Row, ...] = ()
    draws: tuple[Draw, ...] = ()
    peers: int = 0
    is_first: bool = False
    expected: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    seeds: tuple[SeedRow, ...] = ()


class Told(NamedTuple):
    """The store's answer to a Row: what it granted, and all owners' sums as they are then."""

    granted: int
    used: int
    held: int
    spare: int
    is_low: bool


class Drawn(NamedTuple):
    """The store's answer to a Draw: what it granted, what is left, when ``least`` can be had."""

    granted: int
    level: int
    retry_ms: int


class Answer(NamedTuple):
    """What the store says; ``peers`` are all its owners if the asker knew of another number.

    ``missing`` names owners that a closed store waits for.
    """

    status: Status
    generation: str
    rows: tuple[Told, ...] = ()
    draws: tuple[Drawn, ...] = ()
    peers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class LimitUse(msgspec.Struct, frozen=True, kw_only=True):
    """How far a limit is used; amounts in its measure's unit, ``ends_at_us`` 0 where it has none.

    ``is_current`` is False where the store has not confirmed it of late.
    """

    limit_id: str
    measure: str
    per: str
    amount: int
    used: int
    reserved: int
    remaining: int
    ends_at_us: int
    is_current: bool

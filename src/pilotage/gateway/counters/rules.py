"""What a store of counters decides: pure functions over its books.

The memory store runs them as they are; Valkey runs the same rules in ``exchange.lua``. At all
times the sum of what owners used and hold is at most the cap, but for calls that cost more than
their worst case. Nothing that an owner holds is given to another before the owner says so itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pilotage.gateway.counters.types import (
    Answer,
    Ask,
    Draw,
    Drawn,
    Row,
    SeedRow,
    Stage,
    Status,
    Told,
)

STOCK_SHARE = 8  # a stock ahead of need is at most this part of what is free
LOW_MS = 1000  # how long owners hand back what they need not, after one could not be served
UNITS = 60_000  # of a bucket: one token; amount per minute is amount units per millisecond
NO_ROW = (0, 0, 0, 0)  # used, held, spare, said at (milliseconds)


@dataclass(slots=True)
class Counter:
    """One counter: a row for each owner, and their sums."""

    rows: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    used: int = 0
    held: int = 0
    spare: int = 0
    low_until_ms: int = 0
    expires_at_ms: int = 0


@dataclass(slots=True)
class Books:
    """All that a store knows. ``owners`` have their last life and word, ``holding`` their keys."""

    generation: str = ""
    is_open: bool = False
    owners: dict[str, tuple[int, int]] = field(default_factory=dict)
    registered: set[str] = field(default_factory=set)
    expected: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    holding: dict[str, set[str]] = field(default_factory=dict)
    counters: dict[str, Counter] = field(default_factory=dict)
    buckets: dict[str, tuple[int, int]] = field(default_factory=dict)  # level in units, at


def exchange(books: Books, ask: Ask, now_ms: int) -> Answer:
    """Take what an owner says, grant what can be granted, and answer."""
    last = books.owners.get(ask.owner, (0, 0))
    if (ask.life, ask.seq) <= last:
        return Answer(Status.STALE, books.generation)
    has_lost = ask.generation == books.generation and last < (ask.life, ask.acked)
    if not books.generation or (has_lost and ask.acked):
        _renew(books, ask.fresh_generation)
    if ask.life > last[0]:
        books.registered.discard(ask.owner)
    books.owners[ask.owner] = (ask.life, ask.seq)
    is_registered = ask.owner in books.registered or ask.stage is not Stage.RUN
    if ask.generation != books.generation or not is_registered:
        return Answer(Status.REGISTER, books.generation)
    may_grant = books.is_open and ask.stage is Stage.RUN
    rows = tuple(_post(books, ask.owner, row, now_ms, may_grant=may_grant) for row in ask.rows)
    draws = tuple(_draw(books, draw, now_ms) for draw in ask.draws)
    if ask.stage is Stage.DONE:
        _register(books, ask, now_ms)
    return Answer(
        Status.OPEN if books.is_open else Status.CLOSED,
        books.generation,
        rows,
        draws,
        tuple(sorted(books.owners)) if ask.peers != len(books.owners) else (),
        () if books.is_open else tuple(sorted(_missing(books))),
    )


def decide_grant(free: int, least: int, need: int, want: int) -> int:
    """Return how much of what is free an owner gets.

    All it needs or what there is, nothing if that helps no call; and a stock for later of at most
    an eighth of what is free, so that one owner's stock is never another's refusal for long.
    """
    if free < max(least, 1):
        return 0
    return max(min(need, free), min(want, free // STOCK_SHARE))


def refill(level: int, at_ms: int, amount: int, now_ms: int) -> int:
    """Return a bucket's level in units after the time since ``at_ms``, at most full."""
    full = amount * UNITS
    passed = min(max(now_ms - at_ms, 0), UNITS)  # an empty bucket is full after a minute
    return min(full, level + amount * passed)


def forget_expired(books: Books, now_ms: int) -> None:
    """Drop the counters whose window is long over, and buckets that are full by now."""
    for key, counter in list(books.counters.items()):
        is_over = 0 < counter.expires_at_ms <= now_ms
        if is_over or (not counter.rows and counter.low_until_ms <= now_ms):
            for owner in counter.rows:
                books.holding.get(owner, set()).discard(key)
            del books.counters[key]
    for key, (_, at_ms) in list(books.buckets.items()):
        if at_ms + UNITS * 2 <= now_ms:
            del books.buckets[key]


def _renew(books: Books, generation: str) -> None:
    """Begin new contents: nothing is granted until every owner has said what it has."""
    books.generation = generation
    books.is_open = False
    books.registered.clear()
    books.expected.clear()
    books.gone.clear()  # whoever came back meanwhile holds something


def _register(books: Books, ask: Ask, now_ms: int) -> None:
    if ask.is_first:  # what an earlier process of this owner held, and left no trace of using
        for key in list(books.holding.get(ask.owner, ())):
            used, _, _, _ = books.counters[key].rows[ask.owner]
            _write(books, ask.owner, key, (used, 0, 0, now_ms))
    books.registered.add(ask.owner)
    books.gone.discard(ask.owner)
    books.gone.update(set(ask.gone) - books.registered)
    books.expected.update(ask.expected)
    for seed in ask.seeds:
        if seed.owner not in books.registered:
            _sow(books, seed, now_ms)
    books.is_open = books.is_open or not _missing(books)


def _missing(books: Books) -> Iterable[str]:
    return books.expected - books.registered - books.gone


def _sow(books: Books, seed: SeedRow, now_ms: int) -> None:
    counter = books.counters.setdefault(seed.key, Counter(expires_at_ms=seed.expires_at_ms))
    used, held, spare, _ = counter.rows.get(seed.owner, NO_ROW)
    _write(books, seed.owner, seed.key, (max(used, seed.used), held, spare, now_ms))


def _post(books: Books, owner: str, row: Row, now_ms: int, *, may_grant: bool) -> Told:
    counter = books.counters.setdefault(row.key, Counter(expires_at_ms=row.expires_at_ms))
    used = max(row.used, counter.rows.get(owner, NO_ROW)[0])  # a total never shrinks
    _write(books, owner, row.key, (used, row.held, row.spare, now_ms))
    if row.lapse_ms:
        _drop_lapsed(books, row.key, now_ms - row.lapse_ms)
    granted = 0
    if may_grant and row.want > 0:
        is_low = counter.low_until_ms > now_ms
        free = row.cap - counter.used - counter.held
        granted = decide_grant(free, row.least, row.need, row.need if is_low else row.want)
        if granted < row.need:
            counter.low_until_ms = now_ms + LOW_MS
    if granted:
        # Spare until the owner says that a call has reserved it: whoever lacks it may wait.
        _write(books, owner, row.key, (used, row.held + granted, row.spare + granted, now_ms))
    return Told(granted, counter.used, counter.held, counter.spare, counter.low_until_ms > now_ms)


def _write(books: Books, owner: str, key: str, new: tuple[int, int, int, int]) -> None:
    """Put an owner's row in place of its old one, and keep sums and the owner's keys in step."""
    counter = books.counters[key]
    old = counter.rows.get(owner, NO_ROW)
    counter.used += new[0] - old[0]
    counter.held += new[1] - old[1]
    counter.spare += new[2] - old[2]
    counter.rows[owner] = new
    if not new[0] and not new[1]:
        del counter.rows[owner]
    if new[1]:
        books.holding.setdefault(owner, set()).add(key)
    elif key in books.holding.get(owner, ()):
        books.holding[owner].discard(key)


def _drop_lapsed(books: Books, key: str, before_ms: int) -> None:
    for owner, (used, held, _, said_ms) in list(books.counters[key].rows.items()):
        if held and said_ms < before_ms:
            _write(books, owner, key, (used, 0, 0, said_ms))


def _draw(books: Books, draw: Draw, now_ms: int) -> Drawn:
    level, at_ms = books.buckets.get(draw.key, (draw.amount * UNITS, now_ms))
    level = refill(level, at_ms, draw.amount, now_ms)
    level = min(level + draw.back * UNITS, draw.amount * UNITS)
    granted = decide_grant(level // UNITS, draw.least, draw.need, draw.want) if draw.want else 0
    level -= granted * UNITS
    books.buckets[draw.key] = (level, max(now_ms, at_ms))
    lacks = draw.least * UNITS - level if granted < draw.least else 0
    return Drawn(granted, level // UNITS, -(-max(lacks, 0) // max(draw.amount, 1)))

"""What calls add up to: cells of counts and sketches, and what of them can be asked for."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from pilotage.core.frames import Ended, Outcome
from pilotage.core.sketch import Sketch
from pilotage.core.usage import Usage

MOST_NAMES = 32  # that a cell counts one by one; what comes later is counted together
_LONGEST_NAME = 64  # an upstream may give any text as its reason to finish
OTHER = "(other)"  # no alias, tenant, code or reason is written like this
_NO_ERROR = frozenset(
    {
        Outcome.OK,
        Outcome.REFUSED,
        Outcome.CLIENT_GONE,
        Outcome.READER_STALLED,
        Outcome.CANCELLED,
    }
)


def is_error(outcome: Outcome) -> bool:
    """Say whether an outcome is a failure of ours or of an upstream.

    A refusal is an answer, and who hangs up, stops reading or cancels has broken nothing.
    """
    return outcome not in _NO_ERROR


class CellKey(NamedTuple):
    """Whose calls a cell counts and who answered them: ids, and the names of alias and model."""

    project_id: str
    tenant_id: str
    alias: str
    arm: str
    version_id: str
    model: str


class Cell(msgspec.Struct, array_like=True):
    """What the calls of one key that ended in one span of time add up to.

    To merge is to add: cells merged in any order are the same cell, as long as no more than
    ``MOST_NAMES`` different outcomes, codes, finish reasons, flags or features are met; of further
    ones only the sum does not depend on the order. Refused calls are counted in ``calls`` and
    ``refusals`` and have no place in the sketches, which hold microseconds. Money is nano-USD;
    ``estimated_nano`` is the part of ``cost_nano`` that rests on an estimate.
    """

    calls: int = 0
    refusals: int = 0
    errors: int = 0
    streams: int = 0
    chunks: int = 0
    attempts: int = 0
    tokens: Usage = Usage()
    cost_nano: int = 0
    estimated_nano: int = 0
    outcomes: dict[str, int] = {}
    codes: dict[str, int] = {}
    finish_reasons: dict[str, int] = {}
    flags: dict[str, int] = {}
    features: dict[str, int] = {}
    duration: Sketch = msgspec.field(default_factory=Sketch)
    ttft: Sketch = msgspec.field(default_factory=Sketch)
    per_chunk: Sketch = msgspec.field(default_factory=Sketch)
    queue: Sketch = msgspec.field(default_factory=Sketch)

    @property
    def answerable(self) -> int:
        """How many calls were not refused: what an error rate is a share of."""
        return self.calls - self.refusals

    @property
    def error_rate(self) -> float | None:
        """The share of calls that failed among those not refused; None without any."""
        return self.errors / self.answerable if self.answerable else None

    @property
    def refusal_rate(self) -> float | None:
        """The share of calls that were refused; None without any call."""
        return self.refusals / self.calls if self.calls else None

    def add(self, ended: Ended) -> None:
        """Count a call."""
        self.calls += 1
        self.attempts += ended.attempts
        self.tokens = self.tokens.plus(ended.usage)
        self.cost_nano += ended.cost_nano
        if ended.is_estimated:
            self.estimated_nano += ended.cost_nano
        _count(self.outcomes, ended.outcome.value, 1)
        for names, name in (
            (self.codes, ended.code),
            (self.finish_reasons, ended.finish_reason),
            (self.features, ended.feature),
        ):
            if name:
                _count(names, name, 1)
        for flag in ended.flags:
            _count(self.flags, flag, 1)
        if ended.outcome is Outcome.REFUSED:
            self.refusals += 1
        else:
            self._time(ended)

    def merge(self, other: "Cell") -> None:
        """Add what another has counted."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.tokens = self.tokens.plus(other.tokens)
        for name in _NAMED:
            mine = getattr(self, name)
            for counted, calls in getattr(other, name).items():
                _count(mine, counted, calls)
        self.duration.merge(other.duration)
        self.ttft.merge(other.ttft)
        self.per_chunk.merge(other.per_chunk)
        self.queue.merge(other.queue)

    def _time(self, ended: Ended) -> None:
        self.errors += is_error(ended.outcome)
        self.duration.add(ended.duration_us)
        self.queue.add(ended.queue_us)
        self.chunks += ended.chunks
        if ended.ttft_us >= 0:
            self.streams += 1
            self.ttft.add(ended.ttft_us)
            if ended.chunks > 1 and ended.duration_us >= ended.ttft_us:
                self.per_chunk.add((ended.duration_us - ended.ttft_us) // (ended.chunks - 1))


_NUMBERS = (
    "calls",
    "refusals",
    "errors",
    "streams",
    "chunks",
    "attempts",
    "cost_nano",
    "estimated_nano",
)
_NAMED = ("outcomes", "codes", "finish_reasons", "flags", "features")


def _count(names: dict[str, int], name: str, calls: int) -> None:
    name = name[:_LONGEST_NAME]
    if name not in names and len(names) >= MOST_NAMES:
        name = OTHER
    names[name] = names.get(name, 0) + calls


class Level(StrEnum):
    """How long the span of a cell is."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def span_us(self) -> int:
        """The length of the span in microseconds."""
        return _SPANS_US[self]


_SPANS_US = {
    Level.MINUTE: 60_000_000,
    Level.HOUR: 3_600_000_000,
    Level.DAY: 86_400_000_000,
}


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """How far the levels reach, as times between spans; all 0 before anything was counted.

    Minutes and hours before ``..._since_us`` are dropped; hours and days are complete before
    ``..._until_us`` and are not begun behind it.
    """

    minutes_since_us: int = 0
    hours_since_us: int = 0
    days_since_us: int = 0
    hours_until_us: int = 0
    days_until_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long cells of each level are kept, in microseconds."""

    minutes_us: int = 48 * 3_600_000_000
    hours_us: int = 90 * 86_400_000_000
    days_us: int = 1_095 * 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The plain sums of some cells, which need no sketches to be read; money is nano-USD."""

    calls: int = 0
    refusals: int = 0
    errors: int = 0
    tokens: int = 0
    cost_nano: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Add two sums."""
        return Counts(
            calls=self.calls + other.calls,
            refusals=self.refusals + other.refusals,
            errors=self.errors + other.errors,
            tokens=self.tokens + other.tokens,
            cost_nano=self.cost_nano + other.cost_nano,
        )


class Dimension(StrEnum):
    """What cells can be told apart by."""

    PROJECT = "project"
    TENANT = "tenant"
    ALIAS = "alias"
    ARM = "arm"
    VERSION = "version"
    MODEL = "model"


FIELDS = {
    Dimension.PROJECT: "project_id",
    Dimension.TENANT: "tenant_id",
    Dimension.ALIAS: "alias",
    Dimension.ARM: "arm",
    Dimension.VERSION: "version_id",
    Dimension.MODEL: "model",
}
"""The fields of a key that dimensions stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Whose calls are asked for; None is anybody's.

    Copies of calls that no client waited for belong to ``SHADOW_TENANT`` and are found only where
    it is named.
    """

    tenant_id: str | None = None
    alias: str | None = None
    arm: str | None = None
    version_id: str | None = None
    model: str | None = None


ANYBODY = Selection()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was counted from ``at_us`` until the next point."""

    at_us: int
    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The points of one group, in the order of time; spans without calls have none.

    ``labels`` are the group's values in the order of the dimensions asked for.
    """

    labels: tuple[str, ...]
    points: list[Point] = field(default_factory=list)

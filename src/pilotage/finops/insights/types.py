"""What is worked out from costs: what a release cost, and what was saved."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCost:
    """What a release (a deployment) cost in some days, and what taking it back leaves paid for.

    ``baseline_nano`` is what its calls would have cost at the cost per call of the other releases
    of its alias between its first and its last day, ``excess_nano`` what it cost beyond that: both
    None where none of them answered. ``rollback_nano`` is what was paid and serves nobody once it
    is taken back: its shadow copies, its calls that failed, and the idle time of its replicas.
    """

    release: str
    alias: str
    calls: int
    calls_nano: int
    failed_nano: int
    shadow_nano: int
    compute_nano: int
    idle_nano: int
    baseline_calls: int
    baseline_nano: int | None
    excess_nano: int | None

    @property
    def total_nano(self) -> int:
        """All that it cost."""
        return self.calls_nano + self.shadow_nano + self.compute_nano + self.idle_nano

    @property
    def rollback_nano(self) -> int:
        """What taking it back leaves paid for nothing."""
        return self.failed_nano + self.shadow_nano + self.idle_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What was paid, and what would have been without a way of saving, on the same usage.

    ``way`` is routing, caching or scale_to_zero; ``reference`` what it is compared with;
    ``unpriced`` calls are in neither sum, because nobody knows their rates any more.
    """

    way: str
    subject: str
    reference: str
    with_nano: int
    without_nano: int
    unpriced: int = 0

    @property
    def saved_nano(self) -> int:
        """The difference; below 0 where it cost more."""
        return self.without_nano - self.with_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class CostAnomaly:
    """A day on which cost or calls stood out, in nano-USD or calls, against what is usual."""

    measure: str
    day: str
    amount: int
    usual: int
    deviations: float

    @property
    def key(self) -> str:
        """What lists continue by."""
        return f"{self.day}/{self.measure}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a month will have cost; ``expected_nano`` and its interval are None for too few days."""

    month: str
    spent_nano: int
    expected_nano: int | None
    low_nano: int | None
    high_nano: int | None
    confidence: float
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """What a call of a model cost on an alias or for a feature, on average over some days."""

    model: str
    calls: int
    failed: int
    cost_nano: int
    nano_per_call: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Whether sums that must be the same are: what the ledger has, and what the lines have."""

    ledger_nano: int
    lines_nano: int
    entries_nano: int
    parts: Sequence[tuple[str, int]] = ()

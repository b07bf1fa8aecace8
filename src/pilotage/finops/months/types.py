"""What a closed month is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedMonth:
    """A project's month (``2026-03``) as it was closed: what its calls and its entries cost.

    What belongs to it and comes later counts on the day on which it comes, as a correction.
    """

    project_id: str
    month: str
    closed_at_us: int
    calls_nano: int
    entries_nano: int

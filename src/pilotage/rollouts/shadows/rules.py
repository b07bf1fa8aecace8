"""Counting pairs of answers, and what the counts say. Pure."""

from collections.abc import Iterable

from pilotage.core.comparison import ALIKE, USABLE
from pilotage.core.frames import Compared
from pilotage.core.gates.pairs import (
    FULL,
    add_pairs,
    find_interval,
    find_mean,
    show_not_worse,
    show_worse,
)
from pilotage.rollouts.shadows.types import Comparison, Held, PairKey

DAY_US = 86_400_000_000
MARGIN = 0.03  # by which marks may be lower
_MOST = 2**50
_HALF = 0.5

Place = tuple[PairKey, int]
"""A pair of arms and the beginning of a UTC day."""
_SUMS = (
    "pairs",
    "with_texts",
    "exact",
    "similarity_sum",
    "with_schema",
    "schema_kept",
    "baseline_nano",
    "candidate_nano",
    "baseline_letters",
    "candidate_letters",
)


def count(frames: Iterable[Compared]) -> dict[Place, Held]:
    """Return what frames add up to by pair of arms and day; what cannot be is left out."""
    found: dict[Place, Held] = {}
    for frame in frames:
        if is_sound(frame):
            key = PairKey(
                frame.project_id, frame.alias, frame.rollout, frame.baseline, frame.candidate
            )
            place = key, frame.at_us // DAY_US * DAY_US
            _add(found.setdefault(place, Held()), frame)
    return found


def is_sound(frame: Compared) -> bool:
    """Say whether the numbers of a frame are ones that a comparison has."""
    return (
        0 <= frame.baseline_mark <= USABLE
        and 0 <= frame.candidate_mark <= USABLE
        and -1 <= frame.similarity <= ALIKE
        and -1 <= frame.is_schema_kept <= 1
        and all(
            -1 <= number <= _MOST
            for number in (
                frame.baseline_letters,
                frame.candidate_letters,
                frame.baseline_nano,
                frame.candidate_nano,
                frame.baseline_us,
                frame.candidate_us,
            )
        )
    )


def merge(one: Held, other: Held) -> Held:
    """Return the counts of both together."""
    sums = {name: getattr(one, name) + getattr(other, name) for name in _SUMS}
    both = Held(
        **sums,
        marks=add_pairs([one.marks, other.marks]),
        faster=add_pairs([one.faster, other.faster]),
        cheaper=add_pairs([one.cheaper, other.cheaper]),
    )
    for each in (one, other):
        both.baseline_us.merge(each.baseline_us)
        both.candidate_us.merge(each.candidate_us)
    return both


def read(key: PairKey, held: Held) -> Comparison:
    """Return what counts say."""
    low, high = find_interval(held.marks)
    return Comparison(
        key=key,
        pairs=held.pairs,
        exact=_divide(held.exact, held.with_texts),
        similarity=_divide(held.similarity_sum, held.with_texts * ALIKE),
        schema_kept=_divide(held.schema_kept, held.with_schema),
        mark=find_mean(held.marks),
        low=low,
        high=high,
        worse=show_worse(held.marks),
        not_worse=show_not_worse(held.marks, MARGIN),
        baseline_ms=_in_ms(held.baseline_us.quantile(_HALF)),
        candidate_ms=_in_ms(held.candidate_us.quantile(_HALF)),
        baseline_nano=held.baseline_nano,
        candidate_nano=held.candidate_nano,
        baseline_letters=_divide(held.baseline_letters, held.with_texts),
        candidate_letters=_divide(held.candidate_letters, held.with_texts),
    )


def _add(held: Held, frame: Compared) -> None:
    held.pairs += 1
    if frame.candidate_mark or frame.baseline_mark:  # that both fail is no sign of being as good
        _tick(held.marks, frame.candidate_mark - frame.baseline_mark)
    if frame.similarity >= 0:
        held.with_texts += 1
        held.exact += frame.is_exact
        held.similarity_sum += frame.similarity
        held.baseline_letters += max(0, frame.baseline_letters)
        held.candidate_letters += max(0, frame.candidate_letters)
    if frame.is_schema_kept >= 0:
        held.with_schema += 1
        held.schema_kept += frame.is_schema_kept
    held.baseline_nano += frame.baseline_nano
    held.candidate_nano += frame.candidate_nano
    _tick(held.cheaper, _order(frame.candidate_nano, frame.baseline_nano))
    if frame.baseline_us >= 0 and frame.candidate_us >= 0:
        _tick(held.faster, _order(frame.candidate_us, frame.baseline_us))
        held.baseline_us.add(frame.baseline_us)
        held.candidate_us.add(frame.candidate_us)


def _order(candidate: int, baseline: int) -> int:
    """Return 1,000 where the candidate has less, -1,000 where the baseline has."""
    return FULL * ((candidate < baseline) - (candidate > baseline))


def _tick(counts: dict[int, int], difference: int) -> None:
    counts[difference] = counts.get(difference, 0) + 1


def _divide(total: int, n: int) -> float | None:
    return total / n if n else None


def _in_ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1_000

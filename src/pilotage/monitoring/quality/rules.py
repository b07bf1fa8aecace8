"""What quality decides: what a frame says, and what opinions add up to."""

import math
from collections.abc import Iterable

from pilotage.core.frames import Feedback
from pilotage.monitoring.quality.types import (
    LABELS,
    Aspect,
    Estimate,
    Opinion,
    Quality,
    Tally,
)

BEST = 1_000_000  # the score of 1 in millionths
CONFIDENCE_Z = 1.959964  # two-sided 95 % of a normal distribution
WAITS_US = 600_000_000  # for its call to be in the ledger; then there is none
UNKNOWN_KEPT_US = 86_400_000_000
KEPT_US = 400 * 86_400_000_000
_LAST_US = 253_402_300_799_000_000  # the last second of the year 9999


def make_opinions(frames: Iterable[Feedback]) -> list[Opinion]:
    """Return what frames say, of each call and aspect the last; what no table can hold is left out.

    A call's score is the last that was given, whatever the label it came with.
    """
    last: dict[tuple[str, str, str, Aspect], Opinion] = {}
    for frame in frames:
        if not (-1 <= frame.score <= BEST and 0 <= frame.at_us <= _LAST_US):
            continue
        aspect = LABELS.get(frame.label, (Aspect.ANY, True))[0]
        opinion = Opinion(
            id=_clean(frame.feedback_id),
            project_id=_clean(frame.project_id),
            tenant_id=_clean(frame.tenant_id),
            key_id=_clean(frame.key_id),
            call_id=_clean(frame.call_id),
            aspect=aspect,
            at_us=frame.at_us,
            score=None if frame.score < 0 else frame.score,
            label=_clean(frame.label),
        )
        last[opinion.project_id, opinion.tenant_id, opinion.call_id, aspect] = opinion
    return list(last.values())


def estimate(total: float, n: int) -> Estimate | None:
    """Return the mean of ``n`` values from 0 to 1 and its interval; None without values.

    The interval is Wilson's (1927) for a share. No values from 0 to 1 of the same mean vary more
    than those that are all 0 or 1, so for them it is wide enough, too.
    """
    if not n:
        return None
    mean, square = total / n, CONFIDENCE_Z**2
    middle = (mean + square / (2 * n)) / (1 + square / n)
    spread = mean * (1 - mean) / n + square / (4 * n * n)
    reach = CONFIDENCE_Z / (1 + square / n) * math.sqrt(max(0.0, spread))
    return Estimate(mean, max(0.0, middle - reach), min(1.0, middle + reach), n)


def add_up(tallies: Iterable[Tally]) -> list[Quality]:
    """Return the quality of every group, in order."""
    groups: dict[tuple[str, tuple[str, ...]], list[Tally]] = {}
    for tally in tallies:
        groups.setdefault((tally.project_id, tally.group), []).append(tally)
    return [_judge(*group, found) for group, found in sorted(groups.items())]


def _judge(project_id: str, group: tuple[str, ...], tallies: list[Tally]) -> Quality:
    def share(aspect: Aspect) -> Estimate | None:
        judged = [
            (tally.opinions, LABELS[tally.label][1])
            for tally in tallies
            if LABELS.get(tally.label, (None, False))[0] is aspect
        ]
        return estimate(
            sum(count for count, counts_one in judged if counts_one),
            sum(count for count, _ in judged),
        )

    scores = sum(tally.score_sum for tally in tallies) / BEST
    return Quality(
        project_id=project_id,
        group=group,
        feedback_score=estimate(scores, sum(tally.scored for tally in tallies)),
        accuracy=share(Aspect.ACCURACY),
        hallucination_rate=share(Aspect.HALLUCINATION),
        toxicity_score=share(Aspect.TOXICITY),
        validation_pass_rate=share(Aspect.VALIDATION),
    )


def _clean(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")

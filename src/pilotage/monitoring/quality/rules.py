"""What quality decides: what a frame says, and what opinions add up to."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby, islice

from pilotage.core.frames import Feedback
from pilotage.finops.types import LedgerEntry
from pilotage.monitoring.quality.types import (
    LABELS,
    Aspect,
    Estimate,
    FeedbackState,
    Opinion,
    Quality,
    Said,
    Tally,
)

BEST = 1_000_000  # the score of 1 in millionths
CONFIDENCE_Z = 1.959964  # two-sided 95 % of a normal distribution
WAITS_US = 3_600_000_000  # for its call to be in the ledger; then there is none
LOOKS_AGAIN_US = 1_000_000  # at first; later after half the time that it has waited
UNKNOWN_KEPT_US = 3_600_000_000
KEPT_US = 400 * 86_400_000_000
_LAST_US = 253_402_300_799_000_000  # the last second of the year 9999


def make_opinions(frames: Iterable[Feedback]) -> list[Opinion]:
    """Return what frames say, of each call and aspect the last; what no table can hold is left out.

    Score, label and comment are opinions of their own, so that each is the last that was given.
    """
    last: dict[tuple[str, Aspect, str, str], Opinion] = {}
    for frame in frames:
        if not (-1 <= frame.score <= BEST and 0 <= frame.at_us <= _LAST_US):
            continue
        for opinion in _list_parts(frame):
            before = last.get(opinion.place)
            if before is None or is_later(opinion, before):
                last[opinion.place] = opinion
    return list(last.values())


def is_later(opinion: Opinion, other: Opinion) -> bool:
    """Say whether an opinion was given after another, by whichever gateway it came."""
    return (opinion.at_us, opinion.id) > (other.at_us, other.id)


def settle(opinion: Opinion, call: LedgerEntry | None, now_us: int) -> Opinion:
    """Return what becomes of an opinion whose call was looked up.

    An opinion counts only if the call was its own tenant's. One whose call is not found waits, from
    when it was taken, and is looked at ever more rarely.
    """
    waited_us = now_us - opinion.taken_at_us
    if call is None and waited_us < WAITS_US:
        pause_us = max(LOOKS_AGAIN_US, waited_us // 2)
        return replace(opinion, due_us=min(now_us + pause_us, opinion.taken_at_us + WAITS_US))
    if call is None or (call.project_id, call.tenant_id) != (
        opinion.project_id,
        opinion.tenant_id,
    ):
        return replace(opinion, state=FeedbackState.UNKNOWN, due_us=now_us + UNKNOWN_KEPT_US)
    return replace(
        opinion,
        state=FeedbackState.MATCHED,
        due_us=now_us + KEPT_US,
        alias=call.alias,
        version_id=call.version_id,
        model=call.model,
        is_counted=opinion.is_counted or opinion.score is not None,
    )


def gather(opinions: Iterable[Opinion], limit: int) -> list[Said]:
    """Put opinions, in order of their ids, together to the feedback that they came with."""
    found = []
    for _, parts in islice(groupby(opinions, key=lambda opinion: opinion.id), limit):
        of_one = list(parts)
        first = of_one[0]
        values = {name: getattr(first, name) for name in Said.__dataclass_fields__}
        found.append(
            Said(
                **values
                | {
                    "score": next((one.score for one in of_one if one.score is not None), None),
                    "label": next((one.label for one in of_one if one.label), ""),
                    "comment": next((one.comment for one in of_one if one.comment), None),
                }
            )
        )
    return found


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


def _list_parts(frame: Feedback) -> Iterator[Opinion]:
    said = Opinion(
        id=_clean(frame.feedback_id),
        project_id=_clean(frame.project_id),
        tenant_id=_clean(frame.tenant_id),
        key_id=_clean(frame.key_id),
        call_id=_clean(frame.call_id),
        aspect=Aspect.SCORE,
        at_us=frame.at_us,
    )
    if frame.score >= 0:
        yield replace(said, score=frame.score)
    if frame.label:
        aspect = LABELS.get(frame.label, (Aspect.ANY, True))[0]
        yield replace(said, aspect=aspect, label=_clean(frame.label))
    if frame.comment:
        yield replace(said, aspect=Aspect.COMMENT, comment=frame.comment)


def _clean(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")

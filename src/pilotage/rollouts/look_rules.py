"""Which looks at a rollout are kept, and which go into its decision record. Pure."""

from collections.abc import Sequence

from pilotage.rollouts.types import Cause, Judgement, Look, Move, Rollout, State, Verdict

KEEP_EVERY_US = 60_000_000
KEEP_PART = 60  # of the time that a step has stood: what stands for weeks is kept more rarely
# These come and go with every call, so that a change of one alone waits for its minute.
_FORECASTS = frozenset({Cause.COLLECTING, Cause.HANGING, Cause.TOO_SLOW})


def is_worth_keeping(
    rollout: Rollout, judged: Judgement, looks: Sequence[Look], now_us: int
) -> bool:
    """Say whether a look that moves nothing is kept: what none has said for a minute.

    ``looks`` are those that were kept last. The longer a step stands, the longer that minute is.
    Evidence near its bound crosses it with every call, to and fro: that is kept once.
    """
    progress = rollout.progress
    every_us = max(KEEP_EVERY_US, (now_us - progress.began_us) // KEEP_PART)
    return not any(
        now_us - look.at_us < every_us
        and look.step == progress.step
        and not says_something_new(judged, look.judged)
        for look in looks
    )


def is_worth_recording(judged: Judgement, looks: Sequence[Look]) -> bool:
    """Say whether a look that is kept goes into the decision record: what it decides anew."""
    if looks:
        return says_something_new(judged, looks[0].judged)
    decides = any(is_worse or is_fine for _, is_worse, is_fine in _list_decided(judged))
    return decides or judged.verdict is not Verdict.HOLD or judged.cause not in _FORECASTS


def widens(rollout: Rollout, move: Move) -> bool:
    """Say whether a move gives the candidate more traffic, or takes the baseline's way back."""
    is_end = rollout.progress.state is State.KEEPING and move.progress.state is State.PROMOTED
    return is_end or (move.weight is not None and move.weight > rollout.weight)


def says_something_new(judged: Judgement, last: Judgement) -> bool:
    """Say whether a look decides another thing than the one before, in all or by some gate."""
    is_forecast = judged.cause in _FORECASTS and last.cause in _FORECASTS
    if not is_forecast and (judged.verdict, judged.cause) != (last.verdict, last.cause):
        return True
    return _list_decided(judged) != _list_decided(last)


def _list_decided(judged: Judgement) -> list[tuple[str, bool, bool]]:
    return [(look.gate, look.is_worse, look.is_fine) for look in judged.looks]

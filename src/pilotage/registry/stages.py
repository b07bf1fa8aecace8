"""The way of a version through the stages: which moves there are. Pure."""

from enum import StrEnum

from pilotage.core.errors import PilotageError
from pilotage.registry.types import Stage


class Move(StrEnum):
    """What a change of stage is."""

    PROMOTE = "promote"
    DEMOTE = "demote"
    ARCHIVE = "archive"
    RESTORE = "restore"


MOVES = {
    (Stage.DEVELOPMENT, Stage.STAGING): Move.PROMOTE,
    (Stage.STAGING, Stage.PRODUCTION): Move.PROMOTE,
    (Stage.PRODUCTION, Stage.STAGING): Move.DEMOTE,
    (Stage.DEVELOPMENT, Stage.ARCHIVED): Move.ARCHIVE,
    (Stage.STAGING, Stage.ARCHIVED): Move.ARCHIVE,
    (Stage.PRODUCTION, Stage.ARCHIVED): Move.ARCHIVE,
    (Stage.ARCHIVED, Stage.DEVELOPMENT): Move.RESTORE,
}
_NEED_REASON = (Move.DEMOTE, Move.RESTORE)


def read_stage(text: str) -> Stage:
    """Return a stage by its name; raise ``invalid_request`` that lists them."""
    try:
        return Stage(text)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"{text[:40]!r} is no stage.",
            hint=f"Stages are: {', '.join(Stage)}.",
            param="stage",
        ) from None


def decide_move(ref: str, now: Stage, wanted: Stage, reason: str) -> Move:
    """Return what a change of stage is; raise ``conflict`` where there is no such way.

    Going back needs a reason: ``invalid_request`` without one.
    """
    move = MOVES.get((now, wanted))
    if move is None:
        ways = [stage for stage in Stage if (now, stage) in MOVES]
        raise PilotageError(
            "conflict",
            f"{ref} is in {now}: from there it cannot go to {wanted}.",
            hint=f"No stage is skipped; from {now} it can go to {' or '.join(ways)}.",
            param="stage",
        )
    if move in _NEED_REASON and not reason.strip():
        raise PilotageError(
            "invalid_request",
            f"Say why {ref} goes back from {now} to {wanted}.",
            hint='Add a reason: --reason "wrong answers in German".',
            param="reason",
        )
    return move

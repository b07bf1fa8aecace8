"""What alerting decides: when a series is pending, fires and is over. Pure: no clock, no I/O.

Time is counted, not subtracted from a beginning: each look adds what passed since the one before,
and vouches for no more than a little of it. So a clock that is set back adds nothing, one that
leaps adds next to nothing, and no alert fires for time in which nobody looked.
"""

from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.monitoring.alerts.types import AlertState, RuleSpec, Standing

VOUCHED_US = 15_000_000  # how much of the time before it a look stands for
LONGEST_TEXT = 1000
MOST_LABELS = 16
MOST_KEPT_US = 24 * 3_600_000_000


def begin_standing(now_us: int, for_us: int) -> Standing:
    """Return where a series is whose condition is seen to hold for the first time."""
    state = AlertState.PENDING if for_us else AlertState.FIRING
    return Standing(state=state, held_us=0, gone_us=None, seen_us=now_us)


def move_standing(
    before: Standing,
    *,
    is_held: bool,
    now_us: int,
    for_us: int,
    keep_us: int,
    vouched_us: int = VOUCHED_US,
) -> Standing | None:
    """Return where a series is now, given whether its condition holds; None if it never fired.

    It fires once its condition was seen to hold for ``for_us``, and is over once it was seen not to
    for ``keep_us``. What is over stays so: a condition that holds again begins anew.
    """
    passed_us = count_passed(before.seen_us, now_us, vouched_us)
    if is_held:
        held_us = before.held_us + passed_us
        is_firing = before.state is AlertState.FIRING or held_us >= for_us
        state = AlertState.FIRING if is_firing else AlertState.PENDING
        return Standing(state=state, held_us=held_us, gone_us=None, seen_us=now_us)
    if before.state is AlertState.PENDING:
        return None
    gone_us = 0 if before.gone_us is None else before.gone_us + passed_us
    state = AlertState.RESOLVED if gone_us >= keep_us else AlertState.FIRING
    return replace(before, state=state, gone_us=gone_us, seen_us=now_us)


def count_passed(before_us: int, now_us: int, vouched_us: int) -> int:
    """Return how much of the time between two looks counts: none if the clock went back."""
    return min(max(now_us - before_us, 0), vouched_us)


def check_rule(name: str, spec: RuleSpec) -> None:
    """Raise ``invalid_request`` for what a rule cannot say; its condition is checked elsewhere."""
    check_name(name)
    for field in ("team", "runbook", "summary"):
        _check_text(getattr(spec, field), field)
    if spec.team:
        check_name(spec.team, "team")
    if not 0 <= spec.keep_firing_us <= MOST_KEPT_US:
        raise PilotageError(
            "invalid_request", "An alert is kept firing for at most 24h.", param="keep_firing_for"
        )
    check_labels(spec.labels)


def check_labels(labels: dict[str, str]) -> None:
    """Raise ``invalid_request`` for labels that alerts cannot have."""
    if len(labels) > MOST_LABELS:
        raise PilotageError(
            "invalid_request", f"A rule has at most {MOST_LABELS} labels.", param="labels"
        )
    for label, value in labels.items():
        is_name = label.isascii() and label.isidentifier() and not label.startswith("__")
        if not is_name or label in RESERVED_LABELS:
            raise PilotageError(
                "invalid_request",
                f"{label[:40]!r} cannot be a label of a rule.",
                hint="Use letters, digits and '_'. Alerts have these anyway: "
                f"{', '.join(sorted(RESERVED_LABELS))}.",
                param="labels",
            )
        _check_text(value, "labels")


RESERVED_LABELS = frozenset({"alertname", "project", "severity", "team", "window", "le"})


def _check_text(text: str, param: str) -> None:
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise PilotageError(
            "invalid_request",
            f"{param}: this is not one line of at most {LONGEST_TEXT} letters.",
            param=param,
        )

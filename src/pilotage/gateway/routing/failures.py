"""What a failed attempt means: whose fault it was, whether another may follow. Pure decisions."""

from enum import Enum

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.transport.connection import FailureKind, UpstreamFailure

Failure = PilotageError | UpstreamFailure
FAILURES = (PilotageError, UpstreamFailure)

LONGEST_WAIT_S = 2.0  # a target that asks for more rest than this is not asked again in this call
SHORTEST_HOLD_S = 1.0  # and one that asks for more than this is left alone by all calls

_CODES: dict[FailureKind, str] = {
    "connect": "upstream_unreachable",
    "connect_timeout": "upstream_unreachable",
    "busy": "upstream_unreachable",
    "reset_before_headers": "upstream_unreachable",
    "cut": "upstream_cut",
    "stall": "upstream_stall",
    "invalid": "upstream_invalid",
    "too_large": "upstream_invalid",
}
_BROKEN = frozenset(
    {
        "upstream_unreachable",
        "upstream_error",
        "upstream_auth",
        "upstream_stall",
        "upstream_cut",
        "upstream_invalid",
    }
)
_RESTING = frozenset({"upstream_overloaded", "unavailable"})
_TARGETS_FAULT = (
    _BROKEN
    | _RESTING
    | {"upstream_quota", "upstream_cold", "breaker_open", "no_replica", "egress_denied"}
)
_REPEATABLE_KINDS = frozenset({"connect", "connect_timeout", "reset_before_headers"})
_REPEATABLE_CODES = frozenset({"upstream_error", "upstream_overloaded", "unavailable"})


class Blame(Enum):
    """What a failure says of the target that was asked."""

    BROKEN = "broken"
    RESTING = "resting"  # it works, and wants to be left alone for a while
    FINE = "fine"  # it answered: the request was at fault, or a quota
    UNKNOWN = "unknown"  # it was not asked


def as_error(failure: Failure) -> PilotageError:
    """Return what a client is told of a failure."""
    if not isinstance(failure, UpstreamFailure):
        return failure
    why = f"The model could not be reached: {failure.reason}." if failure.reason else ""
    return PilotageError(_CODES[failure.kind], why)


def may_use(arm: ArmEntry, failed: ArmEntry, code: str) -> bool:
    """Say whether an arm may be asked after another has failed with this code.

    A request that does not fit one model may fit a larger one; what one provider cannot do another
    may. Any other fault of the request would be the same everywhere.
    """
    if code == "context_length_exceeded":
        return arm.context_tokens > failed.context_tokens
    return code == "unsupported" or is_targets_fault(code)


def is_targets_fault(code: str) -> bool:
    """Say whether another target might do better with the same request."""
    return code in _TARGETS_FAULT


def may_repeat(failure: Failure, *, status: int) -> bool:
    """Say whether the same target may be asked the same again, if the rest of the rules agree.

    It may where no connection came about, where one broke before the answer began, and where the
    target answered that it cannot now. It may not after silence: the model may still be working.
    """
    if isinstance(failure, UpstreamFailure):
        return failure.kind in _REPEATABLE_KINDS
    return failure.code in _REPEATABLE_CODES and (status == 429 or status >= 500)


def blame(failure: Failure, *, status: int) -> Blame:
    """Say what a failure means for the health of its target.

    One that answers 4xx works, even if what we call its model is wrong: others may use it rightly.
    Only a credential that it does not know concerns all.
    """
    if isinstance(failure, UpstreamFailure) and failure.kind == "busy":
        return Blame.UNKNOWN  # our own bound on connections
    code = as_error(failure).code
    if code in _RESTING:
        return Blame.RESTING
    if 400 <= status < 500 and status != 401:
        return Blame.FINE
    if code in _BROKEN:
        return Blame.BROKEN
    return Blame.FINE if status else Blame.UNKNOWN


def choose_error(errors: list[PilotageError]) -> PilotageError:
    """Return what a client is told when every target that was tried has failed.

    That is what is wrong with the request, if one of them said so, else what went wrong last; with
    the number of targets, if there was more than one.
    """
    about_request = [error for error in errors if not is_targets_fault(error.code)]
    told = about_request[0] if about_request else errors[-1]
    if len(errors) == 1:
        return told
    return PilotageError(
        told.code,
        f"{told.detail.rstrip('.')}. {len(errors)} targets were tried.",
        hint=told.hint,
        param=told.param,
        retry_after_s=told.retry_after_s,
    )

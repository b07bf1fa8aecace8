"""What every step that asks again does with an attempt that failed."""

from pilotage.core.frames import Outcome
from pilotage.gateway.bill import abandon_attempt
from pilotage.gateway.call import Call, Try
from pilotage.gateway.routing.failures import Failure, as_error, may_have_run


def note_try(call: Call, failure: Failure, began_s: float, now_s: float) -> None:
    """Put a failed attempt on the call's list of them."""
    arm_id = call.arm.id if call.arm else ""
    call.tries.append(Try(arm_id, began_s, now_s - began_s, as_error(failure).code))


def can_pay_again(call: Call, failure: Failure) -> bool:
    """Say whether one more attempt is within what the call has reserved or can reserve now.

    An attempt that may have run may be billed, so the next one needs a worst case of its own.
    """
    if not may_have_run(failure, is_sent=call.is_sent, status=call.status) or call.alias is None:
        return True
    outputs = call.output_limit * call.request.choices
    nano, tokens = call.alias.worst_nano(call.input_bound, outputs), call.input_bound + outputs
    widest_nano, most_tokens = call.worst_nano + nano, call.worst_tokens + tokens
    if not call.widen(nano, tokens):
        return False
    call.worst_nano = max(call.worst_nano, widest_nano)
    call.worst_tokens = max(call.worst_tokens, most_tokens)
    return True


def give_up(call: Call, failure: Failure, mark: int) -> None:
    """Book a failed attempt, and end what it opened since the call had ``mark`` endings."""
    has_run = may_have_run(failure, is_sent=call.is_sent, status=call.status)
    abandon_attempt(call, Outcome.UPSTREAM_CUT if has_run else Outcome.UPSTREAM_ERROR)
    call.undo(mark)

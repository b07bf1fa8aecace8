"""What every step that asks again does with an attempt that failed."""

from pilotage.gateway.bill import abandon_attempt, may_have_run
from pilotage.gateway.call import Call, Try
from pilotage.gateway.routing.failures import Failure, as_error


def note_try(call: Call, failure: Failure, began_s: float, now_s: float) -> None:
    """Put a failed attempt on the call's list of them."""
    arm_id = call.arm.id if call.arm else ""
    call.tries.append(Try(arm_id, began_s, now_s - began_s, as_error(failure).code))


def can_pay_again(call: Call) -> bool:
    """Say whether one more attempt is within what the call has reserved or can reserve now.

    An attempt that may have run may be billed, so the next one needs a worst case of its own.
    """
    if not may_have_run(call) or call.alias is None:
        return True
    outputs = call.output_limit * call.request.choices
    nano, tokens = call.alias.worst_nano(call.input_bound, outputs), call.input_bound + outputs
    widest_nano, most_tokens = call.worst_nano + nano, call.worst_tokens + tokens
    if not call.widen(nano, tokens):
        return False
    call.worst_nano = max(call.worst_nano, widest_nano)
    call.worst_tokens = max(call.worst_tokens, most_tokens)
    return True


def give_up(call: Call, mark: int) -> None:
    """Book a failed attempt, and end what it opened since the call had ``mark`` endings."""
    abandon_attempt(call)
    call.undo(mark)

"""What a call cost: what the model reported, or an estimate where it reported nothing usable."""

from pilotage.core.frames import Flag
from pilotage.core.usage import Usage, cost_nano
from pilotage.gateway.call import Bill, Call

BYTES_PER_TOKEN = 4  # for estimates only, never for bounds


def bill_call(call: Call) -> Bill:
    """Return what a call that has ended cost, worked out once: its last attempt and those before.

    Everybody who settles or records a call asks here, so that all books agree.
    """
    if call.bill is None:
        usage, is_estimated = settle_usage(call)
        cost = cost_nano(usage, call.arm.rates) if call.arm else 0
        call.bill = Bill(
            call.spent_usage.plus(usage),
            call.spent_nano + cost,
            is_estimated or call.spent_nano > 0,
        )
    return call.bill


def abandon_attempt(call: Call) -> None:
    """Put what the attempt that just failed may cost on the call's bill, and forget its state."""
    usage, _ = settle_usage(call)
    if call.is_sent and call.arm is not None:
        call.spent_usage = call.spent_usage.plus(usage)
        call.spent_nano += cost_nano(usage, call.arm.rates)
    call.is_sent = False
    call.status = call.chunks = call.answer_bytes = 0
    call.usage = None
    call.ttft_us = -1
    call.answered_by = call.fingerprint = call.finish_reason = ""
    call.flags -= {Flag.USAGE_INVALID, Flag.USAGE_MISSING}


def settle_usage(call: Call) -> tuple[Usage, bool]:
    """Return the usage to bill and whether it is an estimate.

    What the model reported counts. An attempt that cannot have run (:func:`may_have_run`) cost
    nothing, however the call ends. Anything else (no answer, garbage, cut, stopped, no or
    impossible counts) is estimated from what was sent and produced: a quarter token per byte, or
    one token per chunk of a streamed answer.
    """
    if call.usage is not None:
        return call.usage, False
    if not may_have_run(call):
        return Usage(), False
    output = max(call.chunks, call.answer_bytes // BYTES_PER_TOKEN)
    return Usage(input=len(call.body) // BYTES_PER_TOKEN, output=output), True


def may_have_run(call: Call) -> bool:
    """Say whether a model may have worked, and be billed, in the attempt that is or was made.

    It cannot have if the request was never sent, or if it was answered with an error status and
    without content. Silence proves nothing: whoever got a request and never answered may bill it.
    """
    return call.is_sent and (call.status < 300 or call.chunks > 0)

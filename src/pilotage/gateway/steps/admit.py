"""Admit: take a call's worst case from every limit it counts against, from all or from none.

Budgets and quotas fail closed: a call whose worst case cannot be paid is refused, moved to a
cheaper model or answered more briefly, as its limit says. Where the store of counters is away and
what was leased from it is used up, the limit says whether the call is refused or passes uncounted.
"""

from collections.abc import Sequence

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag
from pilotage.core.money import format_usd
from pilotage.core.snapshot import LimitEntry
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.counters.exchanger import Denial, Verdict
from pilotage.gateway.counters.limits import Hold, Limits
from pilotage.gateway.counters.slices import CONCURRENCY, COST, REQUESTS, TOKENS, Slice
from pilotage.gateway.steps.record import bound_call
from pilotage.kit.clock import Clock, rfc3339

LEAST_OUTPUT = 16  # tokens of an answer, below which a shorter one is not worth asking for
MOST_TRIES = 8  # others may take what a shorter answer was measured by
_PERIODS = {"minute": " a minute", "day": " a day", "month": " a month"}


class Admit:
    """Reserves before the call goes on, settles when it closes."""

    def __init__(self, follow: Step, limits: Limits, clock: Clock) -> None:
        self._follow = follow
        self._limits = limits
        self._clock = clock

    async def __call__(self, call: Call) -> Reply:
        """Reserve and pass on; raise ``rate_limit_exceeded``, ``insufficient_quota`` or so."""
        bundle = self._limits.match(call)
        if bundle is None:
            return await self._follow(call)
        amounts = [call.worst_nano, call.worst_tokens, 1, 1]
        if self._limits.exchanger.take(bundle.slices, amounts) is None:
            hold = Hold(self._limits, call, bundle.slices, amounts)
            call.counters = bundle.counters
        else:
            hold = await self._insist(call)
        call.at_end(hold.settle)  # nothing may pause between taking and this
        call.widen = hold.widen
        if bundle.shown:
            call.head_lines += show_limits(bundle.shown, self._clock.now_us())
        return await self._follow(call)

    async def _insist(self, call: Call) -> Hold:
        """Wait, and give way as the limits allow, until everything is taken."""
        passed: list[Slice] = []
        denial = None
        for _ in range(MOST_TRIES):
            bundle = self._limits.match(call)
            matched: Sequence[Slice] = bundle.slices if bundle else ()
            payers = tuple(one for one in matched if one not in passed)
            amounts = [call.worst_nano, call.worst_tokens, 1, 1]
            denial = await self._limits.reserve(payers, amounts)
            if denial is None:
                call.counters = bundle.counters if bundle else []
                unpaid = [one for one in passed if one in matched]
                return Hold(self._limits, call, payers, amounts, unpaid)
            self._give_way(call, denial, passed)
        raise _refuse(call, denial) if denial else PilotageError("internal_error")

    def _give_way(self, call: Call, denial: Denial, passed: list[Slice]) -> None:
        """Change the call so that another try can succeed, or refuse it."""
        limit = denial.slice.limit
        if denial.verdict is Verdict.UNKNOWN:
            if limit.on_store_loss != "open":
                raise PilotageError(
                    "limits_unavailable",
                    f"The {_name(limit)} cannot be checked at the moment.",
                    retry_after_s=denial.retry_s,
                )
            call.flags.add(Flag.LIMIT_UNKNOWN)
            passed.append(denial.slice)
        elif limit.action == "warn":
            call.flags.add(Flag.LIMIT_WARNED)
            passed.append(denial.slice)
        elif not _downgrade(call, limit) and not _shorten(call, denial):
            call.flags.discard(Flag.OUTPUT_CUT)
            raise _refuse(call, denial)


def _downgrade(call: Call, limit: LimitEntry) -> bool:
    """Move a call to the cheaper model that its limit names, once; say whether it was moved."""
    if limit.action != "downgrade" or Flag.DOWNGRADED in call.flags:
        return False
    cheaper = call.view.aliases.get((call.tenant.project_id, limit.downgrade_to))
    if cheaper is None or cheaper is call.alias:
        return False
    call.alias = cheaper
    call.alias_name = cheaper.entry.name
    call.flags.add(Flag.DOWNGRADED)
    bound_call(call, cheaper)
    return True


def _shorten(call: Call, denial: Denial) -> bool:
    """Lower the output limit to what a budget can pay; say whether that can be tried.

    What the store knew may be a moment old, and others want it too: what is tried the second time,
    and before a refusal, is the shortest answer.
    """
    one, alias = denial.slice, call.alias
    if alias is None or one.measure not in (COST, TOKENS):
        return False
    left = 0 if Flag.OUTPUT_CUT in call.flags else denial.left
    if one.is_bucket:  # it refills: only a call that could never be paid is made shorter
        left = one.limit.amount if call.worst_tokens > one.limit.amount else 0
    choices = call.request.choices

    def come_to(output: int) -> int:
        outputs = output * choices
        if one.measure == TOKENS:
            return call.input_bound + outputs
        return alias.worst_nano(call.input_bound, outputs)

    fits, too_much = min(LEAST_OUTPUT, call.output_limit), call.output_limit
    if fits >= too_much or (one.is_bucket and come_to(fits) > left):
        return False
    while too_much - fits > 1:
        middle = (fits + too_much) // 2
        fits, too_much = (middle, too_much) if come_to(middle) <= left else (fits, middle)
    call.output_limit = fits
    call.worst_tokens = call.input_bound + fits * choices
    call.worst_nano = alias.worst_nano(call.input_bound, fits * choices)
    call.flags.add(Flag.OUTPUT_CUT)
    return True


def _refuse(call: Call, denial: Denial) -> PilotageError:
    one = denial.slice
    limit = one.limit
    if one.measure == CONCURRENCY:
        return PilotageError(
            "rate_limit_exceeded", f"The {_name(limit)} is reached.", retry_after_s=denial.retry_s
        )
    asked = call.worst_tokens if one.measure == TOKENS else 1
    if one.is_bucket:
        if asked > limit.amount:
            return PilotageError(
                "rate_limit_exceeded",
                f"This call may take {asked} tokens, more than the {_name(limit)} ever allows.",
                hint="Send less, or set a smaller max_tokens.",
            )
        return PilotageError(
            "rate_limit_exceeded", f"The {_name(limit)} is reached.", retry_after_s=denial.retry_s
        )
    ends_at_us = one.window.shown_end_us
    return PilotageError(
        "insufficient_quota",
        f"What is left of the {_name(limit)} cannot pay for this call.",
        hint=f"It begins anew at {rfc3339(ends_at_us)}." if ends_at_us else "",
    )


def _name(limit: LimitEntry) -> str:
    """Return a limit in words: whom it is for and how much, nothing of who else has used it."""
    whom = next(
        (
            word
            for word, value in (
                ("the user", limit.user),
                ("the API key", limit.key_id),
                ("the tenant", limit.tenant_id),
            )
            if value
        ),
        "the project",
    )
    if limit.alias:
        whom = f"{whom} on this model"
    period = _PERIODS.get(limit.per, " in all")
    if limit.measure == "cost":
        return f"budget of {format_usd(limit.amount)} USD{period} for {whom}"
    if limit.measure == "concurrency":
        return f"limit of {limit.amount} calls at once for {whom}"
    kind = "rate limit" if limit.per == "minute" else "quota"
    return f"{kind} of {limit.amount} {limit.measure}{period} for {whom}"


_SHOWN = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n"
_SHOWN_NAMES = {REQUESTS: b"requests", TOKENS: b"tokens"}


def show_limits(shown: Sequence[Slice], now_us: int) -> bytes:
    """Return the header lines that tell of the tightest limit of requests and of tokens."""
    tightest: dict[int, tuple[float, Slice, int]] = {}
    for one in shown:
        amount = one.limit.amount
        left = min(max(one.avail + one.left_elsewhere, 0), amount)
        part = left / amount if amount else 0.0
        if one.measure not in tightest or part < tightest[one.measure][0]:
            tightest[one.measure] = (part, one, left)
    lines = b""
    for measure, (part, one, left) in tightest.items():
        name = _SHOWN_NAMES[measure]
        if one.is_bucket:
            reset_s = (1.0 - part) * 60.0
        else:
            reset_s = max(one.window.shown_end_us - now_us, 0) / 1e6
        lines += _SHOWN % (name, one.limit.amount, name, left, name, write_span(reset_s))
    return lines


def write_span(seconds: float) -> bytes:
    """Write a span of time as OpenAI does: ``12ms``, ``1s``, ``6m0s``, ``2h0m0s``."""
    if seconds < 1:
        return b"%dms" % round(seconds * 1000)
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, whole % 60)
    return b"%dm%ds" % (minutes, whole % 60) if minutes else b"%ds" % whole

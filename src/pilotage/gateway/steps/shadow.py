"""Shadow: a copy of some calls goes to another arm, never in the way of the call itself.

A copy is a call of its own, on record as one; its answer is read to the end, compared with the
call's own and thrown away. What finds no room, no money or no allowed arm is dropped and counted.
Fails open.
"""

from typing import Protocol

from pilotage.core.snapshot import FULL_WEIGHT, ArmEntry
from pilotage.core.snapshot import Shadow as ShadowRule
from pilotage.core.usage import worst_cost_nano
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.copies import make_copy
from pilotage.gateway.counters.limits import Hold, Limits
from pilotage.gateway.measures.pairs import Comparisons, Ear
from pilotage.gateway.routing.choice import is_drawn
from pilotage.gateway.routing.residency import Allowed
from pilotage.gateway.routing.shadows import ShadowBounds, make_budget
from pilotage.gateway.snapshots import AliasView
from pilotage.kit.clock import Clock
from pilotage.kit.resources import Background

_SALT = "shadow of "  # so that copies are drawn apart from arms


class Host(Protocol):
    """Whoever counts the running calls; ``background`` is where copies run, if anywhere."""

    background: Background | None
    is_draining: bool

    def enter(self, call: Call) -> None:
        """Count a call in."""
        ...

    def leave(self, call: Call) -> None:
        """Count a call out."""
        ...


class Shadow:
    """``chain`` takes a copy past routing: record, begin, attempt, the model."""

    def __init__(
        self,
        follow: Step,
        chain: Step,
        host: Host,
        *,
        limits: Limits,
        clock: Clock,
        comparisons: Comparisons,
    ) -> None:
        self._follow = follow
        self._chain = chain
        self._host = host
        self._limits = limits
        self._clock = clock
        self._comparisons = comparisons
        self.bounds = ShadowBounds()

    async def __call__(self, call: Call) -> Reply:
        """Begin a copy if the call is drawn, and pass the call on at once."""
        alias = call.alias
        rule = alias.entry.routing.shadow if alias else None
        if alias and rule and is_drawn(_SALT + alias.entry.salt, call.id, rule.share, FULL_WEIGHT):
            ear = self._begin(call, alias, rule)
            if ear is not None:
                return ear.listen(await self._follow(call))
        return await self._follow(call)

    def _begin(self, call: Call, alias: AliasView, rule: ShadowRule) -> Ear | None:
        """Begin a copy if there is room for it; return what hears the answer to the call then."""
        tenant, background, counts = call.tenant, self._host.background, self.bounds.counts
        choice = alias.find_routes(tenant).find_choice(tenant, call.purpose, call.input_bound)
        if not choice.shadow:
            counts["not_allowed"] += 1
        elif background is None or self._host.is_draining:
            counts["closed"] += 1
        elif self.bounds.enter((alias.entry.project_id, alias.entry.name), rule.concurrency):
            ear = Ear(call, self._clock)
            copy = self._run(call, ear, alias, rule, choice.shadow)
            background.start(copy, f"shadow of {call.id}")
            return ear
        return None

    async def _run(
        self, call: Call, ear: Ear, alias: AliasView, rule: ShadowRule, arms: Allowed
    ) -> None:
        """Make the copy if it can be paid, and compare its answer with the call's.

        It keeps its place until then, as both answers are held in memory.
        """
        try:
            copy = await self._pay(call, alias, rule, arms)
            if copy is not None:
                heard = Ear(copy, self._clock)
                await self._hear(copy, heard)
                await self._comparisons.take(ear, heard)
        finally:
            self.bounds.leave((alias.entry.project_id, alias.entry.name))

    async def _pay(
        self, call: Call, alias: AliasView, rule: ShadowRule, arms: Allowed
    ) -> Call | None:
        """Return the copy, its worst case taken from the day's money; None (and counted) if not."""
        budget = self._limits.find_counter(make_budget(alias.entry, rule))
        amounts = [_bound(call, alias, arms[0]), 0, 0, 0]
        is_spent = budget.used_by_all + amounts[0] > rule.daily_nano  # for the rest of the day
        if is_spent or await self._limits.reserve([budget], amounts) is not None:
            self.bounds.counts["budget"] += 1
            return None
        copy = self._copy(call, alias, arms)
        copy.counters = [budget.key]
        hold = Hold(self._limits, copy, [budget], amounts)
        if self._host.is_draining:  # that began before this task did
            hold.settle()
            self.bounds.counts["closed"] += 1
            return None
        copy.at_end(hold.settle)
        self.bounds.counts["begun"] += 1
        return copy

    async def _hear(self, copy: Call, heard: Ear) -> None:
        """Have the arm answer a copy to the end."""
        self._host.enter(copy)
        try:
            async with copy:
                reply = heard.listen(await self._chain(copy))
                while reply.stream is not None and await reply.stream.read():
                    pass
        finally:
            self._host.leave(copy)

    def _copy(self, call: Call, alias: AliasView, arms: Allowed) -> Call:
        """Return the same request as a call of the arm alone."""
        copy = make_copy(
            self._clock,
            view=call.view,
            alias=alias,
            arms=arms,
            tenant=call.tenant,
            wire=call.wire,
            request=call.request,
            body=call.body,
            deadline_s=self._clock.monotonic_s() + call.deadline_s - call.started_s,
            purpose=call.purpose,
        )
        copy.shadow_of, copy.prompt = call.id, call.prompt
        return copy


def _bound(call: Call, alias: AliasView, arm: ArmEntry) -> int:
    """Return the most that a copy of a call can cost at an arm, in nano-USD."""
    outputs = call.request.limit_output(alias.entry.max_output_tokens) * call.request.choices
    rates = arm.rates
    return worst_cost_nano(call.input_bound, outputs, rates.dearest_input, rates.dearest_output)

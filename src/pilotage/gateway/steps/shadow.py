"""Shadow: a copy of some calls goes to another arm, never in the way of the call itself.

A copy is a call of its own, on record as one; its answer is read to the end and thrown away. What
finds no room, no money or no allowed arm is dropped and counted. Fails open.
"""

from typing import Protocol

from msgspec.structs import replace

from pilotage.core.frames import Flag
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.snapshot import FULL_WEIGHT, Routing, TenantEntry
from pilotage.core.snapshot import Shadow as ShadowRule
from pilotage.core.usage import worst_cost_nano
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.routing.choice import is_drawn
from pilotage.gateway.routing.residency import Allowed
from pilotage.gateway.routing.shadows import DAY_US, ShadowBounds
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
    """``chain`` takes a copy past routing: record, deadline, the arm."""

    def __init__(self, follow: Step, chain: Step, host: Host, clock: Clock) -> None:
        self._follow = follow
        self._chain = chain
        self._host = host
        self._clock = clock
        self.bounds = ShadowBounds()

    async def __call__(self, call: Call) -> Reply:
        """Begin a copy if the call is drawn, and pass the call on at once."""
        alias = call.alias
        rule = alias.entry.routing.shadow if alias else None
        if alias and rule and is_drawn(_SALT + alias.entry.salt, call.id, rule.share, FULL_WEIGHT):
            self._begin(call, alias, rule)
        return await self._follow(call)

    def _begin(self, call: Call, alias: AliasView, rule: ShadowRule) -> None:
        tenant, background, counts = call.tenant, self._host.background, self.bounds.counts
        choice = alias.find_routes(tenant).find_choice(tenant, call.purpose, call.input_bound)
        if not choice.shadow:
            counts["not_allowed"] += 1
        elif background is None or self._host.is_draining:
            counts["closed"] += 1
        else:
            rates, day = choice.shadow[0].rates, self._clock.now_us() // DAY_US
            outputs = call.request.limit_output(alias.entry.max_output_tokens)
            worst_nano = worst_cost_nano(
                call.input_bound,
                outputs * call.request.choices,
                rates.dearest_input,
                rates.dearest_output,
            )
            key = (alias.entry.project_id, alias.entry.name)
            if self.bounds.begin(key, rule, worst_nano, day):
                copy = self._run(call, alias, choice.shadow, worst_nano, day)
                background.start(copy, f"shadow of {call.id}")

    async def _run(
        self, call: Call, alias: AliasView, arms: Allowed, worst_nano: int, day: int
    ) -> None:
        """Make the copy and run it to its end."""
        key = (alias.entry.project_id, alias.entry.name)
        if self._host.is_draining:  # that began before this task did
            self.bounds.end(key, worst_nano, 0, day)
            return
        copy = self._copy(call, alias, arms)
        self._host.enter(copy)
        try:
            async with copy:
                reply = await self._chain(copy)
                while reply.stream is not None and await reply.stream.read():
                    pass
        finally:
            self._host.leave(copy)
            self.bounds.end(key, worst_nano, bill_call(copy).cost_nano, day)

    def _copy(self, call: Call, alias: AliasView, arms: Allowed) -> Call:
        """Return the same request as a call of the arm alone, which nobody pays for or waits for.

        Made in the task that runs it, which is the one that its deadline and a drain stop.
        """
        arm, own, now_s = arms[0], call.tenant, self._clock.monotonic_s()
        routing = Routing(first_byte_timeout_ms=alias.entry.routing.first_byte_timeout_ms)
        copy = Call(
            call_id=self._clock.new_id("call"),
            wire=call.wire,
            view=call.view,
            tenant=TenantEntry(
                id=SHADOW_TENANT,
                name=SHADOW_TENANT,
                project_id=own.project_id,
                regions=own.regions,
                data_class=own.data_class,
                shows=False,
            ),
            key_id="",
            alias=AliasView(replace(alias.entry, arms=[arm], routing=routing)),
            request=call.request,
            body=call.body,
            started_s=now_s,
            deadline_s=now_s + call.deadline_s - call.started_s,
            purpose=call.purpose,
        )
        copy.shadow_of, copy.prompt = call.id, call.prompt
        copy.flags.add(Flag.SHADOW)
        copy.plan, copy.arm = arms, arm
        return copy

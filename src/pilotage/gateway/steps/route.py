"""Route: from the alias to a plan: the arm that is asked, and those that may be asked after it.

Rules restrict the arms, the alias's policy chooses among them. Fails closed: where residency or a
rule leaves no arm, nobody is asked.
"""

from collections.abc import Callable

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag
from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.routing.choice import CHEAPEST, FASTEST, Choice, is_drawn
from pilotage.gateway.routing.failures import FAILURES, as_error, is_targets_fault
from pilotage.gateway.routing.residency import Allowed
from pilotage.gateway.routing.speeds import Speeds
from pilotage.gateway.snapshots import AliasView
from pilotage.kit.clock import Clock

SHOWN_MODELS = 10
EXPLORED_PERCENT = 5  # of the calls that go where it is fastest look elsewhere
FAILED_TOOK_S = 10.0  # what an arm that failed counts as having taken


class Route:
    """By weight, the unit is the user where the key may name users, else the call itself.

    A rollout says its own. ``is_cold`` says whether a call may meet a cold replica at an arm.
    """

    def __init__(self, follow: Step, clock: Clock, is_cold: Callable[[ArmEntry], bool]) -> None:
        self._follow = follow
        self._clock = clock
        self._is_cold = is_cold
        self._speeds = Speeds()

    async def __call__(self, call: Call) -> Reply:
        """Plan the call; raise ``model_not_found``, ``no_allowed_target`` or ``no_replica``."""
        alias = call.alias
        if alias is None:
            raise _unknown_model(call)
        tenant = call.tenant
        choice = alias.find_routes(tenant).find_choice(tenant, call.purpose, call.input_bound)
        plan = choice.only_plan
        if plan is None:
            _check(call, choice)
            if choice.policy == FASTEST:
                return await self._ask_fastest(call, alias, choice)
            if call.rollout and any(map(self._is_cold, choice.candidates)):
                call.flags.add(Flag.WARMING)
            plan = _decide(call, alias, choice)
        call.plan = plan
        call.arm = plan[0]
        return await self._follow(call)

    async def _ask_fastest(self, call: Call, alias: AliasView, choice: Choice) -> Reply:
        began_s = self._clock.monotonic_s()
        is_stream = bool(call.request.stream)
        explores = is_drawn(alias.entry.salt + "?", call.id, EXPLORED_PERCENT, 100)
        chosen = self._speeds.pick(
            choice.candidates, began_s, is_stream=is_stream, explores=explores
        )
        call.plan = choice.plans[chosen]
        call.arm = call.plan[0]
        try:
            reply = await self._follow(call)
        except FAILURES as failed:
            if is_targets_fault(as_error(failed).code):
                self._note(call, FAILED_TOOK_S)
            raise
        if not call.tries:
            self._note(call, self._clock.monotonic_s() - began_s)
        return reply

    def _note(self, call: Call, took_s: float) -> None:
        if call.arm is not None:
            now_s, is_stream = self._clock.monotonic_s(), bool(call.request.stream)
            self._speeds.note(call.arm.id, took_s, now_s, is_stream=is_stream)


def _decide(call: Call, alias: AliasView, choice: Choice) -> Allowed:
    if choice.policy == CHEAPEST:
        outputs = call.output_limit * call.request.choices
        arm = choice.pick_cheapest(call.input_bound, outputs)
    else:
        unit = call.unit if call.rollout else call.user
        arm = choice.pick_weighted(alias.entry.salt, unit or call.id)
    return choice.plans[arm.id]


def _check(call: Call, choice: Choice) -> None:
    if not choice.allowed:
        raise PilotageError(
            "no_allowed_target",
            f"No deployment of {call.alias_name!r} may answer this call.",
            hint="Its regions, the tenant's, its class of data or a routing rule leave none.",
        )
    if not choice.candidates:
        raise PilotageError("no_replica", f"No deployment of {call.alias_name!r} takes traffic.")


def _unknown_model(call: Call) -> PilotageError:
    views = call.view.list_aliases(call.tenant.project_id, call.scope)
    known = [view.entry.name for view in views]
    hint = "A model is published once it has a deployment and a price; none of this key's has."
    if known:
        hint = f"There are: {', '.join(known[:SHOWN_MODELS])}."
    return PilotageError(
        "model_not_found",
        f"The model {call.alias_name!r} does not exist.",
        hint=hint,
        param="model",
    )

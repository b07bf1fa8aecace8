"""Routing: which arm a call is asked of, and which after it. Pure decisions on a Snapshot.

An alias's routing is compiled once for each set of regions and class of data (:class:`Routes`), so
that a call costs one look-up where nothing is to be decided.
"""

from collections.abc import Sequence

from pilotage.core.dealing import draw_point
from pilotage.core.snapshot import AliasEntry, ArmEntry, RouteRule, TenantEntry
from pilotage.core.usage import Usage, cost_nano
from pilotage.gateway.routing.residency import NOBODY, Allowed, allow_arms, allow_copies

WEIGHTED, CHEAPEST, FASTEST = "weighted", "cheapest", "fastest"
_WHOLE = 1 << 64


class Choice:
    """The arms between which one kind of call is decided; ``plans`` holds one plan for each.

    A plan begins with the arm it is for; the fallbacks follow. ``shadow`` holds the arm that copies
    go to, if it is allowed. ``only_plan`` is set where there is nothing to decide. ``is_dealt``
    says that the weights alone decide, as they are in the Snapshot: no rule, region or class of
    data has taken an arm away.
    """

    __slots__ = (
        "_total", "allowed", "candidates", "is_dealt", "only_plan", "plans", "policy", "shadow",
    )  # fmt: skip

    def __init__(
        self, entry: AliasEntry, allowed: Allowed, tenant: TenantEntry, *, is_ruled: bool
    ) -> None:
        routing = entry.routing
        weighted = [arm.id for arm in allowed if arm.weight > 0]
        is_parked = not weighted and not is_ruled and routing.policy == WEIGHTED
        self.policy = routing.policy
        self.allowed = allowed
        self.candidates: Allowed = (
            NOBODY if is_parked else allowed.only(weighted or [arm.id for arm in allowed])
        )
        self.plans: dict[str, Allowed] = {
            arm.id: allowed.only([arm.id, *routing.fallbacks]) for arm in self.candidates
        }
        copied_to = [routing.shadow.arm] if routing.shadow else []
        self.shadow: Allowed = allow_copies(allowed.only(copied_to), tenant)
        self.only_plan: Allowed | None = (
            self.plans[self.candidates[0].id] if len(self.candidates) == 1 else None
        )
        self._total = sum(arm.weight for arm in self.candidates)
        every = [arm.id for arm in entry.arms if arm.weight > 0]
        self.is_dealt = routing.policy == WEIGHTED and bool(every) and weighted == every

    def pick_weighted(self, salt: str, unit: str) -> ArmEntry:
        """Assign a unit by weight: the same unit gets the same arm while salt and weights stand.

        This is :func:`pilotage.core.snapshot.choose_arm` with the weights scaled up to a whole;
        arms without any weight (a rule may leave nothing else) share alike.
        """
        point = draw_point(salt, unit)
        total, threshold = self._total, 0
        for arm in self.candidates[:-1]:
            threshold += arm.weight if total else 1
            if point * (total or len(self.candidates)) < threshold * _WHOLE:
                return arm
        return self.candidates[-1]

    def pick_cheapest(self, input_bound: int, outputs: int) -> ArmEntry:
        """Return the arm at which the largest call of this size costs least; the first of equals.

        The size is bounded in tokens: those of the prompt, and those of all answers.
        """
        most = Usage(input=input_bound, output=outputs)
        return min(self.candidates, key=lambda arm: cost_nano(most, arm.rates))


class Routes:
    """An alias's routing for calls of tenants with the same regions and class of data."""

    __slots__ = ("_rules", "plain")

    def __init__(self, entry: AliasEntry, tenant: TenantEntry) -> None:
        allowed = allow_arms(entry, tenant)
        self.plain = Choice(entry, allowed, tenant, is_ruled=False)
        self._rules = [
            (rule, Choice(entry, allowed.only(rule.arms), tenant, is_ruled=True))
            for rule in entry.routing.rules
        ]

    def find_choice(self, tenant: TenantEntry, purpose: str, input_bound: int) -> Choice:
        """Return what is to be decided for a call: the first rule that matches counts."""
        for rule, choice in self._rules:
            if is_match(rule, tenant, purpose, input_bound):
                return choice
        return self.plain


def is_match(rule: RouteRule, tenant: TenantEntry, purpose: str, input_bound: int) -> bool:
    """Say whether a call is everything that a rule names."""
    return (
        (not rule.tenants or tenant.id in rule.tenants)
        and (not rule.purposes or purpose in rule.purposes)
        and (not rule.data_classes or tenant.data_class in rule.data_classes)
        and rule.min_input <= input_bound
        and (not rule.max_input or input_bound <= rule.max_input)
    )


def is_drawn(salt: str, unit: str, share: int, whole: int) -> bool:
    """Say whether a unit belongs to ``share`` parts of ``whole``."""
    return draw_point(salt, unit) * whole < share * _WHOLE


def list_reachable(entry: AliasEntry) -> Sequence[ArmEntry]:
    """Return every arm that can answer a call of an alias (a shadow answers nobody)."""
    routing = entry.routing
    if routing.policy != WEIGHTED and not any(arm.weight for arm in entry.arms):
        return entry.arms
    named = {*routing.fallbacks, *(arm_id for rule in routing.rules for arm_id in rule.arms)}
    return [arm for arm in entry.arms if arm.weight or arm.id in named] or entry.arms

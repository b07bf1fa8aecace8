"""How an endpoint's calls find their deployment: what may be asked for, and what it means. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.money import MAX_CAP_NANO, NANO, parse_usd
from pilotage.core.regions import check_regions, describe_outside, is_within, list_allowed
from pilotage.core.snapshot import RouteRule, Routing, Shadow
from pilotage.endpoints.rules import match_deployment, to_points
from pilotage.endpoints.types import MOST_RETRIES, POLICIES, Deployment, Endpoint
from pilotage.identity.types import DATA_CLASSES

MOST_RULES = 100
MOST_COPIES = 256
SHORTEST_WAIT_MS = 50
LONGEST_WAIT_MS = 3_600_000
MOST_TOKENS = 2**31 - 1
_MOST_NAMES = 100
_LONGEST_PURPOSE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """A rule as somebody writes it: deployments by name, tenants by name."""

    deployments: Sequence[str]
    tenants: Sequence[str] = ()
    purposes: Sequence[str] = ()
    data_classes: Sequence[str] = ()
    min_input: int = 0
    max_input: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSpec:
    """A shadow as somebody writes it."""

    deployment: str
    percent: Decimal
    concurrency: int = 4
    daily_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSpec:
    """Routing as somebody writes it; what is left out is as in a new endpoint."""

    policy: str = "weighted"
    rules: Sequence[RuleSpec] = ()
    fallbacks: Sequence[str] = ()
    retries: int = 1
    first_byte_timeout_ms: int = 0
    shadow: ShadowSpec | None = None
    regions: Sequence[str] = ()


def compile_routing(
    spec: RoutingSpec,
    endpoint: Endpoint,
    deployments: Sequence[Deployment],
    locations: Mapping[str, str],
) -> tuple[Routing, tuple[str, ...]]:
    """Return the routing and the regions of an endpoint; ``locations`` is by deployment id.

    Raises ``invalid_request`` for names of no deployment, values out of range, a deployment outside
    the regions, and a shadow that would answer calls itself.
    """
    routing = Routing(
        policy=_check_policy(spec.policy),
        rules=_compile_rules(spec.rules, deployments),
        fallbacks=_match_all(spec.fallbacks, deployments, "fallbacks"),
        retries=_check_range(spec.retries, "retries", 0, MOST_RETRIES),
        first_byte_timeout_ms=_check_wait(spec.first_byte_timeout_ms),
        shadow=_compile_shadow(spec.shadow, deployments) if spec.shadow else None,
    )
    regions = check_regions(spec.regions)
    _check_shadow(routing, endpoint.split, deployments)
    check_within(regions, {*endpoint.split, *list_named(routing)}, deployments, locations)
    return routing, regions


def list_named(routing: Routing) -> list[str]:
    """Return the ids of the deployments that a routing names."""
    in_rules = [arm for rule in routing.rules for arm in rule.arms]
    shadow = [routing.shadow.arm] if routing.shadow else []
    return list(dict.fromkeys([*in_rules, *routing.fallbacks, *shadow]))


def is_routed(endpoint: Endpoint, deployment: Deployment) -> bool:
    """Say whether the routing of an endpoint names a deployment."""
    return deployment.id in list_named(endpoint.routing)


def drop_deployment(routing: Routing, deployment: Deployment) -> Routing:
    """Return a routing that no longer names a deployment.

    Raises ``conflict`` if a rule would name nothing any more: its calls would go anywhere.
    """
    rules = []
    for number, rule in enumerate(routing.rules, 1):
        arms = [arm for arm in rule.arms if arm != deployment.id]
        if not arms:
            raise PilotageError(
                "conflict",
                f"Rule {number} leaves its calls to {deployment.model} alone.",
                hint="Change the rule first: pilotage endpoints route",
            )
        rules.append(msgspec.structs.replace(rule, arms=arms))
    shadow = routing.shadow
    return msgspec.structs.replace(
        routing,
        rules=rules,
        fallbacks=[arm for arm in routing.fallbacks if arm != deployment.id],
        shadow=None if shadow and shadow.arm == deployment.id else shadow,
    )


def check_within(
    regions: Sequence[str],
    used: Iterable[str],
    deployments: Sequence[Deployment],
    locations: Mapping[str, str],
) -> None:
    """Raise ``invalid_request`` if a deployment that is used runs outside the regions."""
    ids = set(used)
    for deployment in deployments:
        where = locations.get(deployment.id, "")
        if deployment.id in ids and not is_within(where, list_allowed(regions)):
            raise PilotageError(
                "invalid_request",
                f"{describe_outside(deployment.model, where, regions)}.",
                hint="Add its region, leave it out, or say where its upstream runs: "
                "pilotage upstreams change NAME --location REGION",
                param="regions",
            )


def _check_policy(policy: str) -> str:
    if policy not in POLICIES:
        raise _refuse("policy", f"{policy[:40]!r} is no policy.", f"Use {', '.join(POLICIES)}.")
    return policy


def _compile_rules(rules: Sequence[RuleSpec], there: Sequence[Deployment]) -> list[RouteRule]:
    if len(rules) > MOST_RULES:
        raise _refuse("rules", f"{len(rules)} rules are too many.", f"Use up to {MOST_RULES}.")
    compiled = [_compile_rule(rule, there, f"rules.{n}") for n, rule in enumerate(rules)]
    for number, rule in enumerate(compiled[:-1]):
        if rule == RouteRule(arms=rule.arms):
            raise _refuse(
                f"rules.{number}",
                "A rule without a condition takes every call: those behind it never count.",
                "Put it last, or give it a condition.",
            )
    return compiled


def _compile_rule(rule: RuleSpec, there: Sequence[Deployment], place: str) -> RouteRule:
    arms = _match_all(rule.deployments, there, f"{place}.deployments")
    if not arms:
        raise _refuse(
            f"{place}.deployments",
            "A rule must name the deployments that its calls may use.",
            f"There are: {', '.join(item.model for item in there) or 'none'}.",
        )
    for name in rule.data_classes:
        if name not in DATA_CLASSES:
            raise _refuse(
                f"{place}.data_classes",
                f"{name[:40]!r} is no data class.",
                f"Use {', '.join(DATA_CLASSES)}.",
            )
    for purpose in rule.purposes:
        if not purpose.strip() or len(purpose) > _LONGEST_PURPOSE:
            raise _refuse(
                f"{place}.purposes",
                "A purpose is empty or too long.",
                f"Write what clients send as x-pilotage-purpose, up to {_LONGEST_PURPOSE} letters.",
            )
    lowest = _check_range(rule.min_input, f"{place}.min_input", 0, MOST_TOKENS)
    highest = _check_range(rule.max_input, f"{place}.max_input", 0, MOST_TOKENS)
    if highest and lowest > highest:
        raise _refuse(
            f"{place}.max_input",
            f"No prompt has from {lowest} to {highest} tokens.",
            "min_input may not be above max_input.",
        )
    return RouteRule(
        arms=arms,
        tenants=_once(rule.tenants, f"{place}.tenants"),
        purposes=_once(rule.purposes, f"{place}.purposes"),
        data_classes=_once(rule.data_classes, f"{place}.data_classes"),
        min_input=lowest,
        max_input=highest,
    )


def _compile_shadow(shadow: ShadowSpec, there: Sequence[Deployment]) -> Shadow:
    (arm,) = _match_all([shadow.deployment], there, "shadow.deployment")
    share = to_points(shadow.percent, "shadow.percent")
    if not share:
        raise _refuse(
            "shadow.percent", "A shadow of 0 % sees nothing.", "Use 0.01 to 100, or no shadow."
        )
    return Shadow(
        arm=arm,
        share=share,
        concurrency=_check_range(shadow.concurrency, "shadow.concurrency", 1, MOST_COPIES),
        daily_nano=_check_cap(shadow.daily_usd),
    )


def _check_cap(amount: Decimal) -> int:
    try:
        nano = parse_usd(str(amount))
    except ValueError:
        nano = -1
    if not 0 <= nano <= MAX_CAP_NANO:
        raise _refuse(
            "shadow.daily_usd",
            "That is no daily amount in USD.",
            f"Use 0 to {MAX_CAP_NANO // NANO}, with at most 9 decimals.",
        )
    return nano


def _check_shadow(
    routing: Routing, split: Mapping[str, int], deployments: Sequence[Deployment]
) -> None:
    shadow = routing.shadow
    if shadow is None:
        return
    in_rules = {arm for rule in routing.rules for arm in rule.arms}
    if split.get(shadow.arm) or shadow.arm in routing.fallbacks or shadow.arm in in_rules:
        model = next(item.model for item in deployments if item.id == shadow.arm)
        raise _refuse(
            "shadow.deployment",
            f"{model} answers calls itself: it would be its own shadow.",
            "Take its traffic away first, or choose another deployment.",
        )


def _check_wait(wait_ms: int) -> int:
    if wait_ms == 0:
        return 0
    return _check_range(wait_ms, "first_byte_timeout_ms", SHORTEST_WAIT_MS, LONGEST_WAIT_MS)


def _match_all(names: Sequence[str], there: Sequence[Deployment], param: str) -> list[str]:
    found = []
    for name in _once(names, param):
        try:
            found.append(match_deployment(name, there).id)
        except PilotageError as unknown:
            raise _refuse(param, unknown.detail, unknown.hint) from None
    return _once(found, param)


def _once(names: Sequence[str], param: str) -> list[str]:
    if len(names) > _MOST_NAMES:
        raise _refuse(param, f"{len(names)} names are too many.", f"Use up to {_MOST_NAMES}.")
    if len(set(names)) < len(names):
        raise _refuse(param, "Something is named twice.", "Name each once, in order.")
    return list(names)


def _check_range(value: int, param: str, lowest: int, highest: int) -> int:
    if not lowest <= value <= highest:
        raise _refuse(param, f"{value} is out of range.", f"Use {lowest} to {highest}.")
    return value


def _refuse(param: str, problem: str, hint: str) -> PilotageError:
    return PilotageError("invalid_request", f"{param}: {problem}", hint=hint, param=param)

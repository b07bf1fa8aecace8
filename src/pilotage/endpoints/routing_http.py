"""The control-plane route by which an endpoint's routing is replaced, and how routing is shown."""

from collections.abc import Sequence
from decimal import Decimal

from pydantic import Field

from pilotage.core.money import MAX_CAP_NANO, NANO, format_usd
from pilotage.core.snapshot import FULL_WEIGHT, Routing, Shadow
from pilotage.endpoints.routing import (
    LONGEST_WAIT_MS,
    MOST_COPIES,
    MOST_TOKENS,
    RoutingSpec,
    RuleSpec,
    ShadowSpec,
)
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import MOST_RETRIES, Deployment
from pilotage.kit.api import ApiCall, Body, RevisedView, Route, View


class RuleBody(Body):
    """Calls that match everything given here may only use these deployments.

    The first rule that matches counts. ``min_input`` and ``max_input`` bound the prompt's size in
    tokens; 0 is no bound.
    """

    deployments: list[str]
    tenants: list[str] = Field(default_factory=list)
    purposes: list[str] = Field(default_factory=list)
    data_classes: list[str] = Field(default_factory=list)
    min_input: int = Field(0, ge=0, le=MOST_TOKENS)
    max_input: int = Field(0, ge=0, le=MOST_TOKENS)


class ShadowBody(Body):
    """A deployment that gets a copy of some calls, and what the copies may cost a UTC day."""

    deployment: str
    percent: Decimal = Field(ge=0, le=100)
    concurrency: int = Field(4, ge=1, le=MOST_COPIES)
    daily_usd: Decimal = Field(ge=0, le=MAX_CAP_NANO // NANO)


class RoutingBody(Body):
    """How calls find their deployment; all of it is replaced.

    Deployments are named by id, by what people write, or by the end of that. ``fallbacks`` are
    tried in order; ``first_byte_timeout_ms`` bounds each attempt's wait (0: the call's own limit).
    """

    policy: str = "weighted"
    rules: list[RuleBody] = Field(default_factory=list)
    fallbacks: list[str] = Field(default_factory=list)
    retries: int = Field(1, ge=0, le=MOST_RETRIES)
    first_byte_timeout_ms: int = Field(0, ge=0, le=LONGEST_WAIT_MS)
    shadow: ShadowBody | None = None
    regions: list[str] = Field(default_factory=list)


class RuleState(View):
    """A rule; deployments and tenants by name."""

    deployments: list[str]
    tenants: list[str]
    purposes: list[str]
    data_classes: list[str]
    min_input: int
    max_input: int


class ShadowState(View):
    """A shadow."""

    deployment: str
    percent: float
    concurrency: int
    daily_usd: str


class RoutingState(View):
    """How calls find their deployment, as it may be sent back."""

    policy: str
    rules: list[RuleState]
    fallbacks: list[str]
    retries: int
    first_byte_timeout_ms: int
    shadow: ShadowState | None


class RoutingView(RevisedView):
    """The routing of an endpoint after a change."""

    routing: RoutingState
    regions: list[str]


def routing_route(service: EndpointService) -> Route:
    """Return the route that replaces an endpoint's routing."""

    async def route(call: ApiCall, endpoint: str, body: RoutingBody) -> RoutingView:
        """Replace how calls of an endpoint find their deployment."""
        async with call.write() as tx:
            changed = await service.route(tx, endpoint, _read(body), call.expected_rev)
            deployments = await service.list_deployments(tx, changed)
        return RoutingView.of(changed, routing=show_routing(changed.routing, deployments))

    return Route(
        method="PUT",
        path="/endpoints/{endpoint:path}/routing",
        permission="endpoints.traffic.route",
        handler=route,
    )


def show_routing(routing: Routing, deployments: Sequence[Deployment]) -> RoutingState:
    """Return a routing with the names that people write."""
    names = {deployment.id: deployment.model for deployment in deployments}
    return RoutingState(
        policy=routing.policy,
        rules=[
            RuleState.of(rule, deployments=[names.get(arm, arm) for arm in rule.arms])
            for rule in routing.rules
        ],
        fallbacks=[names.get(arm, arm) for arm in routing.fallbacks],
        retries=routing.retries,
        first_byte_timeout_ms=routing.first_byte_timeout_ms,
        shadow=_show_shadow(routing.shadow, names) if routing.shadow else None,
    )


def _show_shadow(shadow: Shadow, names: dict[str, str]) -> ShadowState:
    return ShadowState(
        deployment=names.get(shadow.arm, shadow.arm),
        percent=shadow.share * 100 / FULL_WEIGHT,
        concurrency=shadow.concurrency,
        daily_usd=format_usd(shadow.daily_nano),
    )


def _read(body: RoutingBody) -> RoutingSpec:
    shadow = body.shadow
    return RoutingSpec(
        policy=body.policy,
        rules=[RuleSpec(**dict(rule)) for rule in body.rules],
        fallbacks=body.fallbacks,
        retries=body.retries,
        first_byte_timeout_ms=body.first_byte_timeout_ms,
        shadow=ShadowSpec(**dict(shadow)) if shadow else None,
        regions=body.regions,
    )

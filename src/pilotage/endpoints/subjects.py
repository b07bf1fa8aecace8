"""How approvals name a routing or an upstream: ``chat {"retries":3}``. Pure.

What is as in a new endpoint or upstream is left out; so there is one way to write each.
"""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd
from pilotage.core.snapshot import Routing
from pilotage.endpoints.routing import RoutingSpec, RuleSpec, ShadowSpec
from pilotage.endpoints.types import Deployment, Endpoint, Upstream, UpstreamSpec

_Spec = TypeVar("_Spec", RoutingSpec, UpstreamSpec)


def write_routing(endpoint: Endpoint, deployments: Sequence[Deployment]) -> str:
    """Return the whole routing of an endpoint, by its name, with models for deployments."""
    names = {item.id: item.model for item in deployments}
    return _write(endpoint.name, _as_written(endpoint.routing, endpoint.regions, names))


def write_upstream(upstream: Upstream, spec: UpstreamSpec) -> str:
    """Return what an upstream shall be, by its name."""
    return _write(upstream.name, spec)


def read_subject(text: str, kind: type[_Spec]) -> tuple[str, _Spec]:
    """Return the name that a text begins with, and what shall become of it.

    Raises ``invalid_request`` for anything else.
    """
    name, _, content = text.strip().partition(" ")
    try:
        return name, msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as wrong:
        raise PilotageError(
            "invalid_request",
            f"{text[:80]!r} does not say what {name[:80]} shall become: {wrong}",
            hint="The refused command prints the whole line that asks for it.",
            param="subject",
        ) from None


def identify(object_id: str, text: str) -> str:
    """Return the id of a written change of an object, however long the text is."""
    return f"{object_id} {hashlib.sha256(text.encode()).hexdigest()}"


def _write(name: str, spec: RoutingSpec | UpstreamSpec) -> str:
    return f"{name} {msgspec.json.encode(_leave_out(spec), order='sorted').decode()}"


def _as_written(routing: Routing, regions: Sequence[str], names: Mapping[str, str]) -> RoutingSpec:
    """Return a routing as somebody would write it."""
    shadow = routing.shadow
    return RoutingSpec(
        policy=routing.policy,
        rules=[
            RuleSpec(
                deployments=[names[arm] for arm in rule.arms],
                tenants=rule.tenants,
                purposes=rule.purposes,
                data_classes=rule.data_classes,
                min_input=rule.min_input,
                max_input=rule.max_input,
            )
            for rule in routing.rules
        ],
        fallbacks=[names[arm] for arm in routing.fallbacks],
        retries=routing.retries,
        first_byte_timeout_ms=routing.first_byte_timeout_ms,
        shadow=ShadowSpec(
            deployment=names[shadow.arm],
            percent=Decimal(shadow.share) / 100,
            concurrency=shadow.concurrency,
            daily_usd=Decimal(format_usd(shadow.daily_nano)),
        )
        if shadow
        else None,
        regions=regions,
    )


def _leave_out(spec: RoutingSpec | RuleSpec | UpstreamSpec) -> dict[str, Any]:
    """Return the parts of a written thing that are not what they are if nobody says them."""
    found = {}
    for name, part in type(spec).__dataclass_fields__.items():
        value = getattr(spec, name)
        if name == "rules":
            value = [_leave_out(rule) for rule in value]
        if value != part.default and not (part.default == () and not value):
            found[name] = value
    return found

"""What the publisher decides: which endpoints are published, and how keys are laid out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from pilotage.core.data_classes import get_rule
from pilotage.core.ids import uuid_bytes
from pilotage.core.names import LLAMACPP
from pilotage.core.regions import describe_outside, is_within, list_allowed
from pilotage.core.snapshot import (
    BEFORE_ROLLOUTS,
    MAY_NAME_USERS,
    SNAPSHOT_VERSION,
    AliasEntry,
    ArmEntry,
    Directory,
    KeyRecord,
    LimitEntry,
    TenantEntry,
    UpstreamEntry,
)
from pilotage.core.usage import Rates
from pilotage.endpoints.types import Deployment, Endpoint, Upstream, locate
from pilotage.identity.types import ApiKey, Tenant
from pilotage.publisher.types import Boxes, LeftOut, Unpublished

MERGE_AT = 1_000  # changed keys that make a new base worth its bytes
UPSTREAM_CONTEXT_TOKENS = 128_000  # of an upstream's model of which nobody said it
UPSTREAM_OUTPUT_TOKENS = 4_096  # the longest answer of one, where the endpoint has no limit
_NO_PRICE = "no price for "


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the control plane holds; ``rates`` is by deployment id, ``letterboxes`` by tenant id.

    ``context_tokens`` bounds what a deployment's engine gives a call.
    """

    tenants: Sequence[Tenant]
    endpoints: Sequence[Endpoint]
    deployments: Sequence[Deployment]
    rates: Mapping[str, Rates]
    context_tokens: int
    upstreams: Sequence[Upstream] = ()
    limits: Sequence[LimitEntry] = ()
    letterboxes: Mapping[str, Boxes] = field(default_factory=dict)


class Compiled(NamedTuple):
    """The directory, and what was left out of it: whole endpoints, and deployments of others."""

    directory: Directory
    unpublished: list[Unpublished]
    left_out: list[LeftOut]


def compile_directory(truth: Truth) -> Compiled:
    """Return the tenants, the endpoints that may be called and what they need.

    An endpoint is published when it has traffic to give, and every deployment that takes some, or
    that one of its rules relies on, has a price and is within its regions. A deployment that
    nothing relies on (a fallback, a shadow, one without traffic) is left out on its own.
    """
    upstreams = {upstream.id: upstream for upstream in truth.upstreams}
    tenant_ids = {(tenant.project_id, tenant.name): tenant.id for tenant in truth.tenants}
    aliases: list[AliasEntry] = []
    unpublished: list[Unpublished] = []
    left_out: list[LeftOut] = []
    for endpoint in sorted(truth.endpoints, key=lambda item: (item.project_id, item.name)):
        own = sorted(
            (item for item in truth.deployments if item.endpoint_id == endpoint.id),
            key=lambda item: item.id,
        )
        flaws = _find_flaws(endpoint, own, truth.rates, upstreams)
        reason = _find_obstacle(endpoint, own, flaws)
        if reason:
            unpublished.append(
                Unpublished(project_id=endpoint.project_id, name=endpoint.name, reason=reason)
            )
            continue
        arms = [_make_arm(endpoint, item, truth, upstreams) for item in own if item.id not in flaws]
        aliases.append(_make_alias(endpoint, arms, tenant_ids))
        left_out += [
            LeftOut(
                project_id=endpoint.project_id,
                endpoint=endpoint.name,
                deployment=item.model,
                reason=flaws[item.id],
            )
            for item in own
            if item.id in flaws
        ]
    used = {arm.upstream_id for alias in aliases for arm in alias.arms}
    directory = Directory(
        tenants=[
            _make_tenant(tenant, truth.letterboxes.get(tenant.id))
            for tenant in sorted(truth.tenants, key=lambda t: t.id)
        ],
        aliases=aliases,
        upstreams=[_make_upstream(upstreams[key]) for key in sorted(upstreams) if key in used],
        limits=sorted(truth.limits, key=lambda limit: limit.id),
    )
    return Compiled(directory, unpublished, left_out)


def get_subject(deployment: Deployment) -> str:
    """Return what a price of a deployment is for, in the words of the price book."""
    return deployment.upstream_model or deployment.model


def _find_flaws(
    endpoint: Endpoint,
    own: Sequence[Deployment],
    rates: Mapping[str, Rates],
    upstreams: Mapping[str, Upstream],
) -> dict[str, str]:
    """Return why deployments cannot be used, for those of which that is so."""
    flaws = {}
    for item in own:
        location = locate(item, upstreams, endpoint)
        if item.upstream_id and item.upstream_id not in upstreams:
            flaws[item.id] = f"the upstream of {item.model} is gone"
        elif not is_within(location, list_allowed(endpoint.regions)):
            flaws[item.id] = describe_outside(item.model, location, endpoint.regions)
        elif item.id not in rates:
            flaws[item.id] = f"{_NO_PRICE}{get_subject(item)}"
    return flaws


def _find_obstacle(endpoint: Endpoint, own: Sequence[Deployment], flaws: Mapping[str, str]) -> str:
    if not any(endpoint.split.get(item.id) for item in own):
        return "no deployment takes traffic"
    relied_on = {arm for rule in endpoint.routing.rules for arm in rule.arms}
    needed = [item for item in own if endpoint.split.get(item.id) or item.id in relied_on]
    found = sorted({flaws[item.id] for item in needed if item.id in flaws})
    prices = [flaw.removeprefix(_NO_PRICE) for flaw in found if flaw.startswith(_NO_PRICE)]
    others = [flaw for flaw in found if not flaw.startswith(_NO_PRICE)]
    return "; ".join([*([_NO_PRICE + ", ".join(prices)] if prices else []), *others])


def _make_arm(
    endpoint: Endpoint, item: Deployment, truth: Truth, upstreams: Mapping[str, Upstream]
) -> ArmEntry:
    if item.upstream_id:
        context = item.context_tokens or UPSTREAM_CONTEXT_TOKENS
    else:
        context = item.find_context(truth.context_tokens)
    return ArmEntry(
        id=item.id,
        weight=endpoint.split.get(item.id, 0),
        version_id=item.version_id,
        model=item.model,
        context_tokens=context,
        rates=truth.rates[item.id],
        upstream_id=item.upstream_id,
        upstream_model=item.upstream_model or _name_served(endpoint, item),
        location=locate(item, upstreams, endpoint),
        accepts=upstreams[item.upstream_id].accepts if item.upstream_id else "",
        can_wake=item.can_wake,
        adapter=item.adapter_sha256,
    )


def _name_served(endpoint: Endpoint, item: Deployment) -> str:
    """Return the name by which a command serves a model; llama.cpp does not mind what it is asked.

    Calls say the name that their client knows, which is another one where a limit has led them on.
    """
    return endpoint.name if item.engine not in ("", LLAMACPP) else ""


def _make_alias(
    endpoint: Endpoint, arms: list[ArmEntry], tenant_ids: Mapping[tuple[str, str], str]
) -> AliasEntry:
    ids = {arm.id for arm in arms}
    routing = endpoint.routing
    rules = [
        replace(
            rule,
            tenants=[tenant_ids.get((endpoint.project_id, name), name) for name in rule.tenants],
        )
        for rule in routing.rules
    ]
    shadow = routing.shadow if routing.shadow and routing.shadow.arm in ids else None
    fallbacks = [arm for arm in routing.fallbacks if arm in ids]
    return AliasEntry(
        project_id=endpoint.project_id,
        name=endpoint.name,
        created_at_us=endpoint.created_at_us,
        salt=endpoint.rollout or endpoint.salt,
        max_output_tokens=_bound_output(endpoint, arms),
        arms=arms,
        routing=replace(routing, rules=rules, fallbacks=fallbacks, shadow=shadow),
        regions=list_allowed(endpoint.regions),
        rollout=endpoint.rollout,
        unit=endpoint.unit,
    )


def list_rates(directory: Directory) -> dict[tuple[str, str], Rates]:
    """Return what arms cost, by deployment and the provider of its upstream, "" without one."""
    providers = {upstream.id: upstream.provider for upstream in directory.upstreams}
    return {
        (arm.id, providers.get(arm.upstream_id, "")): arm.rates
        for alias in directory.aliases
        for arm in alias.arms
    }


def find_oldest_reader(directory: Directory) -> int:
    """Return the lowest version of a gateway that may serve by a directory.

    One that does not know rollouts would deal calls without saying by which coin, and one that does
    not know adapters would ask base models.
    """
    aliases = directory.aliases
    is_new = any(one.rollout or any(arm.adapter for arm in one.arms) for one in aliases)
    return SNAPSHOT_VERSION if is_new else BEFORE_ROLLOUTS


def _bound_output(endpoint: Endpoint, arms: Sequence[ArmEntry]) -> int:
    """Return the longest answer of an endpoint; providers refuse a limit above their model's."""
    if endpoint.max_output_tokens:
        return min(endpoint.max_output_tokens, max(arm.context_tokens for arm in arms))
    return max(
        min(arm.context_tokens, UPSTREAM_OUTPUT_TOKENS) if arm.upstream_id else arm.context_tokens
        for arm in arms
    )


def keeps_comments(tenant: Tenant) -> bool:
    """Say whether comments on a tenant's answers are kept: never of data that no log may have."""
    return tenant.keeps_comments and get_rule(tenant.data_class.value).is_logged


def takes_samples(tenant: Tenant) -> bool:
    """Say whether calls of a tenant are kept to be replayed: never data that no log may have."""
    return tenant.sample_share > 0 and get_rule(tenant.data_class.value).is_logged


def seals(tenant: Tenant) -> bool:
    """Say whether a tenant needs a key that gateways seal for."""
    return keeps_comments(tenant) or takes_samples(tenant)


def _make_tenant(tenant: Tenant, boxes: Boxes | None) -> TenantEntry:
    return TenantEntry(
        id=tenant.id,
        name=tenant.name,
        project_id=tenant.project_id,
        time_zone=tenant.time_zone,
        regions=list_allowed(tenant.regions),
        features=list(tenant.features),
        data_class=tenant.data_class.value,
        shows=tenant.shows,
        log_share=tenant.log_share,
        measure_share=tenant.measure_share,
        letterbox=boxes.comments if boxes and keeps_comments(tenant) else "",
        sample_share=tenant.sample_share if boxes and takes_samples(tenant) else 0,
        sample_box=boxes.samples if boxes and takes_samples(tenant) else "",
    )


def _make_upstream(upstream: Upstream) -> UpstreamEntry:
    values = {name: getattr(upstream, name) for name in UpstreamEntry.__struct_fields__}
    return UpstreamEntry(**values | {"provider": upstream.provider.value})


def make_records(keys: Sequence[ApiKey], now_us: int) -> list[KeyRecord]:
    """Return the table records of the keys that are neither revoked nor expired.

    What lies over a base must have the expired ones too (``now_us`` 0): the base may know a key as
    it was before it was told when to end.
    """
    return [
        KeyRecord(
            key.digest,
            uuid_bytes(key.id),
            uuid_bytes(key.tenant_id),
            key.expires_at_us or 0,
            MAY_NAME_USERS if key.may_name_users else 0,
            key.scope_number,
        )
        for key in keys
        if key.revoked_at_us is None and (key.expires_at_us is None or key.expires_at_us > now_us)
    ]


def list_revoked(keys: Sequence[ApiKey]) -> list[bytes]:
    """Return the digests of the keys that are revoked."""
    return [key.digest for key in keys if key.revoked_at_us is not None]


def is_merge_due(changed: Sequence[ApiKey], base_seq: int) -> bool:
    """Say whether the changed keys should become part of a new base."""
    return len(changed) >= MERGE_AT or (base_seq == 0 and bool(changed))

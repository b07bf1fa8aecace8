"""What the publisher decides: which endpoints are published, and how keys are laid out. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pilotage.core.ids import uuid_bytes
from pilotage.core.snapshot import AliasEntry, ArmEntry, Directory, KeyRecord, TenantEntry
from pilotage.core.usage import Rates
from pilotage.endpoints.types import Deployment, Endpoint
from pilotage.identity.types import ApiKey, Tenant
from pilotage.publisher.types import Unpublished

MERGE_AT = 1_000  # changed keys that make a new base worth its bytes


class Compiled(NamedTuple):
    """The directory, and what was left out of it."""

    directory: Directory
    left_out: list[Unpublished]


def compile_directory(
    tenants: Sequence[Tenant],
    endpoints: Sequence[Endpoint],
    deployments: Sequence[Deployment],
    rates: Mapping[str, Rates],
    context_tokens: int,
) -> Compiled:
    """Return the tenants and the endpoints that may be called; ``rates`` is by deployment id.

    An endpoint is published when it has traffic to give and every deployment of it that takes
    some has a price. ``context_tokens`` bounds what a deployment's engine gives a call.
    """
    aliases, left_out = [], []
    for endpoint in sorted(endpoints, key=lambda item: (item.project_id, item.name)):
        own = [item for item in deployments if item.endpoint_id == endpoint.id]
        reason = _find_obstacle(endpoint, own, rates)
        if reason:
            left_out.append(
                Unpublished(project_id=endpoint.project_id, name=endpoint.name, reason=reason)
            )
        else:
            aliases.append(_compile_alias(endpoint, own, rates, context_tokens))
    entries = [TenantEntry(id=t.id, name=t.name, project_id=t.project_id) for t in tenants]
    return Compiled(
        Directory(tenants=sorted(entries, key=lambda entry: entry.id), aliases=aliases), left_out
    )


def _find_obstacle(
    endpoint: Endpoint, own: Sequence[Deployment], rates: Mapping[str, Rates]
) -> str:
    if not endpoint.split:
        return "no deployment takes traffic"
    unpriced = sorted(
        item.model for item in own if endpoint.split.get(item.id) and item.id not in rates
    )
    if unpriced:
        return f"no price for {', '.join(unpriced)}"
    return ""


def _compile_alias(
    endpoint: Endpoint, own: Sequence[Deployment], rates: Mapping[str, Rates], context_tokens: int
) -> AliasEntry:
    arms = [
        ArmEntry(
            id=item.id,
            weight=endpoint.split.get(item.id, 0),
            version_id=item.version_id,
            model=item.model,
            context_tokens=min(item.context_tokens or context_tokens, context_tokens),
            rates=rates[item.id],
        )
        for item in sorted(own, key=lambda item: item.id)
        if item.id in rates
    ]
    widest = max(arm.context_tokens for arm in arms)
    return AliasEntry(
        project_id=endpoint.project_id,
        name=endpoint.name,
        created_at_us=endpoint.created_at_us,
        salt=endpoint.salt,
        max_output_tokens=min(endpoint.max_output_tokens or widest, widest),
        arms=arms,
    )


def make_records(keys: Sequence[ApiKey], now_us: int) -> list[KeyRecord]:
    """Return the table records of the keys that are neither revoked nor expired."""
    return [
        KeyRecord(key.digest, uuid_bytes(key.id), uuid_bytes(key.tenant_id), key.expires_at_us or 0)
        for key in keys
        if key.revoked_at_us is None and (key.expires_at_us is None or key.expires_at_us > now_us)
    ]


def list_revoked(keys: Sequence[ApiKey]) -> list[bytes]:
    """Return the digests of the keys that are revoked."""
    return [key.digest for key in keys if key.revoked_at_us is not None]


def is_merge_due(changed: Sequence[ApiKey], base_seq: int) -> bool:
    """Say whether the changed keys should become part of a new base."""
    return len(changed) >= MERGE_AT or (base_seq == 0 and bool(changed))

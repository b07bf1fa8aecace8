"""The access review: who may do what and where, and what of that somebody should look at."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from pilotage.identity import principal_store as store
from pilotage.identity import store as key_store
from pilotage.identity.principals import Principals
from pilotage.identity.types import (
    EVERYWHERE,
    ApiKey,
    Binding,
    Credential,
    Principal,
    PrincipalKind,
    Role,
)
from pilotage.kit.db import Tx
from pilotage.kit.outbox import list_first

DAY_US = 86_400_000_000
STALE_US = 90 * DAY_US
SOON_US = 30 * DAY_US
REQUESTERS = frozenset({Role.ML_ENGINEER, Role.ML_OPS, Role.ADMIN})
EVERYTHING = 1_000_000
Owned = TypeVar("Owned", Binding, Credential)


class Remark(StrEnum):
    """What somebody should look at."""

    CONFLICT = "asks_and_approves"  # nobody should be able to request and to approve
    STALE = "not_used_for_90_days"
    EXPIRING = "ends_within_30_days"
    ENDLESS = "never_expires"
    MADE_BY_ANOTHER = "credential_made_by_somebody_else"
    NO_ROLE = "credential_without_a_role"
    WIDE = "for_everything"  # a key without bounds
    MADE_BY_DISABLED = "made_by_disabled"  # a key whose text somebody knows who may do nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One principal that may act: its roles, what it is known by, and the remarks on it."""

    principal: Principal
    roles: tuple[Binding, ...]
    credentials: tuple[Credential, ...]
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAccess:
    """One API key that is accepted, whoever made it and so knows its text, and the remarks."""

    key: ApiKey
    created_by: str
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Everything that is open at a moment."""

    at_us: int
    principals: tuple[Access, ...]
    keys: tuple[KeyAccess, ...]


class Revoked(NamedTuple):
    """Somebody who may do nothing any more, and the keys made by them that are still accepted."""

    principal: Principal
    keys: tuple[ApiKey, ...]


class AccessReview:
    """Looks at all access, and takes somebody's away in one step."""

    def __init__(self, principals: Principals) -> None:
        self._principals = principals

    async def review(self, tx: Tx) -> Review:
        """Return who may act now, by name, and which keys are accepted, oldest first."""
        roles = _group(item for item in await store.list_bindings(tx) if item.is_live(tx.now_us))
        known = _group(item for item in await store.list_credentials(tx) if item.is_live(tx.now_us))
        found, disabled = [], set()
        for principal in await self._principals.list(tx):
            if principal.disabled_at_us is not None:
                disabled.add(principal.id)
                continue
            own, by = tuple(roles.get(principal.id, ())), tuple(known.get(principal.id, ()))
            remarks = remark_access(principal, own, by, tx.now_us)
            found.append(
                Access(principal=principal, roles=own, credentials=by, remarks=tuple(remarks))
            )
        keys = []
        for key, maker in await _list_keys(tx):
            told = remark_key(key, tx.now_us, is_maker_disabled=maker in disabled)
            keys.append(KeyAccess(key=key, created_by=maker, remarks=tuple(told)))
        return Review(at_us=tx.now_us, principals=tuple(found), keys=tuple(keys))

    async def revoke(self, tx: Tx, name_or_id: str) -> Revoked:
        """Disable a principal, refuse its credentials and end its roles, all at once.

        Keys belong to tenants, who may be using them: those that it made stay, and are named.
        """
        principal = await self._principals.disable(tx, name_or_id)
        for credential in await store.list_credentials(tx, principal.id):
            await self._principals.revoke_credential(tx, credential.id)
        for binding in await store.list_bindings(tx, [principal.id]):
            await self._principals.end_binding(tx, binding.id)
        made = [key for key, by in await _list_keys(tx) if by == principal.id]
        return Revoked(principal, tuple(made))


def remark_access(
    principal: Principal,
    roles: Sequence[Binding],
    credentials: Sequence[Credential],
    now_us: int,
) -> list[Remark]:
    """Return what should be looked at of a principal that may act."""
    remarks = [Remark.CONFLICT] if has_conflict(roles) else []
    seen_us = principal.last_seen_at_us or principal.created_at_us
    if now_us - seen_us > STALE_US:
        remarks.append(Remark.STALE)
    ends = [item.expires_at_us for item in roles if not item.source]  # tokens give theirs anew
    ends += [item.expires_at_us for item in credentials]
    if any(end is not None and end - now_us <= SOON_US for end in ends):
        remarks.append(Remark.EXPIRING)
    if any(item.expires_at_us is None for item in credentials):
        remarks.append(Remark.ENDLESS)
    is_person = principal.kind is PrincipalKind.USER
    if is_person and any(item.created_by not in ("system", principal.id) for item in credentials):
        remarks.append(Remark.MADE_BY_ANOTHER)
    if credentials and not roles:
        remarks.append(Remark.NO_ROLE)
    return remarks


def remark_key(key: ApiKey, now_us: int, *, is_maker_disabled: bool = False) -> list[Remark]:
    """Return what should be looked at of a key that is accepted."""
    remarks = [Remark.MADE_BY_DISABLED] if is_maker_disabled else []
    if key.expires_at_us is None:
        remarks.append(Remark.ENDLESS)
    elif key.expires_at_us - now_us <= SOON_US:
        remarks.append(Remark.EXPIRING)
    if key.scope_number == 0:
        remarks.append(Remark.WIDE)
    return remarks


def has_conflict(roles: Sequence[Binding]) -> bool:
    """Say whether somebody can ask for a change and approve one in the same project."""
    approves = {item.scope for item in roles if item.role is Role.APPROVER}
    asks = {item.scope for item in roles if item.role in REQUESTERS}
    return any(EVERYWHERE in (one, other) or one == other for one in approves for other in asks)


async def _list_keys(tx: Tx) -> Sequence[tuple[ApiKey, str]]:
    """Return the keys that are accepted, oldest first, each with whoever made it."""
    keys = [
        key
        for key in await key_store.list_keys(tx, None, "", EVERYTHING)
        if key.revoked_at_us is None and not _is_over(key.expires_at_us, tx.now_us)
    ]
    made_by = {item.object_id: item.actor for item in await list_first(tx, [k.id for k in keys])}
    return [(key, made_by.get(key.id, "")) for key in keys]


def _group(items: Iterable[Owned]) -> dict[str, list[Owned]]:
    found: dict[str, list[Owned]] = {}
    for item in items:
        found.setdefault(item.principal_id, []).append(item)
    return found


def _is_over(expires_at_us: int | None, now_us: int) -> bool:
    return expires_at_us is not None and expires_at_us <= now_us

"""What identity decides: states of keys, who may give roles, what tenants may be set to."""

import re
from collections.abc import Collection
from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.core.key_scopes import OPERATIONS, KeyScope
from pilotage.core.names import check_alias
from pilotage.core.regions import check_regions
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.identity.matrix import list_roles
from pilotage.identity.types import (
    ApiKey,
    KeyState,
    Principal,
    PrincipalKind,
    Profile,
    Role,
    TenantSettings,
)

MOST_FEATURES = 100
MOST_ALIASES = 100  # that a key names
MOST_LETTERS = 200  # of a person's name
_FEATURE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,62}[A-Za-z0-9])?")
_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,190}")


def assess_key(key: ApiKey, now_us: int) -> KeyState:
    """Return where a key stands now; a revoked key stays revoked."""
    if key.revoked_at_us is not None:
        return KeyState.REVOKED
    if key.expires_at_us is not None and key.expires_at_us <= now_us:
        return KeyState.EXPIRED
    return KeyState.ACTIVE


def is_allowed(roles: Collection[str], permission: str) -> bool:
    """Say whether any of some roles holds a permission (``slice.noun.verb``)."""
    return not list_roles(permission).isdisjoint(roles)


def check_grant(principal: Principal, role: Role, by: str, ttl_us: int | None) -> None:
    """Raise unless ``by`` may give a principal a role for so long.

    Nobody gives themselves a role, whatever else they may do, and gateways have but their own.
    """
    if principal.id == by:
        raise PilotageError(
            "permission_denied",
            "Nobody may give a role to themselves.",
            hint="Ask another administrator, or somebody with the role security.",
        )
    if (principal.kind is PrincipalKind.GATEWAY) != (role is Role.GATEWAY):
        raise PilotageError(
            "invalid_request",
            f"A {principal.kind.replace('_', ' ')} cannot have the role {role!s}.",
            param="role",
        )
    if ttl_us is not None and ttl_us <= 0:
        raise PilotageError(
            "invalid_request", "A role must last for some time.", param="expires_in"
        )


def check_own_life(made_for_us: int, ttl_us: int) -> None:
    """Raise if somebody would let themselves in for longer than their credential was made for."""
    if ttl_us > made_for_us:
        raise PilotageError(
            "permission_denied",
            "Nobody may lengthen the life of their own credential.",
            hint="Leave expires_in out, or ask somebody with the role security.",
            param="expires_in",
        )


def check_profile(profile: Profile) -> Profile:
    """Return what is said of a person; raise ``invalid_request`` for what cannot be."""
    if len(profile.display_name) > MOST_LETTERS:
        raise PilotageError(
            "invalid_request",
            f"A name has {MOST_LETTERS} letters at most.",
            param="display_name",
        )
    if profile.email and not _EMAIL.fullmatch(profile.email):
        raise PilotageError(
            "invalid_request", f"{profile.email[:80]!r} is no e-mail address.", param="email"
        )
    return profile


def check_scope(scope: KeyScope) -> None:
    """Raise ``invalid_request`` unless what a key is for can be."""
    for operation in scope.operations:
        if operation not in OPERATIONS:
            raise PilotageError(
                "invalid_request",
                f"{operation[:80]!r} is no operation of the gateway.",
                hint=f"Use some of: {', '.join(OPERATIONS)}.",
                param="operations",
            )
    if len(scope.aliases) > MOST_ALIASES:
        raise PilotageError(
            "invalid_request", f"A key names {MOST_ALIASES} aliases at most.", param="aliases"
        )
    for alias in scope.aliases:
        check_alias(alias, "aliases")


def check_tenant(settings: TenantSettings) -> TenantSettings:
    """Return settings of a tenant, lists without repetitions; raise ``invalid_request``.

    Whether there is such a time zone is for the service to look up.
    """
    features = tuple(dict.fromkeys(settings.features))
    if len(features) > MOST_FEATURES:
        raise PilotageError(
            "invalid_request", f"There may be {MOST_FEATURES} features at most.", param="features"
        )
    for name in features:
        if not _FEATURE.fullmatch(name):
            raise PilotageError(
                "invalid_request",
                f"{name[:80]!r} is no feature.",
                hint="Use 1 to 64 letters, digits, '.', '_', '/' and '-'.",
                param="features",
            )
    _check_share(settings.log_share, "log_percent")
    _check_share(settings.measure_share, "measure_percent")
    _check_share(settings.sample_share, "sample_percent")
    return replace(settings, regions=check_regions(settings.regions), features=features)


def _check_share(share: int, param: str) -> None:
    if not 0 <= share <= FULL_WEIGHT:
        raise PilotageError(
            "invalid_request",
            f"{share} basis points are no share.",
            hint="Use 0 to 100 percent.",
            param=param,
        )

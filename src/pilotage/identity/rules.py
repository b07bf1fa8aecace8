"""What identity decides: states of keys, permissions of roles, what tenants may be set to."""

import re
from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.core.regions import check_regions
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.identity.types import ApiKey, KeyState, TenantSettings

ROLE_ADMIN = "admin"
ROLE_VIEWER = "viewer"
ROLE_GATEWAY = "gateway"
ROLE_REVOKED = "revoked"  # of a gateway that was: its name and its records stay its own
GATEWAY_SLICE = "remote."  # what a gateway may do: fetch Snapshots, hand in frames, acknowledge
MOST_FEATURES = 100
_FEATURE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,62}[A-Za-z0-9])?")


def assess_key(key: ApiKey, now_us: int) -> KeyState:
    """Return where a key stands now; a revoked key stays revoked."""
    if key.revoked_at_us is not None:
        return KeyState.REVOKED
    if key.expires_at_us is not None and key.expires_at_us <= now_us:
        return KeyState.EXPIRED
    return KeyState.ACTIVE


def is_allowed(role: str, permission: str) -> bool:
    """Say whether a role holds a permission (``slice.noun.verb``); reading is a verb of its own."""
    if role == ROLE_ADMIN:
        return True
    if role == ROLE_GATEWAY:
        return permission.startswith(GATEWAY_SLICE)
    return role == ROLE_VIEWER and permission.endswith(".read")


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
    if not 0 <= settings.log_share <= FULL_WEIGHT:
        raise PilotageError(
            "invalid_request",
            f"{settings.log_share} basis points are no share.",
            hint="Use 0 to 100 percent.",
            param="log_percent",
        )
    return replace(settings, regions=check_regions(settings.regions), features=features)

"""What identity decides: states of keys, permissions of roles."""

from pilotage.identity.types import ApiKey, KeyState

ROLE_ADMIN = "admin"
ROLE_VIEWER = "viewer"


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
    return role == ROLE_VIEWER and permission.endswith(".read")

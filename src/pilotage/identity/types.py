"""What identity is: projects own objects, tenants pay for calls, keys speak for a tenant."""

from dataclasses import dataclass
from enum import StrEnum

DEFAULT = "default"  # the project and the tenant that exist from the first start
API_KEY_PREFIX = "plt_live_"
ADMIN_PREFIX = "plt_admin_"


class KeyState(StrEnum):
    """Where an API key stands."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The owner of models, endpoints and prices."""

    id: str
    rev: int
    name: str
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A payer within a project; deleting leaves a tombstone, because the ledger keeps its id."""

    id: str
    rev: int
    project_id: str
    name: str
    created_at_us: int
    deleted_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key of a tenant, known by its SHA-256; ``hint`` is its last four letters, for people."""

    id: str
    rev: int
    project_id: str
    tenant_id: str
    name: str
    digest: bytes
    hint: str
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who may use the control API."""

    id: str
    name: str
    role: str

"""What identity is: projects own objects, tenants pay for calls, keys speak for a tenant."""

from dataclasses import dataclass
from enum import StrEnum

DEFAULT = "default"  # the project and the tenant that exist from the first start
API_KEY_PREFIX = "plt_live_"
ADMIN_PREFIX = "plt_admin_"
GATEWAY_PREFIX = "plt_gateway_"


class DataClass(StrEnum):
    """How confidential what a tenant sends is, as it says itself."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


DATA_CLASSES = tuple(item.value for item in DataClass)


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
class TenantSettings:
    """What holds for all calls of a tenant.

    ``time_zone`` is where its days and months begin; ``regions`` where its calls may be answered,
    in the words of :mod:`pilotage.core.regions`; ``features`` what it may name as
    ``x-pilotage-feature``; ``shows`` whether replies carry their cost, arm and version;
    ``log_share`` the part of its calls, in basis points, that the request log keeps.
    """

    time_zone: str = "UTC"
    regions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    data_class: DataClass = DataClass.INTERNAL
    shows: bool = True
    log_share: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant(TenantSettings):
    """A payer within a project; deleting leaves a tombstone, because the ledger keeps its id."""

    id: str
    rev: int
    project_id: str
    name: str
    created_at_us: int
    deleted_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key of a tenant, known by its SHA-256; ``hint`` is its last four letters, for people.

    ``may_name_users``: whoever holds it is trusted to say on whose behalf a call is made.
    """

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
    may_name_users: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who may use the control API."""

    id: str
    name: str
    role: str

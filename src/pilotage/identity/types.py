"""What identity is: projects own objects, tenants pay for calls, keys speak for a tenant.

Principals use the control API: people, service accounts and gateways that run apart. What they may
do is said by their roles, each bound to one project or to the whole installation.
"""

from dataclasses import dataclass
from enum import StrEnum

from pilotage.core.key_scopes import UNBOUNDED, KeyScope

DEFAULT = "default"  # the project and the tenant that exist from the first start
API_KEY_PREFIX = "plt_live_"
ADMIN_PREFIX = "plt_admin_"
GATEWAY_PREFIX = "plt_gateway_"
USER_PREFIX = "plt_user_"
SERVICE_PREFIX = "plt_service_"
EVERYWHERE = ""  # the scope of a role that is bound to the whole installation


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
    ``log_share`` the part of its calls, in basis points, that the request log keeps, and
    ``measure_share`` the part whose texts are measured, ``sample_share`` the part that is kept,
    pseudonymised and sealed, to be replayed; ``keeps_comments`` whether what its callers write of
    answers is kept, sealed.
    """

    time_zone: str = "UTC"
    regions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    data_class: DataClass = DataClass.INTERNAL
    shows: bool = True
    log_share: int = 0
    measure_share: int = 0
    sample_share: int = 0
    keeps_comments: bool = False


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

    ``may_name_users``: whoever holds it is trusted to say on whose behalf a call is made. ``scope``
    says what it is for, and ``scope_number`` is what Snapshots call that.
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
    scope: KeyScope = UNBOUNDED
    scope_number: int = 0


class Role(StrEnum):
    """What somebody is trusted with; the permissions of each are in ``matrix``."""

    VIEWER = "viewer"
    ML_ENGINEER = "ml_engineer"
    ML_OPS = "ml_ops"
    PREDICTOR = "predictor"
    APPROVER = "approver"
    AUDITOR = "auditor"
    SECURITY = "security"
    ADMIN = "admin"
    GATEWAY = "gateway"


class PrincipalKind(StrEnum):
    """Who may use the control API."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who may use the control API, until disabled.

    ``name`` is what people call it and is never reused. ``subject`` is who it is for an issuer of
    tokens (``ISSUER|SUBJECT``), None for those made here.
    """

    id: str
    rev: int
    kind: PrincipalKind
    name: str
    created_at_us: int
    disabled_at_us: int | None = None
    subject: str | None = None
    last_seen_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of a person; it may be changed and erased, and no revision repeats it."""

    display_name: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A role of a principal: in one project (``scope`` is its id) or in the whole installation.

    ``source`` is empty for a role that ``granted_by`` gave, else the issuer whose tokens say it.
    """

    id: str
    rev: int
    principal_id: str
    role: Role
    scope: str
    granted_by: str
    granted_at_us: int
    expires_at_us: int | None
    ended_at_us: int | None
    source: str = ""

    def is_live(self, now_us: int) -> bool:
        """Say whether it gives the role now."""
        is_over = self.expires_at_us is not None and self.expires_at_us <= now_us
        return self.ended_at_us is None and not is_over


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A secret by which a principal is known, kept as its SHA-256.

    ``created_by`` is whoever may know the text: who made it, or who had made the one that the
    principal itself made this one with.
    """

    id: str
    rev: int
    principal_id: str
    digest: bytes
    hint: str
    created_at_us: int
    created_by: str
    expires_at_us: int | None
    revoked_at_us: int | None
    last_used_at_us: int | None = None

    def is_live(self, now_us: int) -> bool:
        """Say whether it is accepted now."""
        is_over = self.expires_at_us is not None and self.expires_at_us <= now_us
        return self.revoked_at_us is None and not is_over

    def was_live(self, at_us: int) -> bool:
        """Say whether it was accepted at a moment, which may be over."""
        ends = [end for end in (self.expires_at_us, self.revoked_at_us) if end is not None]
        return self.created_at_us <= at_us and all(at_us < end for end in ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRole:
    """A role that the members of a group of an issuer have; ``scope`` as in a binding."""

    group: str
    role: Role
    scope: str = EVERYWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSpec:
    """What is said of an issuer of OpenID Connect tokens.

    ``url`` is the issuer as its tokens name it, ``audience`` what they must be for, ``parties``
    whom they may have been issued to (``azp``; none given: anybody). ``algorithms`` are asymmetric.
    ``groups_claim`` names the groups that ``roles`` are about. A token is accepted ``skew_us``
    beyond its times, and until ``max_age_us`` after it was issued.
    """

    url: str
    audience: str
    parties: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    subject_claim: str = "sub"
    groups_claim: str = "groups"
    roles: tuple[GroupRole, ...] = ()
    skew_us: int = 60_000_000
    max_age_us: int = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIssuer(IssuerSpec):
    """An issuer whose tokens are accepted at the control API."""

    id: str
    rev: int
    name: str
    created_at_us: int

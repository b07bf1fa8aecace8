"""Kinds of identity: projects, tenants and their keys, principals, roles, issuers of tokens."""

from decimal import Decimal
from typing import Any

import msgspec

from pilotage.cli.objects.kinds.base import Object, Part, check_percent, join, list_given
from pilotage.core.duration import parse_duration_us
from pilotage.core.key_scopes import OPERATIONS
from pilotage.core.names import check_name
from pilotage.core.regions import check_regions
from pilotage.identity.types import DATA_CLASSES, PrincipalKind, Role

PRINCIPAL_KINDS = (PrincipalKind.USER.value, PrincipalKind.SERVICE_ACCOUNT.value)


class ProjectObject(Object, frozen=True):
    """A project."""

    name: str

    def check(self) -> None:
        """Check the name; a project is in no project."""
        check_name(self.name)
        if self.project is not None:
            raise ValueError("project: a project belongs to none")


PERCENTAGES = ("log_percent", "measure_percent", "sample_percent")


class TenantObject(Object, frozen=True):
    """A tenant; what is left out stays as it is."""

    name: str
    time_zone: str | None = None
    regions: list[str] | None = None
    features: list[str] | None = None
    data_class: str | None = None
    shows: bool | None = None
    log_percent: Decimal | None = None
    measure_percent: Decimal | None = None
    sample_percent: Decimal | None = None
    keeps_comments: bool | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, as the API shows it."""
        found = list_given(self, "name", "project")
        for name in PERCENTAGES:
            if name in found:
                found[name] = float(found[name])
        return found

    def check(self) -> None:
        """Check what can be checked without the API."""
        check_name(self.name)
        check_regions(self.regions or [])
        if self.data_class is not None and self.data_class not in DATA_CLASSES:
            raise ValueError(f"data_class: {self.data_class!r} is none of {join(DATA_CLASSES)}")
        for name in PERCENTAGES:
            if (percent := getattr(self, name)) is not None:
                check_percent(percent, name)


class KeyObject(Object, frozen=True):
    """A key of a tenant; its text is shown when it is made."""

    name: str
    tenant: str = "default"
    expires: str | None = None
    may_name_users: bool = False
    aliases: list[str] = msgspec.field(default_factory=list)
    operations: list[str] = msgspec.field(default_factory=list)

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it."""
        return {
            "tenant": self.tenant,
            "name": self.name,
            "expires_in": self.expires,
            "may_name_users": self.may_name_users,
            "aliases": sorted(set(self.aliases)),
            "operations": sorted(set(self.operations)),
        }

    @property
    def title(self) -> str:
        """Whose key, and which."""
        return f"{self.tenant}/{self.name}"

    def check(self) -> None:
        """Check the names and how long it lives."""
        check_name(self.name)
        check_name(self.tenant, "tenant")
        for operation in self.operations:
            if operation not in OPERATIONS:
                raise ValueError(f"operations: {operation!r} is none of {join(OPERATIONS)}")
        if self.expires is not None:
            parse_duration_us(self.expires)


class PrincipalObject(Object, frozen=True, rename={"principal_kind": "type"}):
    """A user or a service account, without its credentials; what is left out stays as it is."""

    name: str
    principal_kind: str = "user"
    display_name: str | None = None
    email: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, as the API shows it."""
        return list_given(self, "name", "project", "principal_kind")

    def check(self) -> None:
        """Check the name and the type; a principal is in no project."""
        check_name(self.name)
        if self.principal_kind not in PRINCIPAL_KINDS:
            kinds = join(PRINCIPAL_KINDS)
            raise ValueError(f"type: {self.principal_kind!r} is none of {kinds}")
        if self.project is not None:
            raise ValueError("project: a principal belongs to none; its roles may")


class RoleBindingObject(Object, frozen=True):
    """A role of a principal, in a project or in all (``everywhere: true``)."""

    principal: str
    role: str
    everywhere: bool = False
    expires: str | None = None

    @property
    def title(self) -> str:
        """Who is what."""
        return f"{self.principal}: {self.role}{' everywhere' if self.everywhere else ''}"

    def check(self) -> None:
        """Check the names and how long it holds."""
        check_name(self.principal, "principal")
        if self.role not in list(Role):
            raise ValueError(f"role: {self.role!r} is none of {join(list(Role))}")
        if self.everywhere and self.project is not None:
            raise ValueError("project: a role is everywhere or in one project")
        if self.expires is not None:
            parse_duration_us(self.expires)


class GroupRolePart(Part, frozen=True):
    """A role that an issuer's group gives its members, in a project or (absent) in all."""

    group: str
    role: str
    project: str | None = None


class IssuerObject(Object, frozen=True):
    """An issuer of tokens; what is left out is the default, also where it was something else."""

    name: str
    url: str
    audience: str
    parties: list[str] = msgspec.field(default_factory=list)
    algorithms: list[str] = msgspec.field(default_factory=lambda: ["RS256", "ES256"])
    subject_claim: str = "sub"
    groups_claim: str = "groups"
    roles: list[GroupRolePart] = msgspec.field(default_factory=list)
    skew: str = "60s"
    max_age: str = "24h"

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it, without the name."""
        return list_given(self, "name", "project", "roles") | {
            "roles": [msgspec.structs.asdict(item) for item in self.roles]
        }

    def check(self) -> None:
        """Check the name, the roles and the times; an issuer is in no project."""
        check_name(self.name)
        for item in self.roles:
            if item.role not in list(Role):
                raise ValueError(f"roles: {item.role!r} is none of {join(list(Role))}")
        parse_duration_us(self.skew)
        parse_duration_us(self.max_age)
        if self.project is not None:
            raise ValueError("project: an issuer belongs to none; its roles may")

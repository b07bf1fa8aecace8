"""Kinds of identity: projects, tenants, keys."""

from decimal import Decimal
from typing import Any

from pilotage.cli.objects.kinds.base import Object, check_percent, join, list_given
from pilotage.core.duration import parse_duration_us
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


class TenantObject(Object, frozen=True):
    """A tenant; what is left out stays as it is."""

    name: str
    time_zone: str | None = None
    regions: list[str] | None = None
    features: list[str] | None = None
    data_class: str | None = None
    shows: bool | None = None
    log_percent: Decimal | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, as the API shows it."""
        found = list_given(self, "name", "project")
        if self.log_percent is not None:
            found["log_percent"] = float(self.log_percent)
        return found

    def check(self) -> None:
        """Check what can be checked without the API."""
        check_name(self.name)
        check_regions(self.regions or [])
        if self.data_class is not None and self.data_class not in DATA_CLASSES:
            raise ValueError(f"data_class: {self.data_class!r} is none of {join(DATA_CLASSES)}")
        if self.log_percent is not None:
            check_percent(self.log_percent, "log_percent")


class KeyObject(Object, frozen=True):
    """A key of a tenant; its text is shown when it is made."""

    name: str
    tenant: str = "default"
    expires: str | None = None
    may_name_users: bool = False

    @property
    def title(self) -> str:
        """Whose key, and which."""
        return f"{self.tenant}/{self.name}"

    def check(self) -> None:
        """Check the names and how long it lives."""
        check_name(self.name)
        check_name(self.tenant, "tenant")
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

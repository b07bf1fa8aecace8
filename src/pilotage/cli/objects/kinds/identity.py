"""Kinds of identity: projects, tenants, keys."""

from decimal import Decimal
from typing import Any

from pilotage.cli.objects.kinds.base import Object, check_percent, join, list_given
from pilotage.core.duration import parse_duration_us
from pilotage.core.names import check_name
from pilotage.core.regions import check_regions
from pilotage.identity.types import DATA_CLASSES


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

"""Kinds of the release path: what stages ask, what may serve, when nothing may change."""

from decimal import Decimal
from typing import Any

import msgspec

from pilotage.cli.objects.kinds.base import Object, Part, join, list_given
from pilotage.core.names import check_name
from pilotage.governance.types import Repeat
from pilotage.identity.types import Role
from pilotage.kit.clock import parse_time
from pilotage.registry.types import Stage

STAGES = tuple(stage.value for stage in Stage if stage is not Stage.ARCHIVED)


class CheckPart(Part, frozen=True):
    """A check of a stage, with its thresholds."""

    name: str
    subject: str = ""
    min: Decimal | None = None
    max: Decimal | None = None
    allowed: list[str] = msgspec.field(default_factory=list)
    tolerance_percent: Decimal = Decimal(0)
    by_interval: bool = False
    min_n: int | None = None
    max_age_days: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All of it, numbers as decimal text."""
        return {
            name: str(value) if isinstance(value, Decimal) else value
            for name, value in msgspec.structs.asdict(self).items()
        }


class GatePolicyObject(Object, frozen=True):
    """What a stage asks; all of it is replaced."""

    stage: str
    checks: list[CheckPart]
    approvals: int = 0

    @property
    def title(self) -> str:
        """The stage."""
        return self.stage

    def check(self) -> None:
        """Check the stage and that no check is there twice."""
        if self.stage not in STAGES[1:]:
            raise ValueError(f"stage: {self.stage!r} is none of {join(STAGES[1:])}")
        named = [(item.name, item.subject) for item in self.checks]
        if len(set(named)) < len(named):
            raise ValueError("checks: something is named twice")


class ReleasePolicyObject(Object, frozen=True):
    """What may serve traffic, and how many must agree to a change of it."""

    serve_from_stage: str = "development"
    approvals: int = 0

    @property
    def title(self) -> str:
        """A project has one."""
        return "of the project"

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, as the API shows it."""
        return list_given(self, "project")

    def check(self) -> None:
        """Check the stage."""
        if self.serve_from_stage not in STAGES:
            raise ValueError(
                f"serve_from_stage: {self.serve_from_stage!r} is none of {join(STAGES)}"
            )


class FreezeObject(Object, frozen=True, rename={"starts": "from", "ends": "to"}):
    """A time in which nothing may change; it is set or lifted, never changed."""

    name: str
    reason: str
    starts: str
    ends: str
    names: list[str] = msgspec.field(default_factory=list)
    repeat: str = "never"
    until: str | None = None
    time_zone: str = "UTC"
    override_role: str = ""

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it."""
        said = list_given(self, "project", "starts", "ends")
        return said | {"starts_at": self.starts, "ends_at": self.ends}

    def check(self) -> None:
        """Check names, times and words."""
        check_name(self.name)
        if parse_time(self.starts) >= parse_time(self.ends):
            raise ValueError("to: it ends before it begins")
        if self.until is not None:
            parse_time(self.until)
        if self.repeat not in list(Repeat):
            raise ValueError(f"repeat: {self.repeat!r} is none of {join(list(Repeat))}")
        if self.override_role and self.override_role not in list(Role):
            raise ValueError(f"override_role: {self.override_role!r} is none of {join(list(Role))}")

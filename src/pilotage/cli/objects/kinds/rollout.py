"""The kind of rollouts: a change of what serves an endpoint, as a plan."""

from typing import Any

import msgspec

from pilotage.cli.objects.kinds.base import Object, Part, list_given
from pilotage.core.duration import parse_duration_us
from pilotage.core.money import parse_usd
from pilotage.core.names import check_alias

LONGEST_REASON = 2000


class StepPart(Part, frozen=True):
    """A step of a rollout; what is left out is as usual."""

    weight: str = ""
    at_least: str = ""
    at_most: str = ""
    approval: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it."""
        return msgspec.structs.asdict(self)

    def check(self, place: str) -> None:
        """Check the durations and the weight."""
        if self.weight:
            _check_share(self.weight, f"{place}.weight")
        for name in ("at_least", "at_most"):
            _check_duration(getattr(self, name), f"{place}.{name}")


class GatePart(Part, frozen=True):
    """A gate; what is left out is as usual for gates of its name."""

    margin: str = ""
    limit: str = ""
    over: str = ""
    cap: str = ""

    @property
    def given(self) -> dict[str, str]:
        """What is said of it."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value}

    def check(self, place: str) -> None:
        """Check parts, durations and amounts."""
        for name in ("margin", "limit"):
            if getattr(self, name):
                _check_share(getattr(self, name), f"{place}.{name}")
        _check_duration(self.over, f"{place}.over")
        if self.cap:
            try:
                parse_usd(self.cap)
            except ValueError as wrong:
                raise ValueError(f"{place}.cap: {wrong}") from None


class RolloutObject(Object, frozen=True):
    """A rollout; what is left out is as usual. The same content twice is one rollout."""

    endpoint: str
    candidate: str
    reason: str
    strategy: str = "canary"
    steps: list[StepPart] = msgspec.field(default_factory=list)
    gates: dict[str, GatePart | None] | None = None
    unit: str = "session"
    ready_within: str = ""
    keep_warm: str = ""
    goal: str = ""
    daily: str = ""

    @property
    def title(self) -> str:
        """Whose traffic it moves."""
        return self.endpoint

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it."""
        gates = {name: gate and msgspec.structs.asdict(gate) for name, gate in self.stated.items()}
        return list_given(self, "project", "steps", "gates") | {
            "steps": [step.body for step in self.steps],
            "gates": gates or None,
        }

    @property
    def stated(self) -> dict[str, GatePart | None]:
        """The gates that are set, or left out (None)."""
        return self.gates or {}

    def check(self) -> None:
        """Check everything that can be checked without the API."""
        check_alias(self.endpoint, "endpoint")
        if not self.candidate:
            raise ValueError("candidate: write MODEL@VERSION or UPSTREAM/MODEL")
        if not 0 < len(self.reason.strip()) <= LONGEST_REASON:
            raise ValueError(f"reason: say why, in {LONGEST_REASON} letters at most")
        for number, step in enumerate(self.steps):
            step.check(f"steps[{number}]")
        for name, gate in self.stated.items():
            if gate is not None:
                gate.check(f"gates.{name}")
        for name in ("ready_within", "keep_warm"):
            _check_duration(getattr(self, name), name)
        if self.daily:
            try:
                parse_usd(self.daily)
            except ValueError as wrong:
                raise ValueError(f"daily: {wrong}") from None


def _check_duration(text: str, place: str) -> None:
    if text:
        try:
            parse_duration_us(text)
        except ValueError as wrong:
            raise ValueError(f"{place}: {wrong}") from None


def _check_share(text: str, place: str) -> None:
    try:
        float(text.strip().removesuffix("%"))
    except ValueError:
        raise ValueError(f"{place}: {text!r} is no share, write 5%") from None

"""What the API says of endpoints' traits: labels, where they are, machines and scaling."""

from dataclasses import dataclass

import msgspec
from pydantic import Field

from pilotage.endpoints.types import PLAIN_TRAITS, Machine, Scaling, Traits
from pilotage.kit.api import Body, View

_MOST = 2**31 - 1


class MachineBody(Body):
    """The machine of a replica, by the backend's names; what is left out is the backend's choice.

    Where a backend has one machine, as the one that runs replicas here, it is kept and nothing
    else.
    """

    type: str = ""
    accelerator: str = ""
    accelerators: int = Field(0, ge=0, le=64)
    spot: bool = False

    def to_machine(self) -> Machine:
        """Return the machine."""
        return Machine(
            type=self.type,
            accelerator=self.accelerator,
            accelerators=self.accelerators,
            is_spot=self.spot,
        )


class ScalingBody(Body):
    """How many replicas a deployment has, and how much of the machine each of them gets.

    ``min_replicas`` 0 lets it fall asleep after ``idle_after_s`` without a call. 0 of any other is
    what the installation gives.
    """

    min_replicas: int = Field(1, ge=0, le=_MOST)
    max_replicas: int = Field(1, ge=1, le=_MOST)
    target_in_flight: int = Field(0, ge=0, le=_MOST)
    max_wait_ms: int = Field(0, ge=0, le=_MOST)
    target_duty_percent: int = Field(0, ge=0, le=100)
    scale_down_delay_s: int = Field(60, ge=0, le=_MOST)
    idle_after_s: int = Field(300, ge=0, le=_MOST)
    memory_bytes: int = Field(0, ge=0)
    cpu_cores: int = Field(0, ge=0, le=_MOST)
    threads: int = Field(0, ge=0, le=_MOST)
    slots: int = Field(0, ge=0, le=_MOST)
    context_tokens: int = Field(0, ge=0, le=_MOST)

    def to_scaling(self) -> Scaling:
        """Return the settings."""
        return Scaling(**self.model_dump())


class MachineView(View):
    """The machine that replicas shall have."""

    type: str
    accelerator: str
    accelerators: int
    spot: bool

    @classmethod
    def show(cls, machine: Machine) -> "MachineView":
        """Return the view of a machine."""
        return cls.of(machine, spot=machine.is_spot)


class ScalingView(View):
    """The scaling that an endpoint's deployments begin with."""

    min_replicas: int
    max_replicas: int
    target_in_flight: int
    max_wait_ms: int
    target_duty_percent: int
    scale_down_delay_s: int
    idle_after_s: int
    memory_bytes: int
    cpu_cores: int
    threads: int
    slots: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitsChange:
    """What a body says of traits; None leaves one as it is."""

    display_name: str | None
    labels: dict[str, str] | None
    machine: MachineBody | None
    scaling: ScalingBody | None

    def apply(self, traits: Traits = PLAIN_TRAITS) -> Traits:
        """Return traits as they are then."""
        said: dict[str, object] = {
            "display_name": self.display_name,
            "labels": self.labels,
            "machine": self.machine and self.machine.to_machine(),
            "scaling": self.scaling and self.scaling.to_scaling(),
        }
        given = {name: value for name, value in said.items() if value is not None}
        return msgspec.structs.replace(traits, **given)

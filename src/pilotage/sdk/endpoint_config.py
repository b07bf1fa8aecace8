"""What the Python API says of endpoints: the names of ``infrastructure.vertex_ai``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

ALL = 100.0
TOLERANCE = 1e-9


class TrafficSplitStrategy(Enum):
    """How traffic gets to where a split says.

    ``SINGLE`` and ``AB_TEST`` move it at once, and it stays. ``CANARY`` begins a rollout that stays
    at the new one's share until a person promotes it, ``GRADUAL`` one that goes on by itself in
    steps: both compare the two, and go back where the new one is shown to be worse. ``BLUE_GREEN``
    begins one that moves everything at once, compares nothing, and goes back at once when a person
    says so or the new one's last ten calls have failed.
    """

    SINGLE = "single"
    CANARY = "canary"
    AB_TEST = "ab_test"
    GRADUAL = "gradual"
    BLUE_GREEN = "blue_green"


@dataclass(kw_only=True)
class AutoScalingConfig:
    """How many replicas a model has: between two numbers, by load.

    ``target_accelerator_duty_cycle`` is in percent and counts where there is a GPU. With
    ``enable_scale_to_zero`` a model without calls has none after the delay, and the next call waits
    until one has woken up.
    """

    min_replica_count: int = 1
    max_replica_count: int = 10
    target_accelerator_duty_cycle: int = 60
    scale_down_delay_minutes: float = 5
    enable_scale_to_zero: bool = False

    def validate(self) -> bool:
        """Return True; raise ValueError for what cannot be."""
        least = 0 if self.enable_scale_to_zero else 1
        if not least <= self.min_replica_count <= self.max_replica_count:
            raise ValueError(
                f"min_replica_count has to be from {least} to max_replica_count, "
                f"not {self.min_replica_count} of {self.max_replica_count}"
            )
        if self.max_replica_count < 1:
            raise ValueError("max_replica_count has to be 1 at least")
        if not 1 <= self.target_accelerator_duty_cycle <= 100:
            raise ValueError("target_accelerator_duty_cycle has to be from 1 to 100")
        if self.scale_down_delay_minutes < 0:
            raise ValueError("scale_down_delay_minutes cannot be negative")
        return True


@dataclass(kw_only=True)
class TrafficSplit:
    """Percentages of an endpoint's traffic, which sum to 100.

    They are by the id of a deployed model, its ``NAME@VERSION``, or its name where one version of
    it is deployed. ``deployed_model_ids`` is another name of ``splits``.
    """

    splits: dict[str, float] = field(default_factory=dict)
    strategy: TrafficSplitStrategy = TrafficSplitStrategy.SINGLE
    deployed_model_ids: dict[str, float] | None = None

    def __post_init__(self) -> None:
        self.strategy = TrafficSplitStrategy(self.strategy)
        if self.deployed_model_ids and self.splits not in ({}, self.deployed_model_ids):
            raise ValueError("splits and deployed_model_ids are one thing: give one of them")
        self.splits = self.deployed_model_ids = self.splits or self.deployed_model_ids or {}

    def validate(self) -> bool:
        """Return True; raise ValueError for what is no split."""
        if not self.splits:
            raise ValueError("a split has to name who gets the traffic")
        if any(not 0 <= percent <= ALL for percent in self.splits.values()):
            raise ValueError("a share of traffic is from 0 to 100")
        total = sum(self.splits.values())
        if abs(total - ALL) > TOLERANCE:
            raise ValueError(f"the shares of a split sum to 100, not {total:g}")
        return True


@dataclass(kw_only=True)
class EndpointConfig:
    """An endpoint to create; ``endpoint_name`` is another name of ``name``, and one is needed.

    Machine and accelerator are kept for backends that have machines to choose from; replicas here
    run on this machine. ``network`` and logs that are switched off are refused: gateways are
    reached where they listen, and calls are always on record (without their texts).
    """

    name: str = ""
    display_name: str = ""
    description: str = ""
    machine_type: str = "n1-standard-4"
    accelerator_type: str | None = None
    accelerator_count: int = 0
    network: str = ""
    auto_scaling: AutoScalingConfig = field(default_factory=AutoScalingConfig)
    traffic_split: TrafficSplit | None = None
    enable_request_logging: bool = True
    enable_access_logging: bool = True
    enable_container_logging: bool = True
    dedicated_endpoint: bool = False
    spot_instance: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    endpoint_name: str = ""

    def __post_init__(self) -> None:
        if self.name and self.endpoint_name and self.name != self.endpoint_name:
            raise ValueError("name and endpoint_name are one thing: give one of them")
        self.name = self.endpoint_name = self.name or self.endpoint_name
        if not self.name:
            raise ValueError("an endpoint needs a name")

    def validate(self) -> bool:
        """Return True; raise ValueError for what cannot be."""
        if self.accelerator_count < 0 or (self.accelerator_count and not self.accelerator_type):
            raise ValueError("accelerator_count needs an accelerator_type, and is not negative")
        self.auto_scaling.validate()
        if self.traffic_split is not None:
            self.traffic_split.validate()
        return True


@dataclass(frozen=True, kw_only=True)
class ModelEndpoint:
    """An endpoint that is there. ``name`` is what clients send as their model."""

    name: str
    resource_name: str
    display_name: str
    description: str
    labels: dict[str, str]
    dedicated_endpoint: bool
    traffic_split: dict[str, float]
    create_time: datetime

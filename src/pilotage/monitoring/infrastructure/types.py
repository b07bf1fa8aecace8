"""What is measured of replicas and of the machine they run on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Gauge(StrEnum):
    """What is measured; shares are from 0 to 1."""

    REPLICAS = "replica_count"
    READY = "ready_replicas"
    CPU = "cpu_usage"
    MEMORY = "memory_usage"
    GPU = "gpu_usage"
    GPU_MEMORY = "gpu_memory_usage"


class GaugeKey(NamedTuple):
    """Whose replicas are measured; of the whole machine only the gauge is not empty."""

    project_id: str
    alias: str
    version_id: str
    gauge: Gauge


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica as it was last seen; ``pid`` is 0 where it is not known."""

    project_id: str
    alias: str
    version_id: str
    is_ready: bool
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """What a process has used until now (processor seconds) and holds now (bytes)."""

    cpu_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """What a GPU is used to: the share of time that it worked lately, its memory, and who runs."""

    busy: float
    used_bytes: int
    total_bytes: int
    pids: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUse:
    """A look at the machine at a moment of a monotonic clock.

    ``cpu_s`` are processor seconds of all its cores together since it started, ``None`` where the
    machine does not say; ``processes`` are those asked for that were found.
    """

    at_s: float
    cores: int
    cpu_s: float | None
    memory_total_bytes: int
    memory_used_bytes: int
    processes: Mapping[int, ProcessUse] = field(default_factory=dict)
    gpus: tuple[GpuUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What a gauge was over a span: how often it was read, the sum, the lowest and highest."""

    readings: int
    total: float
    lowest: float
    highest: float

    @property
    def mean(self) -> float:
        """The mean of what was read."""
        return self.total / self.readings

    def plus(self, other: "Spread") -> "Spread":
        """Add what was read elsewhere."""
        return Spread(
            readings=self.readings + other.readings,
            total=self.total + other.total,
            lowest=min(self.lowest, other.lowest),
            highest=max(self.highest, other.highest),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeSeries:
    """A gauge over time: spans by when they begin, in order."""

    key: GaugeKey
    points: list[tuple[int, Spread]]

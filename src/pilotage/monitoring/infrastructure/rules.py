"""What a look at the machine says of the replicas that run on it."""

import math
from collections.abc import Iterable, Mapping, Sequence

from pilotage.monitoring.infrastructure.types import (
    Gauge,
    GaugeKey,
    GpuUse,
    MachineUse,
    Replica,
    Spread,
)

Readings = dict[GaugeKey, float]
_Whose = tuple[str, str, str]


def measure(replicas: Iterable[Replica], before: MachineUse | None, now: MachineUse) -> Readings:
    """Return what can be said now; what is not known is absent.

    Processor time is the share of all cores since the look ``before``; processes that were not
    there then, and GPUs that a replica has no process on, say nothing.
    """
    readings = _measure_machine(before, now)
    groups: dict[_Whose, list[Replica]] = {}
    for replica in replicas:
        whose = (replica.project_id, replica.alias, replica.version_id)
        groups.setdefault(whose, []).append(replica)
    for whose, mine in groups.items():
        readings[GaugeKey(*whose, Gauge.REPLICAS)] = float(len(mine))
        readings[GaugeKey(*whose, Gauge.READY)] = float(sum(one.is_ready for one in mine))
        pids = {one.pid for one in mine if one.pid}
        for gauge, value in (
            (Gauge.CPU, _share_cpu(pids, before, now)),
            (Gauge.MEMORY, _share_memory(pids, now)),
            *_share_gpus([gpu for gpu in now.gpus if gpu.pids & pids]),
        ):
            if value is not None:
                readings[GaugeKey(*whose, gauge)] = value
    return readings


def add_readings(spreads: dict[GaugeKey, Spread], readings: Mapping[GaugeKey, float]) -> None:
    """Add readings to what gauges were so far."""
    for key, value in readings.items():
        one = Spread(readings=1, total=value, lowest=value, highest=value)
        spreads[key] = spreads[key].plus(one) if key in spreads else one


def put_together(
    readings: Mapping[GaugeKey, float], gauge: Gauge, by: Sequence[str]
) -> dict[tuple[str, ...], float]:
    """Return a gauge of replicas by project and some of ``alias`` and ``version``.

    Replicas are added up, and so are the parts of a machine that they take; of GPUs, which may be
    the same ones, the highest counts.
    """
    groups: dict[tuple[str, ...], list[float]] = {}
    for key, value in readings.items():
        if key.gauge is gauge and key.project_id:
            parts = {"alias": key.alias, "version": key.version_id}
            groups.setdefault((key.project_id, *(parts[name] for name in by)), []).append(value)
    if gauge in {Gauge.GPU, Gauge.GPU_MEMORY}:
        return {group: max(values) for group, values in groups.items()}
    most = 1.0 if gauge in {Gauge.CPU, Gauge.MEMORY} else math.inf
    return {group: min(sum(values), most) for group, values in groups.items()}


def _measure_machine(before: MachineUse | None, now: MachineUse) -> Readings:
    found = dict(_share_gpus(now.gpus))
    if before is not None and before.cpu_s is not None and now.cpu_s is not None:
        found[Gauge.CPU] = _share_time(now.cpu_s - before.cpu_s, before, now)
    if now.memory_total_bytes:
        found[Gauge.MEMORY] = now.memory_used_bytes / now.memory_total_bytes
    return {
        GaugeKey("", "", "", gauge): value for gauge, value in found.items() if value is not None
    }


def _share_cpu(pids: Iterable[int], before: MachineUse | None, now: MachineUse) -> float | None:
    if before is None:
        return None
    seen = [pid for pid in pids if pid in before.processes and pid in now.processes]
    used_s = sum(now.processes[pid].cpu_s - before.processes[pid].cpu_s for pid in seen)
    return _share_time(used_s, before, now) if seen else None


def _share_time(used_s: float, before: MachineUse, now: MachineUse) -> float | None:
    could_s = (now.at_s - before.at_s) * now.cores
    return min(max(used_s / could_s, 0.0), 1.0) if could_s > 0 else None


def _share_memory(pids: Iterable[int], now: MachineUse) -> float | None:
    held = [now.processes[pid].memory_bytes for pid in pids if pid in now.processes]
    if not held or not now.memory_total_bytes:
        return None
    return min(sum(held) / now.memory_total_bytes, 1.0)


def _share_gpus(gpus: Sequence[GpuUse]) -> list[tuple[Gauge, float | None]]:
    """Return how busy GPUs are on the mean, and how full together."""
    total_bytes = sum(gpu.total_bytes for gpu in gpus)
    busy = sum(gpu.busy for gpu in gpus) / len(gpus) if gpus else None
    full = sum(gpu.used_bytes for gpu in gpus) / total_bytes if total_bytes else None
    return [(Gauge.GPU, busy), (Gauge.GPU_MEMORY, full)]

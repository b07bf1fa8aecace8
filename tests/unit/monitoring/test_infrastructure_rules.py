"""What looks at a machine say of its replicas: what is not known is absent."""

import pytest

from pilotage.monitoring.infrastructure.rules import add_readings, measure, put_together
from pilotage.monitoring.infrastructure.types import (
    Gauge,
    GaugeKey,
    GpuUse,
    MachineUse,
    ProcessUse,
    Replica,
    Spread,
)

GIB = 1 << 30
MACHINE = ("", "", "")
CHAT = ("prj", "chat", "ver_1")


def look(
    at_s: float, cpu_s: float | None = 0.0, *, gpus: tuple[GpuUse, ...] = (), **pids: ProcessUse
) -> MachineUse:
    return MachineUse(
        at_s=at_s,
        cores=4,
        cpu_s=cpu_s,
        memory_total_bytes=16 * GIB,
        memory_used_bytes=4 * GIB,
        processes={int(name.removeprefix("p")): use for name, use in pids.items()},
        gpus=gpus,
    )


def use(cpu_s: float, gib: int = 2) -> ProcessUse:
    return ProcessUse(cpu_s=cpu_s, memory_bytes=gib * GIB)


def replica(pid: int = 7, *, is_ready: bool = True) -> Replica:
    return Replica(project_id="prj", alias="chat", version_id="ver_1", is_ready=is_ready, pid=pid)


def test_processor_time_is_a_share_of_all_cores_since_the_look_before() -> None:
    before = look(100.0, 50.0, p7=use(10.0), p8=use(0.0))
    now = look(110.0, 70.0, p7=use(14.0), p8=use(6.0), p9=use(500.0))
    found = measure([replica(7), replica(8), replica(9)], before, now)
    assert found[GaugeKey(*CHAT, Gauge.CPU)] == pytest.approx((4 + 6) / (10 * 4))
    assert found[GaugeKey(*CHAT, Gauge.MEMORY)] == pytest.approx(6 / 16)
    assert found[GaugeKey(*MACHINE, Gauge.CPU)] == pytest.approx(20 / 40)
    assert found[GaugeKey(*MACHINE, Gauge.MEMORY)] == pytest.approx(0.25)


def test_replicas_are_counted_whether_or_not_they_are_ready() -> None:
    found = measure([replica(), replica(0, is_ready=False)], None, look(1.0))
    assert found[GaugeKey(*CHAT, Gauge.REPLICAS)] == 2
    assert found[GaugeKey(*CHAT, Gauge.READY)] == 1


def test_what_is_not_known_is_absent() -> None:
    first = measure([replica()], None, look(1.0, p7=use(1.0)))
    assert GaugeKey(*CHAT, Gauge.CPU) not in first
    assert GaugeKey(*MACHINE, Gauge.CPU) not in first
    gone = measure([replica()], look(1.0), look(2.0))
    assert {key.gauge for key in gone if key.alias} == {Gauge.REPLICAS, Gauge.READY}
    unknown = MachineUse(
        at_s=2.0,
        cores=4,
        cpu_s=None,
        memory_total_bytes=0,
        memory_used_bytes=0,
        processes={7: use(1.0)},
    )
    assert {key.gauge for key in measure([replica()], unknown, unknown)} == {
        Gauge.REPLICAS,
        Gauge.READY,
    }
    assert not measure([], look(1.0, None), look(2.0, None)).keys() & {
        GaugeKey(*MACHINE, Gauge.CPU)
    }


def test_a_gpu_is_told_of_whoever_has_a_process_on_it() -> None:
    gpus = (
        GpuUse(busy=0.9, used_bytes=60 * GIB, total_bytes=80 * GIB, pids=frozenset({7})),
        GpuUse(busy=0.1, used_bytes=0, total_bytes=80 * GIB, pids=frozenset({99})),
    )
    found = measure([replica()], None, look(1.0, gpus=gpus))
    assert found[GaugeKey(*CHAT, Gauge.GPU)] == pytest.approx(0.9)
    assert found[GaugeKey(*CHAT, Gauge.GPU_MEMORY)] == pytest.approx(0.75)
    assert found[GaugeKey(*MACHINE, Gauge.GPU)] == pytest.approx(0.5)
    assert found[GaugeKey(*MACHINE, Gauge.GPU_MEMORY)] == pytest.approx(60 / 160)
    nobody = measure([replica(8)], None, look(1.0, gpus=gpus))
    assert GaugeKey(*CHAT, Gauge.GPU) not in nobody


def test_a_share_is_never_above_the_whole() -> None:
    before, now = look(1.0, 0.0, p7=use(0.0, 20)), look(2.0, 9.0, p7=use(9.0, 20))
    found = measure([replica()], before, now)
    assert found[GaugeKey(*CHAT, Gauge.CPU)] == found[GaugeKey(*CHAT, Gauge.MEMORY)] == 1


def test_readings_spread() -> None:
    key = GaugeKey(*CHAT, Gauge.CPU)
    spreads: dict[GaugeKey, Spread] = {}
    for value in (0.5, 0.1, 0.9):
        add_readings(spreads, {key: value})
    assert spreads[key] == Spread(readings=3, total=1.5, lowest=0.1, highest=0.9)
    assert spreads[key].mean == pytest.approx(0.5)


def test_replicas_of_several_versions_are_put_together() -> None:
    readings = {
        GaugeKey("prj", "chat", "ver_1", Gauge.CPU): 0.7,
        GaugeKey("prj", "chat", "ver_2", Gauge.CPU): 0.6,
        GaugeKey("prj", "chat", "ver_1", Gauge.READY): 2.0,
        GaugeKey("prj", "chat", "ver_2", Gauge.READY): 1.0,
        GaugeKey("prj", "chat", "ver_1", Gauge.GPU): 0.3,
        GaugeKey("prj", "chat", "ver_2", Gauge.GPU): 0.4,
        GaugeKey(*MACHINE, Gauge.CPU): 0.9,
    }
    assert put_together(readings, Gauge.CPU, ["alias"]) == {("prj", "chat"): 1.0}
    assert put_together(readings, Gauge.READY, []) == {("prj",): 3.0}
    assert put_together(readings, Gauge.GPU, ["alias"]) == {("prj", "chat"): 0.4}
    assert put_together(readings, Gauge.CPU, ["alias", "version"]) == {
        ("prj", "chat", "ver_1"): 0.7,
        ("prj", "chat", "ver_2"): 0.6,
    }

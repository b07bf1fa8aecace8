"""What rules are told of replicas: by the labels that they ask for, and only while it is fresh."""

from pilotage.core.condition.evaluator import evaluate
from pilotage.core.condition.parser import parse
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.values import ValueSource, Wanted
from pilotage.monitoring.infrastructure.service import InfrastructureService
from pilotage.monitoring.infrastructure.source import InfrastructureSource
from pilotage.monitoring.infrastructure.types import Gauge, GaugeKey
from pilotage.registry.service import RegistryService

READINGS = {
    GaugeKey("prj_1", "chat", "ver_1", Gauge.READY): 1.0,
    GaugeKey("prj_1", "chat", "ver_2", Gauge.READY): 2.0,
    GaugeKey("prj_1", "chat", "ver_1", Gauge.CPU): 0.6,
    GaugeKey("prj_1", "chat", "ver_2", Gauge.CPU): 0.6,
    GaugeKey("prj_2", "chat", "ver_3", Gauge.READY): 5.0,
    GaugeKey("", "", "", Gauge.CPU): 1.0,
}


async def test_rules_see_replicas_by_alias_and_by_what_they_filter(
    database: Database, clock: ManualClock
) -> None:
    service = InfrastructureService()
    names = Names(IdentityService(clock), RegistryService(clock), clock)
    values = ValueSource([InfrastructureSource(service, names)])
    service.note(clock.now_us(), READINGS)
    few = parse("ready_replicas < 4")
    busy = parse("cpu_usage > 90%")
    second = parse('ready_replicas{version="ver_2"} == 2')
    wanted = [Wanted.of(ref) for condition in (few, busy, second) for ref in condition.metrics]

    async with database.read(SYSTEM) as tx:
        picture = await values.read(tx, wanted, clock.now_us())
        clock.advance(60)
        later = await values.read(tx, wanted, clock.now_us())

    chat = (("alias", "chat"),)
    assert evaluate(few, picture.of("prj_1")) == {chat: 3.0}
    assert evaluate(few, picture.of("prj_2")) == {}
    assert evaluate(busy, picture.of("prj_1")) == {chat: 1.0}
    assert list(evaluate(second, picture.of("prj_1")).values()) == [2.0]
    assert evaluate(few, later.of("prj_1")) == {}
    assert not picture.unread

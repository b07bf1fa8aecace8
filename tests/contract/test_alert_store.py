"""Alert rules, objectives and alerts on both databases."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

import stores
from alert_lab import AlertLab, open_lab
from pilotage.core.condition.types import Labels
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import read_revisions
from pilotage.monitoring.alerts import service as service_module
from pilotage.monitoring.alerts.rules import Move
from pilotage.monitoring.alerts.types import (
    AlertRule,
    AlertState,
    Indicator,
    MetricType,
    RuleSpec,
    Severity,
    SloSpec,
)
from pilotage.monitoring.alerts.values import Wanted

SLOW = RuleSpec(condition="p95_latency > 2s for 5m", labels={"service": "chat"}, team="ops")
SLO = SloSpec(objective="99.9", alias="chat")


@pytest.fixture
async def lab(database: Database, clock: ManualClock) -> AlertLab:
    return await open_lab(database, clock)


async def test_a_rule_is_changed_and_deleted_and_its_name_is_free_again(lab: AlertLab) -> None:
    changed_spec = replace(
        SLOW, severity=Severity.CRITICAL, metric_type=MetricType.COST, is_enabled=False
    )
    async with lab.db.write(lab.mine) as tx:
        made = await lab.service.create_rule(tx, "slow", SLOW)
        changed = await lab.service.change_rule(tx, "slow", changed_spec, 1)
        same = await lab.service.change_rule(tx, made.id, changed_spec, 2)
        with pytest.raises(PilotageError, match="changed meanwhile"):
            await lab.service.change_rule(tx, "slow", SLOW, 1)
        assert await lab.service.get_rule(tx, "slow") == changed == same
        await lab.service.delete_rule(tx, "slow")
        with pytest.raises(PilotageError, match="There is no alert rule"):
            await lab.service.get_rule(tx, made.id)
        again = await lab.service.create_rule(tx, "slow", SLOW)

    assert (made.rev, changed.rev, again.id != made.id) == (1, 2, True)
    async with lab.db.read(lab.mine) as tx:
        events = [found.event for found in await read_revisions(tx, 0, 50)]
        listed = await lab.service.list_rules(tx)
    assert [event for event in events if event.startswith("monitoring")] == [
        "monitoring.alert_rule.created",
        "monitoring.alert_rule.changed",
        "monitoring.alert_rule.deleted",
        "monitoring.alert_rule.created",
    ]
    assert listed == [again]


async def test_an_objective_is_changed_and_deleted_with_its_rules(lab: AlertLab) -> None:
    quick = SloSpec(objective="95", indicator=Indicator.TTFT, threshold_us=500_000, min_total=50)
    async with lab.db.write(lab.mine) as tx:
        made = await lab.service.create_slo(tx, "chat", SLO)
        assert len(await lab.service.list_all_rules(tx)) == 4
        changed = await lab.service.change_slo(tx, "chat", quick, 1)
        assert await lab.service.change_slo(tx, "chat", quick) == changed
        assert await lab.service.get_slo(tx, made.id) == changed
        with pytest.raises(PilotageError, match="changed meanwhile"):
            await lab.service.change_slo(tx, "chat", SLO, 1)
        with pytest.raises(PilotageError, match="There is an objective"):
            await lab.service.create_slo(tx, "chat", SLO)
        await lab.service.delete_slo(tx, "chat")
        with pytest.raises(PilotageError, match="There is no objective"):
            await lab.service.get_slo(tx, "chat")
        assert await lab.service.list_all_rules(tx) == []
    async with lab.db.read(lab.mine) as tx:
        events = [found.event for found in await read_revisions(tx, 0, 50)]
    assert [event for event in events if event.startswith("monitoring")] == [
        "monitoring.slo.created",
        "monitoring.slo.changed",
        "monitoring.slo.deleted",
    ]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("p95_latncy > 2s", "At character 1"),
        ("p95_latency > 2", "second"),
        ("error_rate > 5", "never"),
        ("", "At character 1"),
    ],
)
async def test_a_condition_that_is_none_makes_no_rule(
    lab: AlertLab, condition: str, said: str
) -> None:
    async with lab.db.write(lab.mine) as tx:
        with pytest.raises(PilotageError) as refused:
            await lab.service.create_rule(tx, "slow", RuleSpec(condition=condition))

    assert (refused.value.code, refused.value.param) == ("invalid_request", "condition")
    assert said in f"{refused.value.detail} {refused.value.hint}"


async def test_of_many_who_create_the_same_rule_one_does(lab: AlertLab) -> None:
    async def create(tx: Tx) -> AlertRule:
        return await lab.service.create_rule(tx, "slow", SLOW)

    won, lost = await stores.race(lab.db, lab.mine, create)

    assert (len(won), len(lost)) == (1, 3)


async def test_a_project_has_only_so_many_rules(
    lab: AlertLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count those that an objective comes with."""
    monkeypatch.setattr(service_module, "MOST_RULES", 5)
    async with lab.db.write(lab.mine) as tx:
        await lab.service.create_slo(tx, "chat", SLO)
        await lab.service.create_rule(tx, "slow", SLOW)
        with pytest.raises(PilotageError, match="has 5 rules already, of at most 5"):
            await lab.service.create_rule(tx, "more", SLOW)
        await lab.service.delete_rule(tx, "slow")
        with pytest.raises(PilotageError, match="has 4 rules already"):
            await lab.service.create_slo(tx, "more", SLO)
        await lab.service.delete_slo(tx, "chat")
        await lab.service.create_slo(tx, "more", SLO)


async def test_a_projects_rules_look_at_only_so_many_windows(
    lab: AlertLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "MOST_READINGS", 2)
    one, two = (RuleSpec(condition=f"p95_latency[{window}] > 2s") for window in ("2m", "3m"))
    async with lab.db.write(lab.mine) as tx:
        await lab.service.create_rule(tx, "one", one)
        await lab.service.create_rule(tx, "both", replace(one, condition="error_rate[2m] > 1%"))
        await lab.service.create_rule(tx, "now", RuleSpec(condition="daily_cost > $1"))
        await lab.service.create_rule(tx, "two", two)
        for name in ("more", "split"):
            condition = "p95_latency > 2s" if name == "more" else 'error_rate{arm!=""}[2m] > 1%'
            with pytest.raises(PilotageError, match="would look at 3 windows") as refused:
                await lab.service.create_rule(tx, name, RuleSpec(condition=condition))
            assert refused.value.code == "conflict"
        await lab.service.change_rule(tx, "two", SLOW)
    async with lab.db.write(lab.other) as tx:
        await lab.service.create_rule(tx, "one", SLOW)


@pytest.mark.parametrize("name", ["chat-burn-1h", "a-burn-3d"])
async def test_no_rule_is_called_as_those_of_objectives(lab: AlertLab, name: str) -> None:
    async with lab.db.write(lab.mine) as tx:
        with pytest.raises(PilotageError, match="as the rules of objectives are called"):
            await lab.service.create_rule(tx, name, SLOW)


async def test_of_a_projects_past_alerts_the_newest_are_kept(
    lab: AlertLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "MOST_PAST", 2)
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(*(lab.call(seconds=3, alias=name) for name in "abcd"))
    await lab.look()
    async with lab.db.read(lab.mine) as tx:
        fired = await lab.service.list_alerts(tx)
    assert len(await lab.look(300)) == 4

    async with lab.db.write(SYSTEM) as tx:
        assert await lab.service.drop_past(tx) == 2
        assert await lab.service.drop_past(tx) == 0
    async with lab.db.read(lab.mine) as tx:
        left = await lab.service.list_alerts(tx, (AlertState.RESOLVED,))
    assert [alert.id for alert in left] == [alert.id for alert in fired][:2]


async def test_what_is_asked_of_alerts_again_and_again_reads_no_past(lab: AlertLab) -> None:
    """Ask the database how it would find what lives, what is too old, and what is too many."""
    asked = (
        "SELECT * FROM alert WHERE state IN ('pending', 'firing') ORDER BY id",
        "DELETE FROM alert WHERE resolved_at_us < 1",
        "SELECT project_id FROM alert WHERE state = 'resolved' GROUP BY project_id",
    )
    async with lab.db.engine.connect() as conn:
        if conn.dialect.name == "postgresql":
            await conn.execute(sa.text("SET enable_seqscan = off"))
        for text in asked:
            explain = "EXPLAIN" if conn.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
            plan = "\n".join(map(str, await conn.execute(sa.text(f"{explain} {text}"))))
            assert "ix_alert_" in plan, plan


async def test_an_alert_is_written_as_it_was_and_by_one_alone(lab: AlertLab) -> None:
    await lab.set_rule("errors", "error_rate > 10%", team="ops", labels={"a": "ü"})
    await lab.put_calls(lab.call(Outcome.DEADLINE), lab.call())
    assert await lab.look() == [("errors", "firing")]
    async with lab.db.write(SYSTEM) as tx:
        (alert,) = await lab.service.list_living(tx)
        assert await lab.service.get_alert(tx, alert.id) == alert
        moved = replace(alert, rev=2, value=None)
        await lab.service.write_alerts(tx, [Move(alert, moved)])
        assert await lab.service.get_alert(tx, alert.id) == moved
        for lost in (Move(alert, moved), Move(alert, None)):
            with pytest.raises(PilotageError, match="written by somebody else"):
                await lab.service.write_alerts(tx, [lost])
        await lab.service.write_alerts(tx, [Move(None, None)])
    assert (alert.value, alert.labels) == (0.5, {"alias": "chat", "a": "ü"})


async def test_what_another_process_wrote_is_read_again(lab: AlertLab) -> None:
    await lab.set_rule("errors", "error_rate > 10%")
    await lab.put_calls(lab.call(Outcome.DEADLINE))
    await lab.look()
    async with lab.db.write(SYSTEM) as tx:
        (alert,) = await lab.service.list_living(tx)
        await lab.service.write_alerts(tx, [Move(alert, replace(alert, rev=2))])

    with pytest.raises(PilotageError, match="written by somebody else"):
        await lab.look(300)

    assert await lab.look() == [("errors", "resolved")]


async def test_alerts_are_listed_newest_first_by_state_and_rule(lab: AlertLab) -> None:
    await lab.set_rule("now", "p95_latency > 2s")
    await lab.set_rule("later", "p95_latency > 2s for 1m")
    await lab.put_calls(*(lab.call(seconds=3, alias=name) for name in "abc"))
    await lab.look()

    async with lab.db.read(lab.mine) as tx:
        living = await lab.service.list_alerts(tx)
        first = await lab.service.list_alerts(tx, limit=2)
        rest = await lab.service.list_alerts(tx, before=first[-1].id)
        firing = await lab.service.list_alerts(tx, (AlertState.FIRING,))
        later = await lab.service.list_alerts(tx, rule="later")

    assert [alert.id for alert in living] == sorted((alert.id for alert in living), reverse=True)
    assert [*first, *rest] == list(living)
    assert {alert.rule for alert in firing} == {"now"}
    assert [alert.state for alert in later] == [AlertState.PENDING] * 3


async def test_a_tenant_that_is_made_anew_takes_no_series_of_the_one_before(lab: AlertLab) -> None:
    async with lab.db.write(lab.mine) as tx:
        old = await lab.identity.create_tenant(tx, "acme")
    await lab.put_calls(lab.call(tenant_id=old.id), lab.call(tenant_id=old.id))
    wanted = Wanted("request_count", 60_000_000, ("tenant",))

    async def read() -> dict[Labels, float]:
        async with lab.db.read(SYSTEM) as tx:
            picture = await lab.values.read(tx, [wanted], lab.clock.now_us())
        return picture.found[wanted][lab.mine.project_id or ""]

    assert await read() == {(("tenant", "acme"),): 2}
    async with lab.db.write(lab.mine) as tx:
        await lab.identity.delete_tenant(tx, "acme")
        new = await lab.identity.create_tenant(tx, "acme")
    lab.clock.advance(11)
    await lab.put_calls(lab.call(tenant_id=new.id))

    assert await read() == {(("tenant", "acme"),): 1, (("tenant", old.id),): 2}

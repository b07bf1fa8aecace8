"""The look at all rules: pending, firing, resolved, and what interrupts it."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest

from alert_lab import AlertLab, open_lab
from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import Labels
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import get_last_seq
from pilotage.monitoring.alerts import rules
from pilotage.monitoring.alerts.types import Alert, AlertState, Indicator, RuleSpec, SloSpec
from pilotage.monitoring.alerts.values import Found, Picture, Wanted
from pilotage.monitoring.alerts.worker import _Watched

SLOW = "p95_latency > 2s for 5s"


@pytest.fixture
def postgres_or_none() -> None:
    """Take SQLite: what is written is held by the suite of the store on both."""


@pytest.fixture
async def lab(database: Database, clock: ManualClock) -> AlertLab:
    return await open_lab(database, clock)


async def list_alerts(lab: AlertLab, *states: AlertState) -> Sequence[Alert]:
    async with lab.db.read(lab.mine) as tx:
        return await lab.service.list_alerts(tx, states or tuple(AlertState))


async def test_an_alert_is_pending_then_fires_and_is_over_when_calls_are_fast_again(
    lab: AlertLab,
) -> None:
    await lab.set_rule("slow", SLOW, team="ops", runbook="https://example.org", labels={"a": "b"})
    await lab.put_calls(lab.call(seconds=1), lab.call(seconds=3))

    assert await lab.look() == []
    (pending,) = await list_alerts(lab)
    assert (pending.state, pending.labels) == (AlertState.PENDING, {"alias": "chat", "a": "b"})
    assert await lab.look(times=4) == []
    assert await lab.look() == [("slow", "firing")]
    assert await lab.look(times=3) == []
    (firing,) = await list_alerts(lab, AlertState.FIRING)
    assert firing.id == pending.id
    assert firing.fired_at_us == lab.clock.now_us() - 3_000_000
    assert firing.value == pytest.approx(3, rel=0.01)

    lab.clock.advance(180)
    await lab.put_calls(lab.call(seconds=1))

    assert await lab.look() == [("slow", "resolved")]
    (over,) = await list_alerts(lab)
    assert (over.id, over.state) == (pending.id, AlertState.RESOLVED)
    assert over.resolved_at_us == lab.clock.now_us()
    assert await lab.look(times=3) == []


async def test_what_people_are_told_names_the_series_and_is_one_alert_from_begin_to_end(
    lab: AlertLab,
) -> None:
    await lab.set_rule("errors", 'error_rate{alias="chat"} > 10%', team="ops", summary="It fails.")
    await lab.put_calls(lab.call(Outcome.UPSTREAM_ERROR), lab.call())
    lab.clock.advance(1)

    await lab.keeper.step()
    lab.clock.advance(300)
    await lab.keeper.step()

    began, over = lab.told.changes
    assert (began.state, over.state) == (AlertState.FIRING, AlertState.RESOLVED)
    assert began.alert_id == over.alert_id
    assert began.starts_at_us == over.starts_at_us == began.at_us
    assert over.at_us == began.at_us + 300_000_000
    assert (began.value, began.labels) == (0.5, {"alias": "chat"})
    assert (began.team, began.summary, began.project_id) == (
        "ops",
        "It fails.",
        lab.mine.project_id,
    )


async def test_each_series_is_an_alert_of_its_own(lab: AlertLab) -> None:
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(*(lab.call(seconds=3, alias=name) for name in ("a", "b")))
    await lab.put_calls(lab.call(alias="c"))

    assert await lab.look() == [("slow", "firing")] * 2

    assert [alert.labels for alert in await list_alerts(lab)] == [{"alias": "b"}, {"alias": "a"}]


async def test_a_pending_alert_whose_condition_ends_was_never_there(lab: AlertLab) -> None:
    await lab.set_rule("slow", SLOW)
    await lab.put_calls(lab.call(seconds=3))
    await lab.look(times=3)

    assert await lab.look(300) == []

    assert await list_alerts(lab) == []


async def test_a_restart_forgets_neither_what_fires_nor_how_long_something_is_pending(
    lab: AlertLab,
) -> None:
    await lab.set_rule("now", "p95_latency > 2s")
    await lab.set_rule("later", "p95_latency > 2s for 15s")
    await lab.put_calls(lab.call(seconds=3))
    assert await lab.look(times=12) == [("now", "firing")]

    lab.keeper = lab.make_keeper()

    assert await lab.look(times=2) == []
    assert await lab.look(times=3) == [("later", "firing")]
    assert len(await list_alerts(lab, AlertState.FIRING)) == 2


async def test_a_clock_that_is_set_back_neither_fires_nor_ends_anything(lab: AlertLab) -> None:
    await lab.set_rule("slow", SLOW)
    await lab.put_calls(lab.call(seconds=3))
    await lab.look(times=3)

    lab.clock.advance(-30)
    await lab.put_calls(lab.call(seconds=3))

    assert await lab.look(times=2) == []
    assert await lab.look(times=4) == [("slow", "firing")]


async def test_alerts_are_found_while_no_change_is_accepted(lab: AlertLab) -> None:
    """Set the clock back so far that no revision can be appended."""
    await lab.set_rule("slow", SLOW)
    async with lab.db.read(SYSTEM) as tx:
        before = await get_last_seq(tx)
    lab.clock.advance(-3600)
    await lab.put_calls(lab.call(seconds=3))
    with pytest.raises(PilotageError, match="by this machine's clock"):
        await lab.set_rule("more", SLOW)

    assert await lab.look(times=6) == [("slow", "firing")]

    async with lab.db.read(SYSTEM) as tx:
        assert await get_last_seq(tx) == before


async def test_while_the_numbers_are_not_those_of_now_nothing_begins_and_nothing_ends(
    lab: AlertLab,
) -> None:
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(lab.call(seconds=3))
    await lab.look()

    lab.is_current = False
    assert await lab.look(300, times=3) == []
    (look,) = lab.keeper.looks.values()
    assert look.problem == "p95_latency: calls are not counted up to now"

    lab.is_current = True
    assert await lab.look() == [("slow", "resolved")]


async def test_what_is_told_by_no_call_is_watched_while_calls_are_not_counted(
    database: Database, clock: ManualClock
) -> None:
    source = Flapping("ready_replicas")
    lab = await open_lab(database, clock, source)
    source.project_id = lab.mine.project_id or ""
    await lab.set_rule("few", "ready_replicas < 1")
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(lab.call(seconds=3))
    lab.is_current = False

    assert await lab.look() == [("few", "firing")]
    assert await lab.look() == [("few", "resolved")]
    assert lab.keeper.looked_at_us == lab.clock.now_us()


class Flapping:
    """A source of one metric that is 0 for some series at every other time it is read."""

    def __init__(self, name: str, series: int = 1) -> None:
        self.names = frozenset({name})
        self.project_id = ""
        self._labels: list[Labels] = [(("alias", f"a{number}"),) for number in range(series)]
        self._reads = 0

    async def read(self, _: Tx, wanted: Sequence[Wanted], __: int) -> Found:
        self._reads += 1
        value = float(self._reads % 2 == 0)
        found = dict.fromkeys(self._labels, value)
        return {one: {self.project_id: found} for one in wanted}


async def test_of_a_rule_that_flaps_only_so_many_alerts_are_over_in_an_hour(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MOST_ENDS", 6)
    source = Flapping("ready_replicas", series=2)
    lab = await open_lab(database, clock, source)
    source.project_id = lab.mine.project_id or ""
    await lab.set_rule("few", "ready_replicas < 1")

    told = await lab.look(times=10)
    assert (
        told
        == [("few", "firing"), ("few", "firing"), *[("few", "resolved")] * 2] * 3
        + [("few", "firing")] * 2
    )
    assert await lab.look(times=100) == []
    assert len(await list_alerts(lab, AlertState.FIRING)) == 2

    assert await lab.look(600) == []
    assert await lab.look(1) == [("few", "resolved")]


async def test_looks_that_take_long_leave_time_for_others(
    lab: AlertLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(lab.call(seconds=3))
    looked = []
    read = lab.values.read

    async def read_slowly(tx: Tx, wanted: Iterable[Wanted], at_us: int) -> Picture:
        lab.clock.advance(2)
        looked.append(lab.clock.monotonic_s())
        return await read(tx, wanted, at_us)

    monkeypatch.setattr(lab.values, "read", read_slowly)

    await lab.look(times=20)

    assert [later - one for one, later in pairwise(looked)] == [8.0] * 3


async def test_between_slices_of_very_many_rules_others_run(lab: AlertLab) -> None:
    """Count how often something else has its turn within one look at 200 rules."""
    for number in range(200):
        await lab.set_rule(f"slow{number}", f"p95_latency > {number + 1}s")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    watched = await watch(lab)
    picture = Picture(lab.clock.now_us(), {}, frozenset())
    counting = asyncio.ensure_future(count())
    try:
        await lab.keeper._decide(watched, picture, [])
    finally:
        counting.cancel()
    assert turns >= 10


async def watch(lab: AlertLab) -> _Watched:
    async with lab.db.read(SYSTEM) as tx:
        return await lab.keeper._watch(tx)


async def test_a_condition_is_tried_on_the_numbers_of_its_own_project(lab: AlertLab) -> None:
    await lab.put_calls(lab.call(seconds=3))
    condition = parse("p95_latency > 2s")
    scopes = []
    read = lab.values.read

    async def note_scope(tx: Tx, wanted: Iterable[Wanted], at_us: int) -> Picture:
        scopes.append(tx.actor.project_id)
        return await read(tx, wanted, at_us)

    lab.values.read = note_scope  # type: ignore[method-assign]
    async with lab.db.read(lab.mine) as tx:
        mine = await lab.keeper.try_condition(tx, condition)
    async with lab.db.read(lab.other) as tx:
        other = await lab.keeper.try_condition(tx, condition)

    assert (list(mine.found), other.found) == ([(("alias", "chat"),)], {})
    assert scopes == [lab.mine.project_id, lab.other.project_id]


async def test_an_alert_of_a_rule_that_is_no_more_is_over(lab: AlertLab) -> None:
    for name in ("gone", "off", "pending"):
        await lab.set_rule(name, "p95_latency > 2s" + (" for 1m" if name == "pending" else ""))
    await lab.put_calls(lab.call(seconds=3))
    assert len(await lab.look()) == 2

    async with lab.db.write(lab.mine) as tx:
        await lab.service.delete_rule(tx, "gone")
        await lab.service.delete_rule(tx, "pending")
        await lab.service.change_rule(
            tx, "off", RuleSpec(condition="p95_latency > 2s", is_enabled=False)
        )

    assert sorted(await lab.look()) == [("gone", "resolved"), ("off", "resolved")]
    assert {alert.rule for alert in await list_alerts(lab)} == {"gone", "off"}


async def test_an_alert_is_kept_firing_for_as_long_as_its_rule_says(lab: AlertLab) -> None:
    await lab.set_rule("slow", "p95_latency > 2s", keep_firing_us=3_000_000)
    await lab.put_calls(lab.call(seconds=3))
    await lab.look()

    lab.clock.advance(300)

    assert await lab.look(times=3) == []
    assert await lab.look() == [("slow", "resolved")]


async def test_missing_numbers_can_be_asked_for(lab: AlertLab) -> None:
    await lab.set_rule("silent", 'absent(request_count{alias="chat"}) for 2s')
    await lab.put_calls(lab.call())
    assert await lab.look(times=4) == []

    lab.clock.advance(300)

    assert await lab.look(times=4) == [("silent", "firing")]
    (alert,) = await list_alerts(lab)
    assert alert.labels == {"alias": "chat"}


async def test_a_rule_with_very_many_series_is_bounded_and_says_so(
    lab: AlertLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rules, "MOST_SERIES", 2)
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(*(lab.call(seconds=3, alias=f"a{number}") for number in range(5)))

    with caplog.at_level(logging.ERROR):
        assert await lab.look(times=3) == [("slow", "firing")] * 2

    (look,) = lab.keeper.looks.values()
    assert look.left_out == 3
    assert caplog.messages == ["the rule slow holds for 3 series too many"]


class Broken:
    """A source that fails while it is told to."""

    names = frozenset({"accuracy"})

    def __init__(self) -> None:
        self.fails = False

    async def read(self, _: Tx, wanted: Sequence[Wanted], __: int) -> Found:
        if self.fails:
            raise OSError("the disk is gone")
        return {one: {self.project_id: {(("alias", "chat"),): 0.5}} for one in wanted}

    project_id = ""


async def test_a_source_that_fails_holds_its_own_rules_and_no_others(
    database: Database, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    lab = await open_lab(database, clock, broken)
    broken.project_id = lab.mine.project_id or ""
    await lab.set_rule("wrong", "accuracy < 90%")
    await lab.set_rule("slow", "p95_latency > 2s")
    assert await lab.look() == [("wrong", "firing")]
    await lab.put_calls(lab.call(seconds=3))

    broken.fails = True

    with caplog.at_level(logging.ERROR):
        assert await lab.look(times=3) == [("slow", "firing")]
    problems = {look.problem for look in lab.keeper.looks.values()}
    assert problems == {"", "accuracy cannot be read"}
    assert caplog.messages == ["metrics of Broken cannot be read: the disk is gone"]
    broken.fails = False
    assert await lab.look(times=3) == []


async def test_a_notice_that_cannot_be_taken_leaves_the_alert_as_it_was(lab: AlertLab) -> None:
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(lab.call(seconds=3))
    told, lab.keeper._notices = lab.told, Refusing()

    with pytest.raises(PilotageError, match="full"):
        await lab.look()
    assert await list_alerts(lab) == []

    lab.keeper._notices = told
    assert await lab.look() == [("slow", "firing")]


class Refusing:
    """Takes no notice."""

    async def take(self, *_: object) -> None:
        raise PilotageError("unavailable", "The disk is full.")


async def test_an_objective_burns_in_both_windows_before_anybody_is_told(lab: AlertLab) -> None:
    async with lab.db.write(lab.mine) as tx:
        await lab.service.create_slo(tx, "chat", SloSpec(objective="99", alias="chat"))
    await lab.put_calls(*[lab.call()] * 200, *[lab.call(Outcome.DEADLINE)] * 9)
    assert await lab.look() == []

    await lab.put_calls(*[lab.call(Outcome.DEADLINE)] * 60, lab.call(alias="other"))
    fired = await lab.look(60, times=2)

    assert sorted(fired) == [(f"chat-burn-{long}", "firing") for long in ("1d", "1h", "3d", "6h")]
    lab.clock.advance(360)
    assert await lab.look() == [("chat-burn-1h", "resolved")]


async def test_an_objective_on_latency_counts_slow_calls(lab: AlertLab) -> None:
    spec = SloSpec(
        objective="90", indicator=Indicator.LATENCY, threshold_us=2_000_000, min_bad=1, min_total=2
    )
    async with lab.db.write(lab.mine) as tx:
        await lab.service.create_slo(tx, "fast", spec)
    await lab.put_calls(lab.call(seconds=1), lab.call(seconds=4), lab.call(seconds=4))

    assert sorted(await lab.look()) == [
        ("fast-burn-1d", "firing"),
        ("fast-burn-3d", "firing"),
        ("fast-burn-6h", "firing"),
    ]


async def test_alerts_of_long_ago_are_forgotten(lab: AlertLab) -> None:
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(lab.call(seconds=3))
    await lab.look()
    await lab.look(300)
    assert len(await list_alerts(lab)) == 1

    await lab.look(91 * 86_400)

    assert await list_alerts(lab) == []


async def test_nobody_sees_the_alerts_of_another_project(lab: AlertLab) -> None:
    await lab.set_rule("slow", "p95_latency > 2s")
    await lab.put_calls(lab.call(seconds=3))
    await lab.look()

    async with lab.db.read(lab.other) as tx:
        assert await lab.service.list_alerts(tx) == []
        assert await lab.service.list_all_rules(tx) == []
    (alert,) = await list_alerts(lab)
    async with lab.db.read(lab.other) as tx:
        with pytest.raises(PilotageError, match="There is no alert"):
            await lab.service.get_alert(tx, alert.id)

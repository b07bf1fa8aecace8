"""What is counted of rollouts, from real spool folders, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from calls import make_call, open_writer
from mortal_database import DeathError, mortal
from pilotage.core.frames import Begun, Ended, Feedback, Frame, encode_frame
from pilotage.core.gates.types import Counts, Units, Weight, add_units
from pilotage.core.sketch import Sketch
from pilotage.finops.costs.service import CostService
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.monitoring.rollups.service import CallBatch, CallSink, RollupService
from pilotage.monitoring.rollups.worker import RollupReader
from pilotage.rollouts.measuring import store
from pilotage.rollouts.measuring.service import MeasuringService
from pilotage.rollouts.measuring.sink import MeasuringSink
from pilotage.rollouts.measuring.types import CallKey, UnitSeen
from pilotage.rollouts.past import CountedPast
from pilotage.rollouts.types import Gate, GateKind, Known, Measurement, Rollout, Tally
from rollout_calls import (
    BASELINE,
    CANDIDATE,
    ERRORS,
    FEEDBACK,
    GATES,
    LATENCY,
    TTFT,
    Dealer,
    count_dealt,
    make_random_calls,
    make_rollout,
    recount,
)


class Breaking:
    """A sink that fails so many times, inside the transaction."""

    def __init__(self) -> None:
        self.left = 0

    async def prepare(self, batch: CallBatch) -> None:
        """Prepare nothing."""

    async def write(self, tx: Tx) -> None:
        """Fail as long as it shall."""
        if self.left:
            self.left -= 1
            raise OSError("the disk is away")


@dataclass(slots=True)
class Lab:
    """A spool, what reads it, and who counts."""

    database: Database
    clock: ManualClock
    root: Path
    service: MeasuringService
    reader: RollupReader
    breaking: Breaking

    async def begin(self, rollout: Rollout, known: Known | None = None) -> None:
        async with self.database.write(SYSTEM) as tx:
            await self.service.begin(tx, rollout, known or Known())

    async def spool(self, frames: Sequence[Frame], gateway: str = "gateway-0") -> None:
        with open_writer(self.root, gateway) as writer:
            for frame in frames:
                writer.append(encode_frame(frame))
        await self.drain()

    async def drain(self) -> None:
        while await self.reader.step():
            pass

    async def end(self, rollout: Rollout) -> None:
        async with self.database.write(SYSTEM) as tx:
            await self.service.end(tx, rollout)

    async def forget(self, rollout: Rollout) -> int:
        """Forget all of it; return in how many portions."""
        portions, has_more = 0, True
        while has_more:
            async with self.database.write(SYSTEM) as tx:
                has_more = await self.service.forget(tx, rollout)
            portions += 1
        return portions

    async def find_scored(self, calls: Sequence[Ended]) -> set[str]:
        """Return which calls are kept for their scores."""
        async with self.database.read(SYSTEM) as tx:
            keys = {CallKey(call.call_id, call.tenant_id) for call in calls}
            return {key.call_id for key in await store.find_answers(tx, keys)}

    async def count_units(self, rollout: Rollout, most: int) -> int:
        async with self.database.read(SYSTEM) as tx:
            names = {f"unit_{number}" for number in range(most)}
            return len(await store.list_units(tx, rollout.id, names))

    async def read(self, rollout: Rollout) -> Measurement:
        async with self.database.read(SYSTEM) as tx:
            return (await self.service.read(tx, rollout, tx.now_us)).measurement


@pytest.fixture
async def lab(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Lab]:
    service, breaking, root = MeasuringService(), Breaking(), tmp_path / "spool"
    sinks: list[CallSink] = [MeasuringSink(service), breaking]
    reader = RollupReader(database, root, RollupService(), clock, sinks=sinks, batch=150)
    yield Lab(database, clock, root, service, reader, breaking)
    await reader.close()


def say(ended: Ended, **more: object) -> Feedback:
    values: dict[str, object] = {
        "call_id": ended.call_id,
        "at_us": 0,
        "feedback_id": f"fbk_{ended.call_id}",
        "project_id": ended.project_id,
        "tenant_id": ended.tenant_id,
        "key_id": "key",
        "score": 750_000,
    }
    return Feedback(**(values | more))  # type: ignore[arg-type]


def drop_empty(counts: Counts) -> Counts:
    return {weight: units for weight, units in counts.items() if units.total}


def assert_same(
    tally: Tally, rollout: Rollout, gate: Gate, frames: Sequence[Begun | Ended], step: int
) -> None:
    again = recount(rollout, gate, frames, step)
    assert drop_empty(tally.units) == drop_empty(again.units), gate.name
    assert drop_empty(tally.bad) == drop_empty(again.bad), gate.name
    if gate.kind is not GateKind.EVENTS:
        held = {
            weight: values
            for weight, values in tally.values.items()
            if values.candidate.count + values.baseline.count
        }
        assert held == again.values, gate.name


@pytest.mark.parametrize("units", [0, 60])
async def test_a_recount_by_hand_comes_to_the_same(lab: Lab, units: int) -> None:
    rollout = make_rollout()
    await lab.begin(rollout)
    frames = make_random_calls(Dealer(rollout), Random(7), 900, units=units)
    await lab.spool([*frames, make_call()])
    measured = await lab.read(rollout)
    assert drop_empty(measured.first_seen) == count_dealt(rollout, frames)
    for gate in GATES:
        assert_same(measured.whole[gate.name], rollout, gate, frames, -1)
        assert_same(measured.step[gate.name], rollout, gate, frames, 0)
    assert add_units(measured.whole["error"].bad).total > 20
    if not units:
        assert add_units(measured.whole["latency"].units).total > 100


async def test_calls_count_once_whatever_fails_in_between(lab: Lab) -> None:
    rollout = make_rollout()
    await lab.begin(rollout)
    frames = make_random_calls(Dealer(rollout), Random(8), 400, units=50)
    lab.breaking.left = 4
    await lab.spool(frames)
    for _ in range(12):
        lab.clock.advance(31)
        await lab.drain()
    assert lab.breaking.left == 0
    measured = await lab.read(rollout)
    assert drop_empty(measured.first_seen) == count_dealt(rollout, frames)
    for gate in GATES:
        assert_same(measured.whole[gate.name], rollout, gate, frames, -1)


async def test_a_crash_between_any_two_statements_counts_each_call_once(lab: Lab) -> None:
    """Die at the first statement, then at the second and so on, until a batch needs no more."""
    rollout = make_rollout(gates=(ERRORS, LATENCY, FEEDBACK))
    await lab.begin(rollout)
    dealer, deaths, statement = Dealer(rollout), 0, 0
    frames: list[Begun | Ended] = []
    with mortal(lab.database) as fate:
        while deaths == statement:
            statement += 1
            calls = make_random_calls(dealer, Random(statement), 12, units=4)
            frames += calls
            said = [say(frame) for frame in calls if isinstance(frame, Ended)][:2]
            with open_writer(lab.root) as writer:
                for frame in (*calls, *said):
                    writer.append(encode_frame(frame))
            fate.dies_at = statement
            try:
                await lab.drain()
            except DeathError:
                deaths += 1
            fate.dies_at = 0
            await lab.drain()
    measured = await lab.read(rollout)
    assert deaths > 15
    assert drop_empty(measured.first_seen) == count_dealt(rollout, frames)
    for gate in (ERRORS, LATENCY):
        assert_same(measured.whole[gate.name], rollout, gate, frames, -1)
    scores = add_units(measured.whole["feedback"].units).total
    assert 0 < scores <= 2 * statement


async def test_feedback_counts_whichever_of_call_and_score_is_read_first(lab: Lab) -> None:
    rollout = make_rollout(weights=(5_000,), gates=(ERRORS, FEEDBACK))
    await lab.begin(rollout)
    dealer = Dealer(rollout)
    calls = [dealer.call(0) for _ in range(30)]
    ended = [call[1] for call in calls]
    await lab.spool([say(one) for one in ended[:10]], "gateway-1")
    await lab.spool([frame for call in calls[:20] for frame in call])
    await lab.spool([say(one) for one in ended[10:]], "gateway-1")
    await lab.spool([frame for call in calls[20:] for frame in call])
    await lab.spool([say(one, score=0) for one in ended], "gateway-1")
    tally = (await lab.read(rollout)).whole["feedback"]
    mine = sum(one.assigned == CANDIDATE for one in ended)
    assert tally.units == {Weight(5_000, 5_000): Units(mine, 30 - mine)}
    [values] = tally.values.values()
    assert values.candidate == Sketch.of([250_000] * mine)
    assert values.baseline == Sketch.of([250_000] * (30 - mine))
    assert len(await lab.find_scored(ended)) == 30
    await lab.end(rollout)
    assert await lab.forget(rollout) == 1
    assert await lab.find_scored(ended) == set()


async def test_scores_of_calls_that_never_end_are_kept_for_an_hour_while_others_may(
    lab: Lab,
) -> None:
    rollout = make_rollout(weights=(5_000,), gates=(FEEDBACK,))
    other = replace(rollout, id="rol_2")
    for one in (rollout, other):
        await lab.begin(one)
    at_us = lab.clock.now_us()
    made_up = [Dealer(rollout, made=number).call(9)[1] for number in range(3)]
    await lab.spool([say(made_up[0], at_us=at_us)])
    lab.clock.advance(3_601)
    assert await lab.find_scored(made_up) == {made_up[0].call_id}
    await lab.spool([say(made_up[1], at_us=lab.clock.now_us())])
    assert await lab.find_scored(made_up) == {made_up[1].call_id}
    await lab.end(rollout)
    await lab.forget(rollout)
    assert await lab.find_scored(made_up) == {made_up[1].call_id}
    await lab.end(other)
    await lab.forget(other)
    assert await lab.find_scored(made_up) == set()


async def test_feedback_is_not_kept_where_no_gate_looks_at_it(lab: Lab) -> None:
    rollout = make_rollout(weights=(5_000,), gates=(ERRORS,))
    await lab.begin(rollout)
    begun, ended = Dealer(rollout).call(0)
    await lab.spool([begun, ended, say(ended)])
    async with lab.database.read(SYSTEM) as tx:
        assert await store.find_answers(tx, {CallKey(ended.call_id, "ten_a")}) == {}


async def test_of_two_projects_each_rollout_counts_its_own(lab: Lab) -> None:
    mine = make_rollout(weights=(5_000,), gates=(ERRORS,))
    other = replace(mine, id="rol_2", project_id="prj_2")
    for rollout in (mine, other):
        await lab.begin(rollout)
    await lab.spool(
        [
            *Dealer(mine).call(0),
            *Dealer(other, project_id="prj_2").call(0),
            *Dealer(other, project_id="prj").call(0),
        ]
    )
    for rollout in (mine, other):
        assert add_units((await lab.read(rollout)).whole["error"].units).total == 1


async def test_ranks_are_those_in_what_the_baseline_took_the_day_before(lab: Lab) -> None:
    rollout = make_rollout(weights=(5_000,), gates=(LATENCY, TTFT))
    at_us = lab.clock.now_us() - 60_000_000
    before = [
        make_call(at_us=at_us, arm=arm, duration_us=number + 1, ttft_us=-1)
        for number in range(200)
        for arm in (BASELINE, CANDIDATE)
    ]
    await lab.spool(before)
    somebody = Actor(principal_id="usr_1", project_id=rollout.project_id)
    past = CountedPast(RollupService(), CostService(lab.clock), FinopsService(lab.clock))
    async with lab.database.read(somebody) as tx:
        known = await past.find_known(tx, rollout.endpoint, rollout.baseline_id)
    await lab.spool(before)
    async with lab.database.read(somebody) as tx:  # it is remembered, and not added up again
        assert await past.find_known(tx, rollout.endpoint, rollout.baseline_id) is known
    await lab.begin(rollout, known)
    async with lab.database.read(SYSTEM) as tx:
        found = await store.find_watch(tx, rollout.id)
    assert found is not None
    assert set(found[1].references) == {"latency"}
    assert found[1].references["latency"].total == sum(range(1, 201))


async def test_one_that_was_never_counted_cannot_be_read(lab: Lab) -> None:
    with pytest.raises(LookupError, match="rol_1"):
        await lab.read(make_rollout())


async def test_nothing_counts_before_a_rollout_begins_or_after_it_has_ended(lab: Lab) -> None:
    rollout = make_rollout()
    dealer = Dealer(rollout)
    await lab.spool(make_random_calls(dealer, Random(1), 20, units=5))
    await lab.begin(rollout)
    assert add_units((await lab.read(rollout)).first_seen).total == 0
    frames = make_random_calls(dealer, Random(2), 40, units=5)
    await lab.spool(frames)
    before = await lab.read(rollout)
    assert add_units(before.first_seen).total > 0
    await lab.end(rollout)
    await lab.spool(make_random_calls(dealer, Random(3), 20, units=5))
    assert await lab.read(rollout) == before


async def test_what_is_being_counted_at_the_end_is_forgotten_too(lab: Lab) -> None:
    """Somebody has read that a rollout is counted, and writes what a unit did after its end."""
    if lab.database.engine.dialect.name == "sqlite":
        pytest.skip("there is one writer at a time")
    rollout = make_rollout(gates=(ERRORS,))
    await lab.begin(rollout)
    async with lab.database.write(SYSTEM) as tx:
        await store.hold_counts(tx)
        [(watched, _)] = await store.list_open(tx, {rollout.project_id})
        await lab.end(rollout)
        forgetting = asyncio.ensure_future(lab.forget(rollout))
        done, _ = await asyncio.wait({forgetting}, timeout=0.3)
        assert not done
        await store.put_units(tx, watched, {"unit_0": UnitSeen()}, set())
    await forgetting
    assert await lab.count_units(rollout, 1) == 0


async def test_what_units_did_is_forgotten_in_portions(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end itself drops nothing: it is what moves the traffic."""
    monkeypatch.setattr(store, "_PORTION", 10)
    mine = make_rollout(gates=(ERRORS, FEEDBACK))
    other = replace(mine, id="rol_2")
    frames: dict[str, list[tuple[Begun, Ended]]] = {}
    for rollout in (mine, other):
        await lab.begin(rollout)
        dealer = Dealer(rollout, made=100 * len(frames))
        frames[rollout.id] = [dealer.call(0, f"unit_{number}") for number in range(25)]
        await lab.spool([frame for call in frames[rollout.id] for frame in call])
    ended = {name: [call[1] for call in calls] for name, calls in frames.items()}
    await lab.end(mine)
    assert await lab.count_units(mine, 25) == len(await lab.find_scored(ended["rol_1"])) == 25
    async with lab.database.write(SYSTEM) as tx:
        assert await lab.service.forget(tx, mine)
    assert await lab.count_units(mine, 25) == 15
    assert await lab.forget(mine) == 4
    assert await lab.count_units(mine, 25) == len(await lab.find_scored(ended["rol_1"])) == 0
    assert await lab.count_units(other, 25) == len(await lab.find_scored(ended["rol_2"])) == 25
    assert add_units((await lab.read(mine)).whole["error"].units).total == 25

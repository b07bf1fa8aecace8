"""Rollouts on both databases: how they begin, what the worker does, who may look at them."""

import logging
import shlex
from dataclasses import replace

import pytest

from pilotage.core.errors import PilotageError
from pilotage.endpoints.store import mark_deployment_deleted
from pilotage.endpoints.types import ReplicaState
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Database, Tx
from pilotage.rollouts.types import (
    Judgement,
    Move,
    Rollout,
    State,
    StepSpec,
)
from pilotage.rollouts.worker import RolloutRunner
from rollout_lab import Lab, open_lab, split

OLD, NEW = "tiny@1.0.0", "tiny@1.1.0"
MINUTE = 60_000_000


@pytest.fixture
async def lab(database: Database, clock: ManualClock) -> Lab:
    return await open_lab(database, clock)


async def test_a_good_candidate_goes_through_its_steps(lab: Lab) -> None:
    rollout = await lab.start()
    assert (rollout.progress.state, await lab.shares()) == (State.PREPARING, {OLD: 10_000})
    assert lab.measuring.begun == [rollout.id]

    first = await lab.step()
    assert (first.progress.state, first.progress.step) == (State.RUNNING, 0)
    assert await lab.shares() == {OLD: 9_000, NEW: 1_000}
    endpoint = await lab.endpoint()
    assert (endpoint.rollout, endpoint.unit) == (f"{rollout.id}/0", "session")

    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    assert (await lab.step(1)).progress.step == 0  # it has to stand for a minute
    assert (await lab.step(60)).progress.step == 1
    assert await lab.shares() == {OLD: 5_000, NEW: 5_000}
    lab.measure(candidate=(0, 5_000), baseline=(0, 5_000))
    done = await lab.step(61)
    assert done.progress.state is State.PROMOTED
    assert done.ended_at_us is not None
    assert await lab.shares() == {NEW: 10_000}
    assert (await lab.endpoint()).rollout == ""
    assert lab.measuring.ended == [rollout.id]
    assert (await lab.step()).rev == done.rev  # nothing follows an end


async def test_what_an_end_leaves_to_do_is_done_after_it_a_portion_at_a_time(lab: Lab) -> None:
    await lab.start()
    await lab.step()
    lab.measure(candidate=(30, 100), baseline=(9, 900))
    lab.measuring.portions = 2
    assert (await lab.step()).progress.state is State.ROLLED_BACK
    assert (lab.measuring.portions, await lab.facts("cost")) == (2, [])
    runner, other = (
        RolloutRunner(lab.db, lab.service, lab.endpoints, name) for name in ("here", "there")
    )
    assert [await runner.step() for _ in range(3)] == [True, True, False]
    (cost,) = await lab.facts("cost")
    assert (cost["what"], cost["cost_nano"]) == ("rollout", lab.past.cost_nano)
    assert not await runner.step()
    assert not await other.step()
    assert lab.measuring.portions == -1
    assert len(await lab.facts("cost")) == 1


async def test_a_worse_candidate_goes_back_at_the_next_look(lab: Lab) -> None:
    await lab.start()
    await lab.step()
    lab.measure(candidate=(30, 100), baseline=(9, 900))
    back = await lab.step()
    assert (back.progress.state, back.said) == (State.ROLLED_BACK, "shown to be worse: error")
    assert await lab.shares() == {OLD: 10_000}


async def test_there_is_one_baseline_and_one_rollout_of_an_endpoint(lab: Lab) -> None:
    await lab.start()
    with pytest.raises(PilotageError, match="has a rollout already") as refused:
        await lab.start()
    assert refused.value.code == "conflict"
    with pytest.raises(PilotageError, match="moves the traffic"):
        async with lab.db.write(lab.ops) as tx:
            await lab.endpoints.split(tx, "chat", split(v1_0_0=50, v1_1_0=50))


async def test_a_shadow_compares_copies_and_moves_nothing(lab: Lab) -> None:
    steps = (StepSpec(weight="10%"),)
    rollout = await lab.start(strategy="shadow", steps=steps, gates=None, daily="5")
    assert (await lab.endpoint()).routing.shadow is None
    await lab.step()
    copied = (await lab.endpoint()).routing.shadow
    assert copied is not None
    assert (copied.arm, copied.share) == (rollout.candidate_id, 1_000)
    assert copied.daily_nano == 5 * 10**9
    assert (await lab.endpoint()).rollout == f"{rollout.id}/0"

    lab.copies.marks = {0: 980, -1_000: 10, 1_000: 10}
    assert (await lab.step(30)).progress.state is State.RUNNING
    fine = await lab.step(31)
    assert (fine.progress.state, fine.said) == (State.PROMOTED, "shown to be good enough: answers")
    assert await lab.shares() == {OLD: 10_000}
    assert (await lab.endpoint()).routing.shadow is None
    assert lab.measuring.begun == []


@pytest.mark.parametrize("breaks", [KeyError("gone"), PilotageError("not_found")])
async def test_what_goes_wrong_with_one_is_said_once_and_over_when_it_is(
    lab: Lab, breaks: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rollout = await lab.start()
    await lab.step()
    lab.measure(candidate=(60, 100), baseline=(0, 900))
    lab.measuring.breaks = breaks
    assert (await lab.step()).progress.state is State.RUNNING
    assert (await lab.step()).progress.state is State.RUNNING
    said = [record for record in caplog.records if rollout.id in record.getMessage()]
    assert [record.levelname for record in said if record.levelno > logging.INFO] == ["ERROR"]

    lab.measuring.breaks = None
    assert (await lab.step()).progress.state is State.ROLLED_BACK


@pytest.mark.parametrize(("model", "param"), [(NEW, "candidate"), (OLD, "endpoint")])
async def test_an_arm_without_a_price_is_refused_before_anything_moves(
    lab: Lab, model: str, param: str
) -> None:
    lab.past.unpriced = {model}
    with pytest.raises(PilotageError, match="has no price") as refused:
        await lab.start()
    assert (refused.value.code, refused.value.param) == ("conflict", param)
    assert f"pilotage prices set {model}" in refused.value.hint
    assert (await lab.endpoint()).rollout == ""


async def test_nothing_begins_that_would_end_the_service_of_gateways_apart(lab: Lab) -> None:
    lab.gateways.outdated = ["remote-paris-gateway-0"]
    with pytest.raises(PilotageError, match="too old for rollouts: remote-paris") as refused:
        await lab.start()
    assert refused.value.code == "conflict"
    lab.gateways.outdated = []
    await lab.start()


async def test_a_candidate_that_has_lost_its_price_gets_no_more_traffic(lab: Lab) -> None:
    rollout = await lab.start()
    await lab.step()
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    lab.past.unpriced = {NEW}
    waiting = await lab.step(61)
    assert (waiting.progress.step, waiting.said) == (
        0,
        f"waits: {NEW} has no price, so that it could not be served.",
    )
    with pytest.raises(PilotageError, match="has no price"):
        async with lab.db.write(lab.ops) as tx:
            await lab.steering.promote(tx, rollout.id, "never mind")
    lab.past.unpriced = set()
    assert (await lab.step()).progress.step == 1


async def test_what_keeps_a_move_from_being_made_is_said(lab: Lab) -> None:
    rollout = await lab.start()
    await lab.step()
    lab.measure(candidate=(30, 100), baseline=(9, 900))
    async with lab.db.write(lab.ops) as tx:  # nobody can do that: it is for damaged data alone
        there = await lab.endpoints.list_deployments(tx)
        gone = next(item for item in there if item.id == rollout.baseline_id)
        assert await mark_deployment_deleted(tx, gone)
    stuck = await lab.step()
    assert stuck.progress.state is State.RUNNING
    assert stuck.said.startswith("waits: 'chat' has no deployment")
    await lab.step()
    waits = [fact for fact in await lab.facts("verdict") if fact["reason"] == stuck.said]
    assert len(waits) == 1


async def test_time_in_which_nobody_looks_counts_for_nothing(lab: Lab) -> None:
    await lab.see(ReplicaState.STARTING)
    await lab.start(steps=(StepSpec(weight="10%", at_least="1m", at_most="2m"),))
    assert (await lab.step(540)).progress.state is State.PREPARING
    lab.clock.advance(3_600)  # the server is down
    assert (await lab.step(540)).progress.state is State.PREPARING  # it has begun to load anew
    await lab.see(ReplicaState.READY)
    assert (await lab.step()).progress.state is State.RUNNING

    lab.measure(candidate=(0, 10), baseline=(0, 90))
    lab.clock.advance(3_600)
    running = await lab.step(100)
    assert running.progress.state is State.RUNNING
    async with lab.db.read(lab.ops) as tx:
        timed = (await lab.service.measure(tx, running, tx.now_us)).measurement
    assert (timed.elapsed_s, timed.counted_s) == (110.0, 110.0)  # forecasts are by that, too
    assert (await lab.step(21)).said == "the step's time is over, and nothing was shown"


async def test_a_shadow_is_ended_well_by_hand(lab: Lab) -> None:
    steps = (StepSpec(weight="10%"),)
    rollout = await lab.start(strategy="shadow", steps=steps, gates=None, daily="5")
    await lab.step()
    async with lab.db.write(lab.ops) as tx:
        done = await lab.steering.promote(tx, rollout.id, "seen enough")
    assert done.progress.state is State.PROMOTED
    assert await lab.shares() == {OLD: 10_000}


async def test_the_start_needs_the_word_of_others_where_traffic_does(lab: Lab) -> None:
    await lab.need_approvals()
    with pytest.raises(PilotageError) as refused:
        await lab.start()
    assert refused.value.code == "approval_required"
    asked = shlex.split(refused.value.hint.partition("request ")[2])
    await lab.approve(asked[0], asked[1])
    with pytest.raises(PilotageError):  # it was given for another plan
        await lab.start(keep_warm="1h")
    await lab.start()
    assert (await lab.facts("approval"))[0]["action"] == "rollouts.rollout.start"
    with pytest.raises(PilotageError, match="already"):
        await lab.start()


async def test_one_process_looks_after_a_rollout_until_its_lease_ends(lab: Lab) -> None:
    await lab.start()
    await lab.step(holder="here")
    lab.measure(candidate=(30, 100), baseline=(9, 900))
    assert (await lab.step(holder="there")).progress.state is State.RUNNING
    assert (await lab.step(10, holder="there")).progress.state is State.ROLLED_BACK


async def test_who_has_no_lease_writes_nothing_and_keeps_no_look(lab: Lab) -> None:
    await lab.start()
    await lab.step()
    await lab.runner("here").step()
    kept = await lab.looks()
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    with lab.count_writes() as writes:
        await lab.runner("there").step()
    assert writes == []

    assert await lab.looks() == kept


async def test_a_look_that_takes_longer_than_its_lease_is_not_kept_twice(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.start()
    await lab.step()
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    judge = lab.service.judge

    async def judge_slowly(tx: Tx, rollout: Rollout) -> Judgement | None:
        monkeypatch.setattr(lab.service, "judge", judge)
        judged = await judge(tx, rollout)
        lab.clock.advance(11)
        await lab.runner("there").step()
        return judged

    await lab.runner("here").step()
    count = len(await lab.looks())
    lab.measure(candidate=(0, 2), baseline=(0, 2))
    monkeypatch.setattr(lab.service, "judge", judge_slowly)
    await lab.runner("here").step()
    assert len(await lab.looks()) == count + 1


async def test_what_keeps_an_ended_one_from_being_settled_is_tried_more_and_more_rarely(
    lab: Lab,
) -> None:
    await lab.start()
    await lab.step()
    lab.measure(candidate=(30, 100), baseline=(9, 900))
    assert (await lab.step()).progress.state is State.ROLLED_BACK
    lab.past.breaks = KeyError("gone")
    for _ in range(60):
        await lab.step()
    assert lab.past.added_up == 7
    lab.past.breaks = None
    await lab.step(30)
    await lab.step()
    assert (lab.past.added_up, len(await lab.facts("cost"))) == (8, 1)


async def test_of_two_moves_at_once_one_is_made(lab: Lab) -> None:
    rollout = await lab.start()
    running = await lab.step()
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.hold(tx, rollout.id, "first")
    late = Move(progress=replace(running.progress, step=1), weight=5_000, reason="late")
    with pytest.raises(PilotageError) as refused:
        async with lab.db.write(lab.ops) as tx:
            await lab.service.move(tx, running, late)
    assert refused.value.code == "conflict"
    assert await lab.shares() == {OLD: 9_000, NEW: 1_000}

"""Rollouts: their strategies and records, freezes, and what people do to them."""

import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotage.core.errors import PilotageError
from pilotage.endpoints.types import ReplicaState
from pilotage.governance.types import FreezeSpec
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import open_sqlite
from pilotage.kit.outbox import list_last
from pilotage.migrations.tables import get_metadata
from pilotage.registry.service import RegistryService
from pilotage.rollouts.types import (
    Ask,
    Known,
    PlanSpec,
    Rollout,
    State,
    StepSpec,
    Streak,
)
from rollout_lab import Lab, open_lab, split

OLD, NEW = "tiny@1.0.0", "tiny@1.1.0"
MINUTE = 60_000_000


@pytest.fixture
async def lab(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Lab]:
    database = open_sqlite(tmp_path / "test.db", clock)
    async with database.engine.begin() as conn:
        await conn.run_sync(get_metadata().create_all)
    yield await open_lab(database, clock)
    await database.close()


async def test_the_record_holds_plan_weights_looks_and_outcome(lab: Lab) -> None:
    rollout = await lab.start()
    await lab.step()
    lab.measure(candidate=(30, 100), baseline=(9, 900))
    await lab.step()

    decision = await lab.decision()
    assert (decision.id, decision.subject) == (rollout.decision_id, "chat")
    assert await lab.facts("plan") == [{"way": "canary", "steps": ["10 %", "50 %"]}]
    assert [fact["version"] for fact in await lab.facts("version")] == [OLD, NEW]
    weights = [fact["weights"] for fact in await lab.facts("weights")]
    assert weights == [{OLD: "90", NEW: "10"}, {OLD: "100", NEW: "0"}]
    (look,) = [fact for fact in await lab.facts("look") if fact["verdict"] == "worse"]
    assert (look["metric"], look["n"]) == ("error", 1_000)
    assert (await lab.facts("outcome"))[0]["state"] == "rolled_back"
    assert rollout.id in (await lab.facts("rollback"))[0]["command"]


async def test_a_split_has_no_baseline(lab: Lab) -> None:
    async with lab.db.write(lab.ops) as tx:
        await lab.endpoints.split(tx, "chat", split(v1_0_0=50, v1_1_0=50))
    with pytest.raises(PilotageError, match="not all on one deployment"):
        await lab.start()


async def test_a_candidate_that_never_gets_ready_takes_no_traffic(lab: Lab) -> None:
    await lab.see(ReplicaState.STARTING)
    await lab.start()
    assert (await lab.step()).progress.state is State.PREPARING
    failed = await lab.step(601)
    assert failed.progress.state is State.FAILED
    assert await lab.shares() == {OLD: 10_000}
    assert (await lab.endpoint()).rollout == ""
    assert (await lab.facts("outcome"))[0]["state"] == "failed"


async def test_what_is_worse_by_its_last_calls_goes_back_though_all_traffic_has_moved(
    lab: Lab,
) -> None:
    await lab.start(strategy="blue_green", steps=(), gates=None, keep_warm="1h")
    kept = await lab.step()
    assert (kept.progress.state, await lab.shares()) == (State.KEEPING, {NEW: 10_000})
    lab.measuring.streak = Streak(candidate_bad=9)
    assert (await lab.step()).progress.state is State.KEEPING
    lab.measuring.streak = Streak(candidate_bad=10)
    back = await lab.step()
    assert (back.progress.state, await lab.shares()) == (State.ROLLED_BACK, {OLD: 10_000})


async def test_a_baseline_that_was_kept_warm_is_removed_in_the_end(lab: Lab) -> None:
    await lab.start(strategy="blue_green", steps=(), gates=None, keep_warm="1h")
    await lab.step()
    assert (await lab.step(3_599)).progress.state is State.KEEPING
    assert (await lab.step(1)).progress.state is State.PROMOTED
    async with lab.db.read(lab.ops) as tx:
        assert [item.model for item in await lab.endpoints.list_deployments(tx)] == [NEW]
    assert "endpoints split chat tiny@1.0.0=100" in (await lab.facts("rollback"))[1]["command"]


async def test_what_crashes_again_and_again_goes_back_unless_the_baseline_is_down_as_well(
    lab: Lab,
) -> None:
    await lab.start()
    await lab.step()
    for model in (OLD, NEW):
        await lab.see(ReplicaState.LOOPING, model)
    assert (await lab.step()).progress.state is State.RUNNING
    await lab.see(ReplicaState.READY, OLD)
    back = await lab.step()
    assert (back.progress.state, back.said) == (
        State.ROLLED_BACK,
        "no replica of the candidate runs",
    )


async def test_an_override_ends_what_is_kept_and_leaves_the_baseline_deployed(lab: Lab) -> None:
    rollout = await lab.start(strategy="blue_green", steps=(), gates=None, keep_warm="1h")
    await lab.step()
    now_us = lab.clock.now_us()
    async with lab.db.write(lab.ops) as tx:
        spec = FreezeSpec(
            reason="sale",
            starts_at_us=now_us,
            ends_at_us=now_us + 10 * MINUTE,
            override_role="approver",
        )
        await lab.governance.calendar.freeze(tx, "sale", spec)
        await lab.governance.calendar.override(tx, "sale", "chat", "it is urgent")
    async with lab.db.write(lab.ops) as tx:
        done = await lab.steering.promote(tx, rollout.id, "enough")
    assert done.progress.state is State.PROMOTED
    async with lab.db.read(lab.ops) as tx:
        assert len(await lab.endpoints.list_deployments(tx)) == 2
    (note,) = [fact for fact in await lab.facts("note") if "stays deployed" in fact["text"]]
    assert "freeze 'sale'" in note["text"]
    (used,) = await lab.facts("intervention")
    assert (used["what"], used["reason"]) == ("freeze_override", "it is urgent")


async def test_who_goes_on_says_from_which_step(lab: Lab) -> None:
    rollout = await lab.start(keep_warm="1h")
    await lab.step()
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.promote(tx, rollout.id, "seen enough", from_step=0)
    with pytest.raises(PilotageError, match="has left that step: seen enough") as refused:
        async with lab.db.write(lab.ops) as tx:  # somebody else has seen the same step
            await lab.steering.promote(tx, rollout.id, "seen enough", from_step=0)
    assert (refused.value.code, refused.value.param) == ("conflict", "step")
    assert await lab.shares() == {OLD: 5_000, NEW: 5_000}
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.promote(tx, rollout.id, "all of it", from_step=1)
    with pytest.raises(PilotageError, match="has left that step"):
        async with lab.db.write(lab.ops) as tx:
            await lab.steering.promote(tx, rollout.id, "all of it", from_step=1)
    assert (await lab.newest()).progress.state is State.KEEPING


async def test_a_direct_rollout_moves_everything_once_the_candidate_is_ready(lab: Lab) -> None:
    await lab.see(ReplicaState.STARTING)
    await lab.start(strategy="direct", steps=(), gates=None)
    assert (await lab.step()).progress.state is State.PREPARING
    await lab.see(ReplicaState.READY)
    assert (await lab.step()).progress.state is State.PROMOTED
    assert await lab.shares() == {NEW: 10_000}


async def test_an_experiment_ends_with_the_better_one_only(lab: Lab) -> None:
    await lab.start(strategy="ab_test", steps=(), goal="error")
    assert (await lab.step()).weight == 5_000
    lab.measure(candidate=(100, 5_000), baseline=(100, 5_000))
    assert (await lab.step(61)).progress.state is State.RUNNING  # equal is not better
    lab.measure(candidate=(60, 10_000), baseline=(160, 10_000))
    won = await lab.step()
    assert (won.progress.state, await lab.shares()) == (State.PROMOTED, {NEW: 10_000})


async def test_a_shadow_of_worse_answers_ends_rolled_back(lab: Lab) -> None:
    await lab.start(strategy="shadow", steps=(), gates=None, daily="5")
    await lab.step()
    lab.copies.marks = {0: 800, -1_000: 200}
    assert (await lab.step()).progress.state is State.ROLLED_BACK
    assert (await lab.endpoint()).routing.shadow is None


async def test_a_freeze_makes_a_step_wait_and_no_way_back(lab: Lab) -> None:
    await lab.start()
    await lab.step()
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    now_us = lab.clock.now_us()
    async with lab.db.write(lab.ops) as tx:
        spec = FreezeSpec(reason="sale", starts_at_us=now_us, ends_at_us=now_us + 10 * MINUTE)
        await lab.governance.calendar.freeze(tx, "sale", spec)
    waiting = await lab.step(61)
    assert (waiting.progress.step, waiting.weight) == (0, 1_000)
    assert waiting.said.startswith("waits: ")
    await lab.step()
    waits = [fact for fact in await lab.facts("verdict") if fact["reason"] == waiting.said]
    assert len(waits) == 1
    after = await lab.step(600)
    assert (after.progress.step, after.weight) == (1, 5_000)

    lab.measure(candidate=(30, 500), baseline=(3, 500))
    async with lab.db.write(lab.ops) as tx:
        spec = FreezeSpec(reason="sale", starts_at_us=tx.now_us, ends_at_us=tx.now_us + MINUTE)
        await lab.governance.calendar.freeze(tx, "again", spec)
    assert (await lab.step()).progress.state is State.ROLLED_BACK


async def test_a_step_that_waits_is_looked_at_and_writes_nothing_until_it_is_not_due(
    lab: Lab,
) -> None:
    await lab.start()
    await lab.step()
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    async with lab.db.write(lab.ops) as tx:
        spec = FreezeSpec(reason="sale", starts_at_us=tx.now_us, ends_at_us=tx.now_us + 60 * MINUTE)
        await lab.governance.calendar.freeze(tx, "sale", spec)
    assert (await lab.step(61)).said.startswith("waits: ")
    looks = await lab.looks()
    assert looks[-1].judged.looks[0].is_fine
    with lab.count_writes() as writes:
        for _ in range(4):
            lab.clock.advance(1)
            await lab.runner().step()
    assert len(writes) <= 1  # to keep its lease
    await lab.step(61)
    assert len(await lab.looks()) == len(looks) + 1

    lab.measure(candidate=(5, 1_001), baseline=(45, 9_000))
    assert (await lab.step()).said == "there is not enough evidence yet"


async def test_no_rollout_begins_in_a_freeze(lab: Lab) -> None:
    async with lab.db.write(lab.ops) as tx:
        spec = FreezeSpec(reason="sale", starts_at_us=tx.now_us, ends_at_us=tx.now_us + MINUTE)
        await lab.governance.calendar.freeze(tx, "sale", spec)
    with pytest.raises(PilotageError) as refused:
        await lab.start()
    assert refused.value.code == "frozen"


async def test_people_hold_resume_and_go_back_with_a_reason(lab: Lab) -> None:
    await lab.need_approvals()
    rollout = await begin(lab)
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.hold(tx, rollout.id, "I look at it")
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    held = await lab.step(61)
    assert (held.progress.state, held.progress.step) == (State.HELD, 0)
    with pytest.raises(PilotageError, match="is held: I look at it"):
        async with lab.db.write(lab.ops) as tx:
            await lab.steering.hold(tx, rollout.id, "again")
    async with lab.db.write(lab.ops) as tx:
        resumed = await lab.steering.resume(tx, rollout.id, "fine")
    assert "resumed: fine" in [fact["text"] for fact in await lab.facts("note")]
    async with lab.db.read(lab.ops) as tx:
        (event,) = await list_last(tx, ["rollouts.rollout.resumed"], tx.now_us)
    assert (event.object_id, event.rev) == (rollout.id, resumed.rev)
    assert (await lab.step(61)).progress.step == 1
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.roll_back(tx, rollout.id, "complaints")
    assert await lab.shares() == {OLD: 10_000}
    (said,) = await lab.facts("intervention")
    assert (said["what"], said["reason"]) == ("rollback", "complaints")
    with pytest.raises(PilotageError, match="rolled_back: complaints"):
        async with lab.db.write(lab.ops) as tx:
            await lab.steering.roll_back(tx, rollout.id, "again")


async def test_going_on_against_the_gates_needs_a_second_person(lab: Lab) -> None:
    await lab.need_approvals()
    rollout = await begin(lab)
    with pytest.raises(PilotageError) as refused:
        async with lab.db.write(lab.ops) as tx:
            await lab.steering.promote(tx, rollout.id, "the fix is urgent")
    assert refused.value.code == "approval_required"
    await lab.approve("rollouts.rollout.promote", rollout.id)
    with pytest.raises(PilotageError) as refused:  # the next step was agreed to, not all traffic
        async with lab.db.write(lab.ops) as tx:
            await lab.steering.promote(tx, rollout.id, "the fix is urgent", to_end=True)
    assert refused.value.code == "approval_required"
    assert "to-end" in refused.value.hint
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.promote(tx, rollout.id, "the fix is urgent")
    assert await lab.shares() == {OLD: 5_000, NEW: 5_000}
    assert [fact["what"] for fact in await lab.facts("intervention")] == ["forced"]
    assert len(await lab.facts("approval")) == 2  # of the start, and of this

    lab.measure(candidate=(0, 5_000), baseline=(0, 5_000))
    lab.clock.advance(61)
    async with lab.db.write(lab.ops) as tx:  # the gates agree: nobody else has to
        done = await lab.steering.promote(tx, rollout.id, "they agree")
    assert done.progress.state is State.PROMOTED


async def test_to_give_up_a_kept_baseline_early_needs_a_second_person(lab: Lab) -> None:
    rollout = await lab.start(strategy="blue_green", steps=(), gates=None, keep_warm="1h")
    assert (await lab.step()).progress.state is State.KEEPING
    await lab.need_approvals()
    with pytest.raises(PilotageError) as refused:
        async with lab.db.write(lab.ops) as tx:
            await lab.steering.promote(tx, rollout.id, "it is well")
    assert refused.value.code == "approval_required"
    await lab.approve("rollouts.rollout.promote", rollout.id)
    async with lab.db.write(lab.ops) as tx:
        ended = await lab.steering.promote(tx, rollout.id, "it is well")
    assert ended.progress.state is State.PROMOTED
    assert len(await lab.facts("approval")) == 1


async def test_what_was_agreed_to_has_the_gates_that_it_had_then(lab: Lab) -> None:
    """Whether there are some of the usual gates depends on what is known of the last day."""
    usual: dict[str, Any] = {"gates": None}
    known = Known(calls_s=2.0, error_share=0.01, slow_us=2_000_000, mean_nano=125_000)
    lab.past.known = known
    await lab.need_approvals()
    with pytest.raises(PilotageError) as refused:
        await lab.start(**usual)
    asked = shlex.split(refused.value.hint.partition("request ")[2])
    await lab.approve(asked[0], asked[1])
    lab.past.known = Known(calls_s=0.001)
    with pytest.raises(PilotageError) as refused:
        await lab.start(**usual)
    assert refused.value.code == "approval_required"
    lab.past.known = replace(known, slow_us=3_000_000)
    assert len((await lab.start(**usual)).plan.gates) == 5


async def test_a_step_that_waits_for_a_person_is_held_and_goes_on_by_hand(lab: Lab) -> None:
    steps = (StepSpec(weight="10%", at_least="1m", approval=True), StepSpec(weight="50%"))
    rollout = await lab.start(steps=steps)
    await lab.step()
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    held = await lab.step(61)
    assert (held.progress.state, held.weight) == (State.HELD, 1_000)
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.promote(tx, rollout.id, "I agree", to_end=True)
    assert await lab.shares() == {NEW: 10_000}


async def test_what_has_passed_and_waits_for_a_person_needs_no_second_one(lab: Lab) -> None:
    """Evidence near its bound crosses it to and fro: that it was there once is enough."""
    await lab.need_approvals()
    steps = (StepSpec(weight="10%", at_least="10m", approval=True), StepSpec(weight="50%"))
    rollout = await begin(lab, steps=steps)
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    assert (await lab.step(601)).progress.has_passed
    lab.measure(candidate=(5, 1_001), baseline=(45, 9_000))
    await lab.step()
    with pytest.raises(PilotageError) as refused:  # the step after it has shown nothing yet
        async with lab.db.write(lab.ops) as tx:
            await lab.steering.promote(tx, rollout.id, "I agree", to_end=True)
    assert refused.value.code == "approval_required"
    async with lab.db.write(lab.ops) as tx:
        moved = await lab.steering.promote(tx, rollout.id, "I agree")
    assert (moved.progress.step, moved.progress.has_passed) == (1, False)
    assert await lab.facts("intervention") == []


async def test_what_is_held_by_hand_or_decides_again_has_not_passed(lab: Lab) -> None:
    await lab.need_approvals()
    steps = (StepSpec(weight="10%", at_least="10m", approval=True),)
    rollout = await begin(lab, steps=steps)
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))

    async def is_refused() -> bool:
        with pytest.raises(PilotageError) as refused:
            async with lab.db.write(lab.ops) as tx:
                await lab.steering.promote(tx, rollout.id, "I agree")
        return refused.value.code == "approval_required"

    async with lab.db.write(lab.ops) as tx:
        await lab.steering.hold(tx, rollout.id, "I look at it")
    assert await is_refused()
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.resume(tx, rollout.id, "fine")
    assert (await lab.step(601)).progress.has_passed
    async with lab.db.write(lab.ops) as tx:
        await lab.steering.resume(tx, rollout.id, "again")
    assert await is_refused()


async def test_looks_are_kept_when_they_say_something_new_and_once_a_minute(lab: Lab) -> None:
    await lab.start()
    await lab.step()
    for _ in range(5):
        await lab.step()
    assert len(await lab.looks()) == 1
    lab.measure(candidate=(0, 1_000), baseline=(0, 9_000))
    await lab.step()  # the gate says that it is fine, and the minute is not over
    looks = await lab.looks()
    assert [look.judged.looks[0].is_fine for look in looks] == [False, True]
    recorded = await lab.facts("look")
    assert [fact["verdict"] for fact in recorded] == ["fine"]
    await lab.step(50)
    assert len(await lab.looks()) == 2


async def test_a_preview_says_what_it_takes_and_begins_nothing(lab: Lab) -> None:
    lab.past.known = Known(calls_s=2.0, error_share=0.01, slow_us=2_000_000, mean_nano=125_000)
    ask = Ask(endpoint="chat", candidate="1.1.0", plan=PlanSpec(), reason="")
    async with lab.db.read(lab.ops) as tx:
        preview = await lab.service.preview(tx, ask)
    assert [gate.name for gate in preview.plan.gates] == [
        *("error", "lost", "latency", "slow", "cost")
    ]
    errors = [item for item in preview.forecasts if item.gate == "error"]
    assert [item.step for item in errors] == [0, 1, 2]
    assert errors[0].pass_s == pytest.approx(errors[0].units_to_pass / 2, rel=0.01)
    assert errors[2].units_to_pass < errors[0].units_to_pass
    assert preview.subject == 'chat {"candidate":"tiny@1.1.0"}'
    async with lab.db.read(lab.ops) as tx:
        assert not await lab.service.list(tx)


async def test_a_version_that_two_models_have_names_no_candidate(lab: Lab) -> None:
    registry = RegistryService(lab.clock, lab.governance)
    async with lab.db.write(lab.ops) as tx:
        await registry.create_model(tx, "twin", "small")
        await registry.create_version(tx, "twin", "1.1.0", "1" * 64)
        await lab.endpoints.deploy(tx, "chat", "twin@1.1.0")
    for name, code, hint in (
        ("1.1.0", "conflict", "Say which: tiny@1.1.0, twin@1.1.0."),
        ("2.0.0", "not_found", "There are: tiny@1.0.0, tiny@1.1.0, twin@1.1.0."),
    ):
        with pytest.raises(PilotageError) as refused:
            async with lab.db.read(lab.ops) as tx:
                await lab.service.preview(
                    tx, Ask(endpoint="chat", candidate=name, plan=PlanSpec(), reason="")
                )
        assert refused.value.code == code
        assert hint in refused.value.hint


async def begin(lab: Lab, **plan: Any) -> Rollout:  # noqa: ANN401
    """Begin a rollout that others have agreed to, and let it take its first step."""
    with pytest.raises(PilotageError) as refused:
        await lab.start(**plan)
    asked = shlex.split(refused.value.hint.partition("request ")[2])
    await lab.approve(asked[0], asked[1])
    rollout = await lab.start(**plan)
    await lab.step()
    return rollout

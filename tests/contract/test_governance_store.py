"""Approvals, the change calendar and decision records on both databases."""

from typing import Any

import pytest

import stores
from governed import DAY_US, HOUR_US, World, make_world
from pilotage.core.errors import PilotageError
from pilotage.governance.types import (
    Approval,
    ApprovalState,
    DecisionKind,
    Repeat,
    Verdict,
)
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.outbox import read_revisions


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> World:
    return await make_world(database, clock)


# approvals


async def test_what_somebody_else_approved_may_be_done_once(world: World) -> None:
    asked = await world.ask(evidence=("sha256:ab",))
    approved = await world.vote("approves", asked, Verdict.APPROVE)

    used = await world.use()

    assert (asked.state, approved.state, used.state) == ("pending", "approved", "used")
    assert used.id == asked.id
    assert (approved.votes[0].by, approved.votes[0].reason) == (
        world.people["approves"],
        "looked at it",
    )
    async with world.db.read(world.act("asks")) as tx:
        assert await world.service.approvals.get(tx, asked.id) == used
    again = await world.refuse()
    assert again.code == "approval_required"
    assert f"{asked.id} is used" in again.detail


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("asks", "Whoever asks"),
        ("author", "Whoever made"),
        ("admin", "of the role 'approver'"),
        ("nobody", "of the role 'approver'"),
        ("robot", "needs a person"),
    ],
)
async def test_who_may_not_approve(world: World, who: str, why: str) -> None:
    asked = await world.ask()

    with pytest.raises(PilotageError) as refused:
        await world.vote(who, asked, Verdict.APPROVE)

    assert refused.value.code == "permission_denied"
    assert why in refused.value.detail
    assert (await world.refuse()).code == "approval_required"


@pytest.mark.parametrize(
    ("maker", "puppet"),
    [("asks", "approves"), ("approves", "asks"), ("also", "approves"), ("approves", "also")],
)
async def test_nobody_is_two_people(world: World, maker: str, puppet: str) -> None:
    principals = world.identity.principals
    async with world.db.write(world.act(maker)) as tx:
        made = await principals.issue(tx, world.people[puppet])
    async with world.db.write(world.act(puppet)) as tx:
        own = await principals.rotate_own(tx, made.credential.id, 0)
    asked = await world.vote("also", await world.ask(needed=2), Verdict.APPROVE)

    with pytest.raises(PilotageError) as refused:
        await world.vote("approves", asked, Verdict.APPROVE)

    assert refused.value.code == "permission_denied"
    assert "made a credential of the other" in refused.value.detail
    world.clock.advance(60)
    async with world.db.write(SYSTEM) as tx:
        await principals.revoke_credential(tx, own.credential.id)
    if puppet == "approves":  # known by nothing that another made: it can be nobody else
        assert (await world.vote("approves", asked, Verdict.APPROVE)).state == "approved"
    else:  # what was said then may have been said by the maker
        with pytest.raises(PilotageError):
            await world.vote("approves", asked, Verdict.APPROVE)


async def test_an_approval_is_bound_to_what_was_asked(world: World) -> None:
    await world.approved()
    world.state["stage"] = "archived"

    refused = await world.refuse()

    assert "it has changed since" in refused.detail
    world.state["stage"] = "staging"
    assert (await world.use()).state is ApprovalState.USED


async def test_an_approval_expires(world: World) -> None:
    asked = await world.approved(ttl_us=HOUR_US)
    world.clock.advance(3_600)

    assert f"{asked.id} is expired" in (await world.refuse()).detail


@pytest.mark.parametrize(
    ("who", "verdict", "state"),
    [
        ("asks", Verdict.WITHDRAW, "withdrawn"),
        ("approves", Verdict.REVOKE, "revoked"),
    ],
)
async def test_an_approval_can_be_taken_back(
    world: World, who: str, verdict: Verdict, state: str
) -> None:
    ended = await world.vote(who, await world.approved(), verdict)

    assert ended.state == state
    assert f"is {state}" in (await world.refuse()).detail


async def test_two_eyes_more_if_that_is_asked_for(world: World) -> None:
    once = await world.approved(needed=2)
    assert once.state is ApprovalState.PENDING
    assert "waits for 1 of 2" in (await world.refuse()).detail

    twice = await world.vote("also", once, Verdict.APPROVE)

    assert twice.state is ApprovalState.APPROVED
    assert (await world.use(needed=2)).id == once.id


async def test_fewer_approvers_or_another_role_than_needed_do_not_count(world: World) -> None:
    await world.approved()

    assert "needs 2 approvals" in (await world.refuse(needed=2)).detail
    assert "needs security" in (await world.refuse(role="security")).detail


async def test_another_action_has_its_own_approvals(world: World) -> None:
    await world.approved()

    refused = await world.refuse(action="registry.version.promote:staging")

    assert "nobody has asked" in refused.detail
    assert "pilotage approvals request registry.version.promote:staging" in refused.hint


async def test_what_nobody_registered_cannot_be_asked(world: World) -> None:
    with pytest.raises(PilotageError) as refused:
        await world.ask(action="finops.price.set")

    assert refused.value.code == "invalid_request"
    assert "registry.version.promote" in refused.value.hint


async def test_an_approval_is_used_by_one_of_several(world: World) -> None:
    await world.approved()

    won, lost = await stores.race(world.db, world.act("asks"), world.require)

    assert len(won) == 1
    assert {getattr(error, "code", "") for error in lost} <= {"approval_required", "conflict"}
    assert len(lost) == 3


async def test_approving_and_withdrawing_at_once_has_one_outcome(world: World) -> None:
    asked = await world.ask()
    turns = iter([("approves", Verdict.APPROVE), ("asks", Verdict.WITHDRAW)] * 2)

    async def say(tx: Tx) -> Approval:
        who, verdict = next(turns)
        mine = Tx(
            conn=tx.conn,
            actor=world.act(who),
            now_us=tx.now_us,
            dialect=tx.dialect,
            written=tx.written,
        )
        return await world.service.approvals.vote(mine, asked.id, verdict, "at once")

    won, lost = await stores.race(world.db, world.act("asks"), say)

    async with world.db.read(world.act("asks")) as tx:
        stands = await world.service.approvals.get(tx, asked.id)
    assert stands == won[-1] or stands in won
    assert stands.state in {ApprovalState.APPROVED, ApprovalState.WITHDRAWN}
    assert len(stands.votes) == len(won)
    assert {getattr(error, "code", "") for error in lost} == {"conflict"}


async def test_another_project_sees_no_approval(world: World) -> None:
    asked = await world.approved()
    elsewhere = Actor(principal_id=world.people["asks"], project_id="prj_other")

    async with world.db.read(elsewhere) as tx:
        assert list(await world.service.approvals.list(tx)) == []
        with pytest.raises(PilotageError) as missing:
            await world.service.approvals.get(tx, asked.id)
        with pytest.raises(PilotageError) as refused:
            await world.require(tx)
    assert missing.value.code == "not_found"
    assert "nobody has asked" in refused.value.detail


# calendar


async def check(world: World, who: str, subject: str) -> None:
    async with world.db.write(world.act(who)) as tx:
        await world.service.check_calendar(tx, "endpoints.endpoint.split", subject)


async def is_frozen(world: World, subject: str, who: str = "asks") -> bool:
    try:
        await check(world, who, subject)
    except PilotageError as refused:
        return refused.code == "frozen"
    return False


async def test_nothing_changes_during_a_freeze(world: World) -> None:
    await world.freeze()

    with pytest.raises(PilotageError) as refused:
        await check(world, "asks", "chat")

    assert "'year-end' lasts until 2023-11-15T22:13:20.000000Z (year end)" in refused.value.detail
    world.clock.advance(86_400)
    assert not await is_frozen(world, "chat")


async def test_a_freeze_may_be_of_some_names(world: World) -> None:
    await world.freeze(names=("chat", "tiny"))

    assert await is_frozen(world, "chat")
    assert await is_frozen(world, "tiny@1.0.0")
    assert not await is_frozen(world, "other")


async def test_a_weekly_freeze_comes_again(world: World) -> None:
    await world.freeze(repeat=Repeat.WEEKLY, until_us=world.clock.now_us() + 8 * DAY_US)

    frozen = []
    for _ in range(22):
        frozen.append(await is_frozen(world, "chat"))
        world.clock.advance(86_400)
    assert [day for day, holds in enumerate(frozen) if holds] == [0, 7]


async def test_a_freeze_is_lifted_for_a_reason_and_on_record_if_it_holds(world: World) -> None:
    await world.freeze()
    with pytest.raises(PilotageError) as refused:
        async with world.db.write(world.act("ops", "")) as tx:
            await world.service.calendar.lift(tx, "year-end")
    assert refused.value.param == "reason"
    async with world.db.write(world.act("ops", "closed early")) as tx:
        await world.service.calendar.lift(tx, "year-end")
    await world.freeze(starts_at_us=world.clock.now_us() + 1)
    async with world.db.write(world.act("ops")) as tx:
        await world.service.calendar.lift(tx, "year-end")

    async with world.db.read(world.act("asks")) as tx:
        ((decision, fact),) = await world.service.decisions.list_interventions(tx)
    assert (decision.kind, decision.subject, decision.reason) == (
        "lift",
        "year-end",
        "closed early",
    )
    assert fact.content["by"] == world.people["ops"]


async def test_a_lifted_freeze_holds_nothing_and_frees_its_name(world: World) -> None:
    await world.freeze()
    async with world.db.write(world.act("ops")) as tx:
        await world.service.calendar.lift(tx, "year-end")

    assert not await is_frozen(world, "chat")
    await world.freeze()
    assert await is_frozen(world, "chat")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"time_zone": "Europe/Atlantis"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"override_role": "king"}, "override_role"),
        ({"ends_at_us": 0}, "ends_at"),
        ({"reason": ""}, "reason"),
    ],
)
async def test_a_freeze_that_cannot_be_is_refused(
    world: World, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(PilotageError) as refused:
        await world.freeze(**more)

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


async def test_a_name_is_for_one_freeze(world: World) -> None:
    await world.freeze()

    with pytest.raises(PilotageError) as refused:
        await world.freeze()

    assert refused.value.code == "already_exists"


async def test_an_override_lets_one_person_change_one_thing_once(world: World) -> None:
    await world.freeze(override_role="ml_ops")
    with pytest.raises(PilotageError) as refused:
        async with world.db.write(world.act("asks")) as tx:
            await world.service.calendar.override(tx, "year-end", "chat", "outage")
    assert refused.value.code == "permission_denied"

    async with world.db.write(world.act("ops")) as tx:
        await world.service.calendar.override(tx, "year-end", "chat", "outage 17")

    assert await is_frozen(world, "chat", "asks")
    assert await is_frozen(world, "other", "ops")
    assert not await is_frozen(world, "chat", "ops")
    assert await is_frozen(world, "chat", "ops")


# decision records


async def test_a_record_says_who_changed_what_and_why(world: World) -> None:
    async with world.db.write(world.act("asks", "faster")) as tx:
        made = await world.record(tx, evidence=("sha256:ab",))

    async with world.db.read(world.act("asks")) as tx:
        decision = await world.service.get_decision(tx, made)
        assert list(await world.service.list_decisions(tx)) == [decision]
        (revision,) = await read_revisions(tx, 0, 10)
    assert (decision.by, decision.reason, decision.at_us) == (
        world.people["asks"],
        "faster",
        world.clock.now_us(),
    )
    assert decision.before == {"split": {"dep_1": 10_000}}
    assert (decision.rev, decision.seq, decision.evidence) == (1, revision.seq, ("sha256:ab",))
    assert (revision.event, revision.object_id) == ("governance.decision.recorded", made)


async def test_facts_are_appended_in_order_and_counted(world: World) -> None:
    async with world.db.write(world.act("asks")) as tx:
        made = await world.record(tx)
        await world.service.add_fact(tx, made, "note", {"text": "one"})
    async with world.db.write(world.act("ops")) as tx:
        await world.service.add_fact(
            tx, made, "cost", {"what": "rollout", "cost_nano": 5} | {"is_estimated": True}
        )

    async with world.db.read(world.act("asks")) as tx:
        decision = await world.service.get_decision(tx, made)
        facts = await world.service.decisions.list_facts(tx, made)
    assert decision.rev == 3
    assert [(fact.number, fact.kind, fact.by) for fact in facts] == [
        (1, "note", world.people["asks"]),
        (2, "cost", world.people["ops"]),
    ]
    assert facts[1].content == {
        "what": "rollout",
        "cost_nano": 5,
        "is_estimated": True,
        "basis": "",
    }


async def test_facts_added_at_once_are_all_there(world: World) -> None:
    async with world.db.write(world.act("asks")) as tx:
        made = await world.record(tx)

    won, lost = await stores.race(
        world.db,
        world.act("ops"),
        lambda tx: world.service.add_fact(tx, made, "note", {"text": "at once"}),
    )

    assert lost == []
    assert sorted(fact.number for fact in won) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("rumour", {}, "no kind of fact"),
        ("note", {}, "text"),
        ("note", {"text": 5}, "text"),
        ("note", {"text": "a", "more": 1}, "more"),
    ],
)
async def test_a_fact_has_the_form_of_its_kind(
    world: World, kind: str, content: dict[str, Any], said: str
) -> None:
    async with world.db.write(world.act("asks")) as tx:
        made = await world.record(tx)
        with pytest.raises(PilotageError) as refused:
            await world.service.add_fact(tx, made, kind, content)

    assert refused.value.code == "invalid_request"
    assert said in refused.value.detail


async def test_the_approval_and_the_override_that_were_used_are_facts(world: World) -> None:
    asked = await world.approved()
    await world.freeze(override_role="ml_ops")
    async with world.db.write(world.act("ops")) as tx:
        taken = await world.service.calendar.override(tx, "year-end", "chat", "outage 17")
    async with world.db.write(world.act("ops")) as tx:
        await world.service.check_calendar(tx, "endpoints.endpoint.split", "chat")
        await world.require(tx)
        made = await world.record(tx)

    async with world.db.read(world.act("asks")) as tx:
        facts = await world.service.decisions.list_facts(tx, made)
        used = await world.service.approvals.get(tx, asked.id)
        ((decision, fact),) = await world.service.decisions.list_interventions(tx)
    assert [item.kind for item in facts] == ["approval", "intervention"]
    assert facts[0].content["approval_id"] == asked.id
    assert [vote["by"] for vote in facts[0].content["votes"]] == [world.people["approves"]]
    assert used.decision_id == decision.id == made
    assert (fact.content["what"], fact.content["reason"]) == ("freeze_override", "outage 17")
    assert fact.content["detail"] == taken.freeze_id


@pytest.mark.parametrize(
    ("more", "what"),
    [({"is_forced": True}, "forced"), ({"kind": DecisionKind.ROLLBACK}, "rollback")],
)
async def test_what_a_person_overruled_is_in_the_log(
    world: World, more: dict[str, Any], what: str
) -> None:
    async with world.db.write(world.act("ops", "it burns")) as tx:
        await world.record(tx)
        made = await world.record(tx, **more)

    async with world.db.read(world.act("asks")) as tx:
        ((decision, fact),) = await world.service.decisions.list_interventions(tx)
    assert decision.id == made
    assert (fact.content["what"], fact.content["reason"]) == (what, "it burns")


async def test_decisions_are_listed_in_order_and_narrowed(world: World) -> None:
    made = []
    for number, who in enumerate(("asks", "ops", "asks")):
        async with world.db.write(world.act(who)) as tx:
            made.append(await world.record(tx, subject=f"chat-{number}"))
    listed = world.service.decisions.list

    async with world.db.read(world.act("asks")) as tx:
        every = await listed(tx)
        assert [item.id for item in every] == made
        assert [item.id for item in await listed(tx, every[0].seq, 1)] == made[1:2]
        assert [item.id for item in await listed(tx, by=world.people["ops"])] == made[1:2]
        assert [item.id for item in await listed(tx, subject="chat-2")] == made[2:]
        assert [item.id for item in await listed(tx, limit=2, is_newest=True)] == made[1:]
        assert list(await listed(tx, kinds=(DecisionKind.ROUTE,))) == []
    async with world.db.read(SYSTEM) as tx:
        assert [item.id for item in await listed(tx)] == made

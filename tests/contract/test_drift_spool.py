"""Measures, references and feedback from real spool folders, on both databases."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from calls import make_call, open_writer
from pilotage.audit.holds import HoldService
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Feedback, Frame, Measured, encode_frame
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.users import Users
from pilotage.finops.worker import LedgerReader
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.sealing import post
from pilotage.kit.secrets import Vault
from pilotage.monitoring.drift import store as drift_store
from pilotage.monitoring.drift.rules import KEPT_US, SPAN_US, floor
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import (
    AnswerKey,
    Cells,
    Comparison,
    Held,
    Measure,
    Place,
    Reference,
)
from pilotage.monitoring.drift.worker import MeasureSink, ReferenceKeeper
from pilotage.monitoring.quality import store as quality_store
from pilotage.monitoring.quality.rules import KEPT_US as OPINIONS_KEPT_US
from pilotage.monitoring.quality.rules import UNKNOWN_KEPT_US, WAITS_US, make_opinions
from pilotage.monitoring.quality.service import QualityService
from pilotage.monitoring.quality.types import COMMENT, FeedbackState, Grouping, Quality, Said
from pilotage.monitoring.quality.worker import FeedbackMatcher, FeedbackSink
from pilotage.monitoring.rollups.service import CallBatch, CallSink, RollupService
from pilotage.monitoring.rollups.worker import RollupReader
from stores import Projects, make_projects


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
    """A spool, what reads it, and the services behind."""

    database: Database
    clock: ManualClock
    root: Path
    projects: Projects
    drift: DriftService
    quality: QualityService
    vault: Vault
    breaking: Breaking
    reader: RollupReader
    made: int = 0

    @property
    def holds(self) -> HoldService:
        return HoldService(self.clock)

    def call(self, **more: object) -> Ended:
        self.made += 1
        values = {
            "call_id": f"call_{self.made}",
            "project_id": self.projects.mine.project_id,
            "at_us": self.clock.now_us(),
            "model": "tiny@1.0.0",
        }
        return make_call(**(values | more))

    def say(self, call_id: str, **more: object) -> Feedback:
        self.made += 1
        said = Feedback(
            call_id=call_id,
            at_us=self.clock.now_us(),
            feedback_id=f"fbk_{self.made:04d}",
            project_id=self.projects.mine.project_id or "",
            tenant_id="ten_a",
            key_id="key",
        )
        return msgspec.structs.replace(said, **more)

    async def spool(self, frames: Sequence[Frame]) -> None:
        with open_writer(self.root) as writer:
            for frame in frames:
                writer.append(encode_frame(frame))
        while await self.reader.step():
            pass

    async def charge(self, calls: Sequence[Ended]) -> None:
        """Write calls into the ledger."""
        finops = FinopsService(self.clock)
        async with self.database.write(SYSTEM) as tx:
            place = await finops.get_place(tx, "ledger", "1")
            charges = [make_charge(call, "ledger") for call in calls]
            await finops.record(tx, place, place.seq + 1, charges)

    async def match(self) -> None:
        matcher = FeedbackMatcher(self.database, self.quality, self.clock, self.holds.is_held)
        while await matcher.step():
            pass

    async def opinions(self, actor: Actor = SYSTEM) -> Sequence[Said]:
        async with self.database.read(actor) as tx:
            return await self.quality.list_feedback(tx)

    async def judge(self, *by: Grouping, actor: Actor = SYSTEM) -> list[Quality]:
        async with self.database.read(actor) as tx:
            return await self.quality.read_quality(tx, by, 0, tx.now_us + 1)

    async def cells(self) -> Cells:
        async with self.database.read(SYSTEM) as tx:
            return await drift_store.list_cells(tx, 0, 2**60)

    async def freeze_ripe(self) -> list[Reference]:
        await ReferenceKeeper(self.database, self.drift).step()
        async with self.database.read(SYSTEM) as tx:
            return list(await self.drift.list_references(tx))

    async def compare(self, actor: Actor = SYSTEM) -> list[Comparison]:
        async with self.database.read(actor) as tx:
            return await self.drift.compare(tx, tx.now_us)


@pytest.fixture
async def lab(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Lab]:
    drift, breaking, root = DriftService(clock), Breaking(), tmp_path / "spool"
    vault = Vault(open_root_keys(tmp_path / "root.key"))
    quality = QualityService(clock, finops=FinopsService(clock), drift=drift, vault=vault)
    sinks: list[CallSink] = [MeasureSink(drift), FeedbackSink(quality), breaking]
    reader = RollupReader(database, root, RollupService(), clock, sinks=sinks, batch=400)
    projects = await make_projects(database, clock)
    clock.advance(SPAN_US / 1e6 - floor(clock.now_us()) % SPAN_US / 1e6 + 60)
    yield Lab(database, clock, root, projects, drift, quality, vault, breaking, reader)
    await reader.close()


def count(cells: Cells, measure: Measure) -> int:
    return sum(held.count for place, held in cells.items() if place.measure is measure)


async def test_measures_count_exactly_once_whatever_fails_in_between(lab: Lab) -> None:
    calls = [lab.call(finish_reason="stop", duration_us=number) for number in range(1, 1001)]
    measured = Measured(
        call_id="call_1",
        at_us=lab.clock.now_us(),
        project_id=calls[0].project_id,
        tenant_id="ten_a",
        alias="chat",
        version_id="ver_1",
        model="tiny@1.0.0",
        answer_letters=12,
        answer_language="en",
    )
    lab.breaking.left = 2
    for _ in range(3):
        await lab.spool([*calls, measured] if not lab.root.exists() else [])
        lab.clock.advance(1)
    cells = await lab.cells()
    assert lab.breaking.left == 0
    assert count(cells, Measure.DURATION) == count(cells, Measure.FINISH_REASON) == 1000
    assert count(cells, Measure.REFUSAL) == count(cells, Measure.ANSWER_LETTERS) == 1


async def test_a_reference_freezes_by_itself_and_a_shift_is_seen(lab: Lab) -> None:
    await lab.spool([lab.call(duration_us=1000 + n % 900) for n in range(1200)])
    assert await lab.freeze_ripe() == []  # the running half hour may grow still
    lab.clock.advance(SPAN_US / 1e6)
    [reference] = await lab.freeze_ripe()
    assert reference.is_automatic
    assert reference.measures[Measure.DURATION].held.count == 1200
    assert set(reference.measures) == {
        Measure.PROMPT_TOKENS,
        Measure.ANSWER_TOKENS,
        Measure.FINISH_REASON,
        Measure.DURATION,
        Measure.TTFT,
    }
    await lab.spool([lab.call(duration_us=1000 + 3 * n) for n in range(300)])
    [found] = await lab.compare()
    assert {moved.measure for moved in found.shifts} == set(reference.measures)
    assert not any(moved.shift.is_shifted for moved in found.shifts)
    await lab.spool([lab.call(duration_us=9000, finish_reason="length") for _ in range(600)])
    [found] = await lab.compare()
    shifted = {moved.measure for moved in found.shifts if moved.shift.is_shifted}
    assert shifted == {Measure.DURATION, Measure.FINISH_REASON}
    assert await lab.compare(lab.projects.other) == []
    assert len(await lab.freeze_ripe()) == 1


async def test_a_person_freezes_another_and_nothing_changes_it_by_itself(lab: Lab) -> None:
    await lab.spool([lab.call() for _ in range(1200)])
    lab.clock.advance(SPAN_US / 1e6)
    [first] = await lab.freeze_ripe()
    await lab.spool([lab.call(finish_reason="length") for _ in range(1100)])
    lab.clock.advance(SPAN_US / 1e6)
    since_us = floor(lab.clock.now_us()) - SPAN_US
    async with lab.database.write(lab.projects.mine) as tx:
        chosen = await lab.drift.freeze(tx, "chat", "tiny@1.0.0", since_us)
    assert (chosen.id, chosen.rev, chosen.is_automatic) == (first.id, 2, False)
    assert chosen.measures[Measure.FINISH_REASON].held.words == {"length": 1100}
    assert await lab.freeze_ripe() == [chosen]
    async with lab.database.write(lab.projects.other) as tx:
        with pytest.raises(PilotageError, match="There is no reference"):
            await lab.drift.delete_reference(tx, chosen.id)
    async with lab.database.write(lab.projects.mine) as tx:
        await lab.drift.delete_reference(tx, chosen.id)
    assert [item.is_automatic for item in await lab.freeze_ripe()] == [True]


async def count_all(lab: Lab, since_us: int, values: int) -> None:
    """Count values of every measure from a time on, of one version."""
    key = AnswerKey(lab.projects.mine.project_id or "", "chat", "ver_1", "tiny@1.0.0")
    cells: Cells = {}
    for measure in Measure:
        held = cells.setdefault(Place(key, measure, floor(since_us)), Held())
        for value in range(values):
            held.numbers.add(value)
    async with lab.database.write(SYSTEM) as tx:
        await lab.drift.record(tx, cells)


async def test_what_is_frozen_stays_as_it_is(lab: Lab) -> None:
    for _ in range(3):
        await count_all(lab, lab.clock.now_us(), 600)
        lab.clock.advance(SPAN_US / 1e6)
    [frozen] = await lab.freeze_ripe()
    assert set(frozen.measures) == set(Measure)
    for _ in range(3):
        await count_all(lab, lab.clock.now_us(), 600)
        lab.clock.advance(KEPT_US / 3e6)
        assert await lab.freeze_ripe() == [frozen]


async def test_a_reference_that_cannot_be_written_holds_nobody_up(lab: Lab) -> None:
    await lab.spool([lab.call(project_id="prj_0_made_up") for _ in range(1200)])
    await lab.spool([lab.call() for _ in range(1200)])
    await count_all(lab, lab.clock.now_us() - KEPT_US - 2 * SPAN_US, 1)
    lab.clock.advance(SPAN_US / 1e6)
    [frozen] = await lab.freeze_ripe()
    assert frozen.project_id == lab.projects.mine.project_id
    assert min(place.at_us for place in await lab.cells()) > lab.clock.now_us() - KEPT_US


async def test_of_two_versions_of_one_name_the_id_decides(lab: Lab) -> None:
    await lab.spool([lab.call(version_id=f"ver_{number % 2 + 1}") for number in range(2400)])
    lab.clock.advance(SPAN_US / 1e6)
    async with lab.database.write(lab.projects.mine) as tx:
        with pytest.raises(PilotageError, match="Several versions called") as several:
            await lab.drift.freeze(tx, "chat", "tiny@1.0.0")
        assert "ver_1, ver_2" in several.value.hint
        assert (await lab.drift.freeze(tx, "chat", "ver_2")).version_id == "ver_2"


async def test_a_batch_of_old_and_new_calls_grows_each_of_its_spans(lab: Lab) -> None:
    now_us = lab.clock.now_us()
    for _ in range(2):
        await lab.spool([lab.call(at_us=at_us) for at_us in (0, now_us - 30 * SPAN_US, now_us)])
    durations = {
        place.at_us: held.count
        for place, held in (await lab.cells()).items()
        if place.measure is Measure.DURATION
    }
    assert durations == {0: 2, floor(now_us - 30 * SPAN_US): 2, floor(now_us): 2}


async def test_too_few_calls_and_unknown_versions_are_refused(lab: Lab) -> None:
    await lab.spool([lab.call() for _ in range(999)])
    lab.clock.advance(SPAN_US / 1e6)
    async with lab.database.write(lab.projects.mine) as tx:
        with pytest.raises(PilotageError, match="too few answers by tiny"):
            await lab.drift.freeze(tx, "chat", "ver_1")
        with pytest.raises(PilotageError, match="has answered no calls") as unknown:
            await lab.drift.freeze(tx, "chat", "tiny@2.0.0")
    assert "tiny@1.0.0" in unknown.value.hint


async def test_what_is_old_is_dropped_and_references_stay(lab: Lab) -> None:
    await lab.spool([lab.call() for _ in range(1000)])
    lab.clock.advance(SPAN_US / 1e6)
    assert len(await lab.freeze_ripe()) == 1
    lab.clock.advance(KEPT_US / 1e6 + 1)
    assert len(await lab.freeze_ripe()) == 1
    assert await lab.cells() == {}
    assert [found.shifts for found in await lab.compare()] == [()]


async def test_the_ledger_passes_over_what_became_known_of_answers(
    lab: Lab, tmp_path: Path
) -> None:
    measured = Measured(call_id="call_1", at_us=1, project_id="p", tenant_id="t", alias="chat")
    with open_writer(lab.root) as writer:
        for frame in (lab.call(), measured, lab.say("call_1", score=1), lab.call()):
            writer.append(encode_frame(frame))
    ledger = LedgerReader(
        lab.database,
        lab.root,
        service=FinopsService(lab.clock),
        users=Users(Vault(open_root_keys(tmp_path / "root.key"))),
        clock=lab.clock,
        retention_us=KEPT_US,
    )
    await ledger.step()
    await ledger.close()
    assert (ledger.counts.written, ledger.health.passed_over) == (2, 0)


async def test_feedback_finds_its_call_and_nobody_elses(lab: Lab) -> None:
    calls = [lab.call() for _ in range(3)] + [lab.call(tenant_id="ten_b")]
    ids = [call.call_id for call in calls]
    await lab.spool(
        [
            *calls,
            lab.say(ids[0], score=1_000_000, label="correct"),
            lab.say(ids[1], score=0, label="wrong"),
            lab.say(ids[3], score=0, label="wrong"),  # a call of another tenant
            lab.say("call_none", score=0, label="toxic"),
        ]
    )
    await lab.match()
    assert {one.state for one in await lab.opinions()} == {FeedbackState.WAITING}
    assert await lab.judge() == []
    await lab.charge(calls)
    lab.clock.advance(2)
    await lab.match()
    states = [one.state.value for one in await lab.opinions()]
    assert states == ["matched", "matched", "unknown", "waiting"]
    [found] = await lab.judge(Grouping.ALIAS, Grouping.VERSION, Grouping.TENANT)
    assert found.group == ("chat", "ver_1", "ten_a")
    assert found.accuracy is not None
    assert (found.accuracy.value, found.accuracy.n) == (0.5, 2)
    assert found.feedback_score is not None
    assert (found.feedback_score.value, found.feedback_score.n) == (0.5, 2)
    assert found.toxicity_score is None
    assert count(await lab.cells(), Measure.SCORE) == 2
    lab.clock.advance(WAITS_US / 1e6)
    await lab.match()
    assert [one.state.value for one in await lab.opinions()][-1] == "unknown"
    assert await lab.judge(actor=lab.projects.other) == []
    assert await lab.opinions(lab.projects.other) == []


async def test_a_later_opinion_replaces_an_earlier_one(lab: Lab) -> None:
    call = lab.call()
    await lab.charge([call])
    await lab.spool([call, lab.say(call.call_id, score=0, label="wrong")])
    await lab.match()
    await lab.spool([lab.say(call.call_id, score=900_000, label="correct")])
    await lab.spool([lab.say(call.call_id, score=800_000, label="toxic")])
    await lab.match()
    [found] = await lab.judge()
    assert found.accuracy is not None
    assert found.toxicity_score is not None
    assert found.feedback_score is not None
    assert (found.accuracy.value, found.accuracy.n, found.toxicity_score.n) == (1.0, 1, 1)
    assert (found.feedback_score.value, found.feedback_score.n) == (0.8, 1)


async def test_by_whichever_gateway_it_comes_the_last_opinion_counts(lab: Lab) -> None:
    call = lab.call()
    await lab.charge([call])
    first = lab.say(call.call_id, score=100_000, label="wrong", at_us=lab.clock.now_us() - 5)
    second = lab.say(call.call_id, score=900_000, at_us=lab.clock.now_us() - 4)
    third = lab.say(call.call_id, label="correct", at_us=lab.clock.now_us() - 3)
    await lab.spool([call, third])
    await lab.spool([second])
    await lab.spool([first])
    await lab.match()
    [found] = await lab.judge()
    assert found.feedback_score is not None
    assert found.accuracy is not None
    assert (found.feedback_score.value, found.feedback_score.n) == (0.9, 1)
    assert (found.accuracy.value, found.accuracy.n) == (1.0, 1)
    assert [one.id for one in await lab.opinions()] == [second.feedback_id, third.feedback_id]


async def test_a_correction_is_no_further_score_of_drift(lab: Lab) -> None:
    call = lab.call()
    await lab.charge([call])
    for number in range(5):
        await lab.spool([lab.say(call.call_id, score=number)])
        await lab.match()
    [said] = await lab.opinions()
    assert (said.score, said.state) == (4, FeedbackState.MATCHED)
    assert count(await lab.cells(), Measure.SCORE) == 1


async def test_what_was_said_while_nobody_read_counts_all_the_same(lab: Lab) -> None:
    call, late = lab.call(), lab.call()
    said = [
        lab.say(one.call_id, score=1, at_us=lab.clock.now_us() - 86_400_000_000)
        for one in (call, late)
    ]
    await lab.charge([call])
    await lab.spool(said)
    await lab.match()
    states = [FeedbackState.MATCHED, FeedbackState.WAITING]
    assert [one.state for one in await lab.opinions()] == states
    await lab.charge([late])
    lab.clock.advance(WAITS_US / 2e6)
    await lab.match()
    assert [one.state for one in await lab.opinions()] == [FeedbackState.MATCHED] * 2


async def test_feedback_on_calls_that_never_were_holds_up_nobody_elses(lab: Lab) -> None:
    call = lab.call()
    await lab.spool([lab.say(call.call_id, score=1)])
    await lab.spool([lab.say(f"call_none_{number}", score=1) for number in range(2500)])
    await lab.match()
    await lab.charge([call])
    lab.clock.advance(2)
    await lab.spool([lab.say(f"call_none_{number}", label="wrong") for number in range(1500)])
    await lab.match()
    assert (await lab.opinions())[0].state is FeedbackState.MATCHED


async def test_feedback_is_written_by_the_page(lab: Lab) -> None:
    said = [lab.say(f"call_{number}", score=1, label="correct") for number in range(1000)]
    opinions = make_opinions(said)
    for round_ in range(2):
        statements: list[str] = []
        async with lab.database.write(SYSTEM) as tx:
            engine = tx.conn.sync_engine

            def note(*told: object) -> None:
                statements.append(str(told[2]))  # noqa: B023

            sa.event.listen(engine, "before_cursor_execute", note)
            await lab.quality.record(tx, opinions)
            sa.event.remove(engine, "before_cursor_execute", note)
        assert len(opinions) == 2000
        assert 4 <= len(statements) <= 12, (round_, len(statements))
        opinions = [replace(one, at_us=one.at_us + 1) for one in opinions]


async def test_a_feedback_id_that_comes_twice_stops_nothing(lab: Lab) -> None:
    await lab.spool([lab.say(f"call_{number}", score=1, feedback_id="fbk_1") for number in (1, 2)])
    await lab.spool([lab.say("call_3", score=1)])
    assert len(await lab.opinions()) == 2  # the first two go by one name
    async with lab.database.read(SYSTEM) as tx:
        assert len(await quality_store.list_opinions(tx, None, None, "", 10)) == 3


async def test_comments_open_for_their_tenant_and_are_read_with_a_note(lab: Lab) -> None:
    tenants = ("ten_a", "ten_b")
    async with lab.database.write(SYSTEM) as tx:
        boxes = {
            one: (await lab.vault.get_keys(tx, one)).make_letterbox(COMMENT) for one in tenants
        }
        await lab.vault.rotate(tx, "ten_a")
    said = [
        lab.say("call_1", score=1, comment=post(boxes["ten_a"], "ten_a", "fbk_0001", b"dull")),
        lab.say("call_2", score=1, comment=b"no letter at all"),
        lab.say("call_3", score=1, comment=post(boxes["ten_b"], "ten_b", "fbk_0003", b"others")),
        lab.say("call_4", score=1),
    ]
    await lab.spool(said)
    found = list(await lab.opinions())
    assert [one.comment is not None for one in found] == [True, True, True, False]
    async with lab.database.write(SYSTEM) as tx:
        assert await lab.quality.open_comments(tx, found) == {"fbk_0001": "dull"}
        assert len(tx.written) == 1
        assert await lab.quality.open_comments(tx, found[3:]) == {}
        assert len(tx.written) == 1
        await lab.vault.destroy(tx, "ten_a")
        assert await lab.quality.open_comments(tx, found) == {}
        assert await lab.quality.forget(tx, "ten_a") == 3
    assert [one.comment for one in await lab.opinions()] == [None] * 4


async def test_old_feedback_is_dropped(lab: Lab) -> None:
    call = lab.call()
    await lab.charge([call])
    await lab.spool([call, lab.say(call.call_id, score=0), lab.say("call_none", score=0)])
    await lab.match()
    lab.clock.advance(WAITS_US / 1e6)
    await lab.match()
    assert [one.call_id for one in await lab.opinions()] == [call.call_id, "call_none"]
    lab.clock.advance(UNKNOWN_KEPT_US / 1e6)
    await lab.match()
    assert [one.call_id for one in await lab.opinions()] == [call.call_id]
    lab.clock.advance(OPINIONS_KEPT_US / 1e6)
    async with lab.database.write(SYSTEM) as tx:
        await lab.holds.create_hold(tx, "case-1", "a letter")
    await lab.match()
    assert [one.call_id for one in await lab.opinions()] == [call.call_id]
    async with lab.database.write(SYSTEM) as tx:
        await lab.holds.release_hold(tx, "case-1")
    await lab.match()
    assert await lab.opinions() == []

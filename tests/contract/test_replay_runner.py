"""The runner of replays: in order, within the cap, and never against what cannot answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilotage.core.errors import PilotageError
from pilotage.core.samples import Texts
from pilotage.endpoints.types import Deployment
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Actor, Database, Tx
from pilotage.kit.operations import Progress
from pilotage.rollouts.replay.rules import UNHEARD
from pilotage.rollouts.replay.runner import ReplayRunner
from pilotage.rollouts.replay.service import Prepared, ReplayService
from pilotage.rollouts.replay.types import Answer, Kept, Recorded, Replay, ReplayPlan, Report
from stores import Projects, make_projects

WORST = 100


class Samples:
    """So many samples, and so many more that no key opens."""

    def __init__(self, count: int, unopened: int = 0) -> None:
        self.count = count
        self.unopened = unopened

    async def read(self, tx: Tx, alias: str, since_us: int, limit: int) -> Kept:
        body = {"messages": [{"role": "user", "content": "When?"}]}
        calls = [
            Recorded(id=f"smp_{n}", tenant_id=f"ten_{n % 2}", texts=Texts(body=body, answer="Now"))
            for n in range(min(self.count, limit))
        ]
        return Kept(calls, self.unopened)


class Told:
    """Deployments that answer as told, the second tenant's requests not allowed if so."""

    def __init__(self, *, code: str = "", baseline: str = "", bars_second: bool = False) -> None:
        self.code = code
        self.baseline = baseline
        self.bars_second = bars_second
        self.asked: list[tuple[str, str]] = []
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Told"]:
        self.opened += 1
        yield self

    def bound(
        self, project_id: str, tenant_id: str, alias: str, arm: str, body: dict[str, Any]
    ) -> int | None:
        assert (body["temperature"], body["model"]) == (0, alias)
        is_barred = self.bars_second and (tenant_id, arm) == ("ten_1", "dep_b")
        return None if is_barred else WORST

    async def ask(
        self, project_id: str, tenant_id: str, alias: str, arm: str, body: dict[str, Any]
    ) -> Answer:
        self.asked.append((tenant_id, arm))
        code = self.code if arm == "dep_b" else self.baseline
        return Answer(text="" if code else "Now", is_refusal=False, code=code, cost_nano=WORST // 2)


class Written(ReplayService):
    """Keeps reports in memory."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    async def record(self, tx: Tx, prepared: Prepared, report: Report) -> Replay:
        self.reports.append(report)
        return Replay(
            id="rpl_1",
            rev=1,
            project_id="prj",
            alias="chat",
            baseline_id="dep_a",
            candidate_id="dep_b",
            version_id="",
            hash=report.hash,
            report="",
            evidence_id="",
            created_at_us=0,
            created_by="",
        )


def make_deployment(deployment_id: str) -> Deployment:
    return Deployment(
        id=deployment_id,
        rev=1,
        project_id="prj",
        endpoint_id="end",
        version_id="",
        model=f"up/{deployment_id}",
        artifact_sha256="",
        engine="",
        context_tokens=0,
        created_at_us=0,
        deleted_at_us=None,
    )


def prepare(samples: int = 10, cap_nano: int = 10**9) -> Prepared:
    plan = ReplayPlan(
        project_id="prj",
        alias="chat",
        baseline="dep_a",
        candidate="dep_b",
        samples=samples,
        cap_nano=cap_nano,
    )
    return Prepared(
        plan=plan,
        baseline=make_deployment("dep_a"),
        candidate=make_deployment("dep_b"),
        judges=True,
    )


@pytest.fixture
async def actor(database: Database, clock: ManualClock) -> Actor:
    projects: Projects = await make_projects(database, clock)
    return projects.mine


async def test_each_sample_is_asked_of_both_one_after_the_other(
    database: Database, actor: Actor
) -> None:
    told, written = Told(), Written()
    ended = await ReplayRunner(database, written, Samples(3), told).run(
        actor, prepare(), Progress()
    )
    [report] = written.reports
    assert [arm for _, arm in told.asked] == ["dep_a", "dep_b"] * 3
    assert (ended["replay"], ended["hash"], ended["pairs"]) == ("rpl_1", report.hash, 3)
    assert ended["cost_nano"] == 3 * WORST
    assert (report.baseline, report.candidate) == ("up/dep_a", "up/dep_b")


async def test_what_may_not_be_asked_or_paid_is_left_out_and_counted(
    database: Database, actor: Actor
) -> None:
    told, written = Told(bars_second=True), Written()
    cap = 3 * WORST  # two pairs may cost 2 * WORST at worst each, and cost WORST
    await ReplayRunner(database, written, Samples(10), told).run(
        actor, prepare(cap_nano=cap), Progress()
    )
    [report] = written.reports
    assert report.pairs == 2
    assert report.left_out == {"beyond the cost cap": 3, "not allowed": 5}
    assert report.baseline_nano + report.candidate_nano <= cap
    assert {tenant for tenant, _ in told.asked} == {"ten_0"}


async def test_a_candidate_that_fails_counts_and_one_that_is_not_there_ends_it(
    database: Database, actor: Actor
) -> None:
    written = Written()
    failing = Told(code="upstream_error")
    await ReplayRunner(database, written, Samples(2), failing).run(actor, prepare(), Progress())
    assert (written.reports[0].candidate_failed, written.reports[0].baseline_failed) == (2, 0)
    absent = Told(code="no_replica")
    with pytest.raises(PilotageError, match="no_replica") as refused:
        await ReplayRunner(database, written, Samples(2), absent).run(actor, prepare(), Progress())
    assert (refused.value.code, len(absent.asked), len(written.reports)) == ("unavailable", 2, 1)


@pytest.mark.parametrize("code", sorted(UNHEARD))
async def test_what_the_baseline_cannot_say_for_reasons_of_its_own_is_no_pair(
    database: Database, actor: Actor, code: str
) -> None:
    told = Told(baseline=code)
    runner = ReplayRunner(database, Written(), Samples(2), told)
    with pytest.raises(PilotageError, match=f"2 baseline {code}") as refused:
        await runner.run(actor, prepare(), Progress())
    assert (refused.value.code, refused.value.hint) == ("conflict", "")
    assert {arm for _, arm in told.asked} == {"dep_a"}


async def test_samples_that_no_key_opens_are_left_out_and_counted(
    database: Database, actor: Actor
) -> None:
    written = Written()
    runner = ReplayRunner(database, written, Samples(2, unopened=3), Told())
    await runner.run(actor, prepare(), Progress())
    assert written.reports[0].left_out == {"no key opens it": 3}
    with pytest.raises(PilotageError, match="3 no key opens it"):
        await ReplayRunner(database, written, Samples(0, unopened=3), Told()).run(
            actor, prepare(), Progress()
        )


async def test_without_samples_nothing_is_opened(database: Database, actor: Actor) -> None:
    told = Told()
    runner = ReplayRunner(database, Written(), Samples(0), told)
    with pytest.raises(PilotageError, match="none is kept"):
        await runner.run(actor, prepare(), Progress())
    assert told.opened == 0

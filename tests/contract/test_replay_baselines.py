"""Which comparisons judge a candidate for gates, on both databases."""

from decimal import Decimal

import pytest

import stores
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.service import EndpointService
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Database
from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.gates import Check, GateFacts, GateState, evaluate
from pilotage.registry.service import RegistryService
from pilotage.rollouts.replay.rules import make_report
from pilotage.rollouts.replay.service import ReplayAsk, ReplayService
from pilotage.rollouts.replay.types import Measure, Outcome

SHA256 = "aa" * 32
GOOD, OLD, NEW = "tiny@1.0.0", "tiny@0.9.0", "tiny@1.1.0"
MARKS = dict.fromkeys(Measure, 1_000)
ALIKE = Outcome(
    input_hash="in",
    output_hash="out",
    baseline=MARKS,
    candidate=MARKS,
    baseline_nano=1,
    candidate_nano=1,
    has_baseline_failed=False,
    has_candidate_failed=False,
)


@pytest.mark.parametrize(
    ("percents", "baseline", "state"),
    [
        ({GOOD: 90, OLD: 10}, "", GateState.PASSED),
        ({GOOD: 90, OLD: 10}, GOOD, GateState.PASSED),
        ({GOOD: 50, OLD: 50}, OLD, GateState.PASSED),
        ({GOOD: 90, OLD: 10}, OLD, GateState.NOT_EVALUATED),
        ({GOOD: 100}, OLD, GateState.NOT_EVALUATED),
        ({}, OLD, GateState.NOT_EVALUATED),
    ],
)
async def test_only_a_comparison_with_what_has_most_traffic_passes_a_gate(
    database: Database,
    clock: ManualClock,
    percents: dict[str, int],
    baseline: str,
    state: GateState,
) -> None:
    projects, registry = await stores.make_projects(database, clock), RegistryService(clock)
    endpoints = EndpointService(clock, IdentityService(clock), registry, AbsentFleet())
    replays = ReplayService(clock, endpoints, registry)
    async with database.write(projects.mine) as tx:
        await registry.create_model(tx, "tiny")
        await registry.artifacts.add_artifact(tx, SHA256, 10, Inspection(architecture="llama"))
        await endpoints.create_endpoint(tx, "chat")
        arms = {}
        for ref in (GOOD, OLD, NEW):
            await registry.create_version(tx, "tiny", ref.partition("@")[2], SHA256)
            arms[ref] = await endpoints.deploy(tx, "chat", ref)
        if percents:
            split = {arms[ref].id: Decimal(share) for ref, share in percents.items()}
            await endpoints.split(tx, "chat", split)
        ask = ReplayAsk(endpoint="chat", candidate=NEW, baseline=baseline)
        prepared = await replays.prepare(tx, ask)
        report = make_report(prepared.plan, prepared.names, [ALIKE] * 200, {})
        replay = await replays.record(tx, prepared, report)
        version = await registry.get_version(tx, NEW)
        evidence = await registry.evidence.list(tx, version.id, "replay")
    assert [item.run_id for item in evidence] == [replay.id]
    facts = GateFacts(version=version, size_bytes=10, evidence=evidence, now_us=clock.now_us())
    for check in (Check(name="replay"), Check(name="replay", min=Decimal("-0.5"))):
        assert evaluate(check, facts).state is state

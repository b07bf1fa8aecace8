"""Evidence of versions on both databases: exact, superseded, in order, with what it came of."""

from decimal import Decimal

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import read_revisions
from pilotage.registry.service import RegistryService
from pilotage.registry.types import EvidenceDraft, Node, NodeKind, VersionDetails

HOSTED = VersionDetails(artifact_uri="gs://models/tiny")
EXACT = Decimal("0.92000000000000000000001")


def measured(value: str | Decimal, subject: str = "accuracy", **more: object) -> EvidenceDraft:
    return EvidenceDraft(
        kind="metric.performance",
        subject=subject,
        value=Decimal(value),
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def service(clock: ManualClock) -> RegistryService:
    return RegistryService(clock)


@pytest.fixture
async def projects(
    database: Database, clock: ManualClock, service: RegistryService
) -> stores.Projects:
    made = await stores.make_projects(database, clock)
    async with database.write(made.mine) as tx:
        await service.create_model(tx, "tiny")
        await service.create_version(tx, "tiny", "1.0.0", None, details=HOSTED)
    return made


async def test_evidence_is_kept_as_it_was_given(
    database: Database, service: RegistryService, projects: stores.Projects, clock: ManualClock
) -> None:
    draft = measured(
        EXACT,
        unit="ratio",
        n=2**40,
        low=Decimal("0.9"),
        high=Decimal("0.93"),
        passed=True,
        hash="ab" * 32,
        run_id="eval-7",
        dataset_version_id="dsv_1",
        tool="suite 1.2",
        note="größer",
        expires_at_us=clock.now_us() + 1,
    )
    async with database.write(projects.mine) as tx:
        added = await service.add_evidence(tx, "tiny@1.0.0", draft)

    async with database.read(projects.mine) as tx:
        version = await service.get_version(tx, "tiny@1.0.0")
        (found,) = await service.list_evidence(tx, version.id)
        lineage = await service.lineage.get_lineage(tx, Node(NodeKind.VERSION, version.id))
    assert found == added
    assert {name: getattr(found, name) for name in EvidenceDraft.__dataclass_fields__} == {
        name: getattr(draft, name) for name in EvidenceDraft.__dataclass_fields__
    }
    assert (found.created_by, found.version_id) == ("usr_1", version.id)
    run = Node(NodeKind.EVALUATION, "eval-7")
    assert lineage.depths[run] == 1
    async with database.read(SYSTEM) as tx:
        events = [item.event for item in await read_revisions(tx, 0, 100)]
    assert events[-3:] == ["registry.evidence.added", *["registry.edge.added"] * 2]


async def test_what_is_newer_supersedes_what_is_of_its_kind_and_subject(
    database: Database, service: RegistryService, projects: stores.Projects, clock: ManualClock
) -> None:
    drafts = [
        measured("0.90"),
        measured("120", "latency_p95"),
        EvidenceDraft(kind="eval.accuracy", subject="accuracy", passed=False),
        measured("0.92"),
    ]
    async with database.write(projects.mine) as tx:
        version = await service.get_version(tx, "tiny")
        first, *rest = [await service.add_evidence(tx, version.id, draft) for draft in drafts]
        clock.advance(-2)  # a clock that is behind changes nothing of what is current

    async with database.write(projects.mine) as tx:
        latest = await service.add_evidence(tx, version.id, measured("0.93"))
    async with database.read(projects.mine) as tx:
        current = await service.list_evidence(tx, version.id)
        of_kind = await service.list_evidence(tx, version.id, "eval.accuracy")
        history = await service.list_evidence(tx, version.id, has_history=True)
    assert {item.id for item in current} == {rest[0].id, rest[1].id, latest.id}
    assert [item.passed for item in of_kind] == [False]
    by_id = {item.id: item.superseded_by for item in history}
    assert len(by_id) == 5
    assert by_id[first.id] == rest[2].id
    assert by_id[rest[2].id] == latest.id


async def test_evidence_belongs_to_a_project(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        version = await service.get_version(tx, "tiny")
        await service.add_evidence(tx, version.id, measured("0.9"))

    async with database.read(projects.other) as tx:
        assert list(await service.list_evidence(tx, version.id)) == []
    with pytest.raises(PilotageError) as refused:
        async with database.write(projects.other) as tx:
            await service.add_evidence(tx, version.id, measured("1"))
    assert refused.value.code in ("not_found", "invalid_request")


async def test_a_version_may_have_no_file_and_then_says_where_it_is(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    more = VersionDetails(
        display_name="Tiny, hosted",
        base_model="gemini-2.0-flash",
        parent="tiny@1.0.0",
        artifact_uri="gs://models/tiny/2",
        serving_container_uri="eu-docker.pkg.dev/p/serve:1",
        context_tokens=32_768,
        custom_metadata={"team": "fraud", "seeds": [1, 2]},
        tags=["routing", "eu", "routing"],
    )
    async with database.write(projects.mine) as tx:
        made = await service.create_version(
            tx, "tiny", "2.0.0-rc.1", None, source="vertex_model_garden", details=more
        )
        with pytest.raises(PilotageError, match="something that it runs"):
            await service.create_version(tx, "tiny", "3.0.0", None)

    async with database.read(projects.mine) as tx:
        assert await service.get_version(tx, made.id) == made
        parent = await service.get_version(tx, "tiny@1.0.0")
        found = await service.lineage.get_lineage(tx, Node(NodeKind.VERSION, made.id))
    assert (made.artifact_sha256, made.tags, made.stage) == (None, ("eu", "routing"), "development")
    assert made.custom_metadata == {"team": "fraud", "seeds": [1, 2]}
    assert found.depths == {
        Node(NodeKind.VERSION, made.id): 0,
        Node(NodeKind.VERSION, parent.id): -1,
        Node(NodeKind.BASE_MODEL, "gemini-2.0-flash"): -1,
    }

"""What becomes of versions on both databases: described anew, deprecated, deleted when needless."""

from collections.abc import Mapping
from typing import Any

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import ApprovalAsk, Subject
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import read_revisions
from pilotage.registry import store
from pilotage.registry.cards import CARD_FIELDS
from pilotage.registry.search import parse_query
from pilotage.registry.service import RegistryService
from pilotage.registry.types import NamedVersion, Stage, VersionDetails
from pilotage.registry.upkeep import VersionChange

HOSTED = VersionDetails(artifact_uri="gs://models/tiny", tags=("eu",))
PROMOTE = "registry.version.promote"


async def is_idle(tx: Tx, version_id: str) -> bool:
    return False


async def is_busy(tx: Tx, version_id: str) -> bool:
    return True


@pytest.fixture
def governance(clock: ManualClock) -> GovernanceService:
    return GovernanceService(clock, IdentityService(clock))


@pytest.fixture
def service(clock: ManualClock, governance: GovernanceService) -> RegistryService:
    made = RegistryService(clock, governance)

    async def describe(tx: Tx, name_or_id: str) -> Subject:
        version = await made.get_version(tx, name_or_id)
        return Subject(id=version.id, name=version.ref, state={"rev": version.rev})

    governance.approvals.register(PROMOTE, describe)
    return made


@pytest.fixture
async def projects(
    database: Database, clock: ManualClock, service: RegistryService
) -> stores.Projects:
    made = await stores.make_projects(database, clock)
    async with database.write(made.mine) as tx:
        await service.create_model(tx, "tiny")
        await service.create_version(tx, "tiny", "1.0.0", None, details=HOSTED)
    return made


def change(**values: Any) -> VersionChange:  # noqa: ANN401
    return VersionChange(**{"description": "", "custom_metadata": {}} | values)


async def list_events(database: Database) -> list[str]:
    async with database.read(SYSTEM) as tx:
        return [item.event for item in await read_revisions(tx, 0, 1000)]


async def test_a_version_is_described_anew_and_found_by_it(
    database: Database, service: RegistryService, projects: stores.Projects, clock: ManualClock
) -> None:
    said = change(
        description="Tuned again",
        display_name="Tiny, the second",
        tags=("us", "routing"),
        custom_metadata={"team": "fraud"},
    )
    clock.advance(5)
    async with database.write(projects.mine) as tx:
        before = await service.get_version(tx, "tiny")
        after = await service.change_version(tx, "tiny@1.0.0", said, before.rev)
        again = await service.change_version(tx, "tiny@1.0.0", said, after.rev)
        with pytest.raises(PilotageError) as refused:
            await service.change_version(tx, "tiny@1.0.0", change(), before.rev)

    assert refused.value.code == "precondition_failed"
    assert again == after
    assert (after.rev, after.tags, after.display_name) == (2, ("routing", "us"), "Tiny, the second")
    assert (after.updated_at_us, after.created_at_us) == (clock.now_us(), before.created_at_us)
    assert after.custom_metadata == {"team": "fraud"}
    assert (await list_events(database)).count("registry.version.changed") == 1
    async with database.read(projects.mine) as tx:
        for text, tags, count in (("second", "us", 1), ("again", "", 1), ("", "eu", 0)):
            found = await service.search_versions(tx, parse_query(text=text, tags=tags))
            assert len(found) == count


async def test_a_version_is_deprecated_with_a_reason_and_what_replaces_it(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        better = await service.create_version(tx, "tiny", "1.1.0", None, details=HOSTED)
        old = await service.deprecate_version(tx, "tiny@1.0.0", " wrong data ", "tiny@1.1.0")
        again = await service.deprecate_version(tx, "tiny@1.0.0", "wrong data", better.id)
        for reason, instead in (("", ""), ("x" * 1001, ""), ("why", "tiny@1.0.0")):
            with pytest.raises(PilotageError, match=r"deprecated|replace itself"):
                await service.deprecate_version(tx, "tiny@1.0.0", reason, instead)

    assert (old.deprecation_reason, old.replaced_by_id) == ("wrong data", better.id)
    assert old.deprecated_at_us == again.deprecated_at_us == tx.now_us
    assert (await list_events(database)).count("registry.version.deprecated") == 1


async def put_stage(tx: Tx, version: NamedVersion) -> None:
    assert await store.change_version(tx, version, stage=Stage.PRODUCTION)


async def test_a_version_that_is_needed_is_not_deleted(
    database: Database,
    service: RegistryService,
    governance: GovernanceService,
    projects: stores.Projects,
    clock: ManualClock,
) -> None:
    async def refuse(tx: Tx, words: str, in_use: Any = is_idle) -> None:  # noqa: ANN401
        with pytest.raises(PilotageError, match=words) as refused:
            await service.delete_version(tx, "tiny@1.0.0", in_use)
        assert refused.value.code == "conflict"

    async with database.write(projects.mine) as tx:
        version = await service.get_version(tx, "tiny")
        await refuse(tx, "is deployed", is_busy)
        child = VersionDetails(parent="tiny@1.0.0", artifact_uri="gs://x")
        await service.create_version(tx, "tiny", "2.0.0", None, details=child)
        await refuse(tx, "tiny@1.0.0 is what tiny@2.0.0 came of")
        await service.delete_version(tx, "tiny@2.0.0", is_idle)
        ask = ApprovalAsk(action=PROMOTE, subject="tiny@1.0.0", reason="ready", ttl_us=60_000_000)
        asked = await governance.approvals.request(tx, ask)
        await refuse(tx, f"{asked.id}.* is about tiny@1.0.0")
    clock.advance(61)  # nobody waits for what has expired
    async with database.write(projects.mine) as tx:
        await put_stage(tx, version)
        await refuse(tx, "is in production")
        with pytest.raises(PilotageError, match="is in production"):
            await service.delete_model(tx, "tiny", is_idle)


async def test_a_model_goes_with_parents_and_children(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        child = VersionDetails(parent="tiny@1.0.0", artifact_uri="gs://x")
        await service.create_version(tx, "tiny", "2.0.0", None, details=child)
        await service.delete_model(tx, "tiny", is_idle)
        with pytest.raises(PilotageError, match="no model"):
            await service.get_model(tx, "tiny")


FULL = dict.fromkeys(CARD_FIELDS, "said")


@pytest.mark.parametrize(
    ("fields", "share", "passed", "note"),
    [
        (FULL, "1.0000", True, "revision 1"),
        (FULL | {"limits": "  "}, "0.8333", False, "missing: limits"),
        ({}, "0.0000", False, f"missing: {', '.join(CARD_FIELDS)}"),
    ],
)
async def test_how_complete_a_card_is_is_evidence(
    database: Database,
    service: RegistryService,
    projects: stores.Projects,
    fields: Mapping[str, str],
    share: str,
    passed: bool,
    note: str,
) -> None:
    async with database.write(projects.mine) as tx:
        version = await service.get_version(tx, "tiny")
        empty = await service.cards.get_card(tx, version)
        card = await service.cards.write_card(tx, version, fields, empty.rev)
        (found,) = await service.list_evidence(tx, version.id, "card")

    assert (empty.rev, empty.fields, card.rev) == (0, {}, 1)
    assert (str(found.value), found.passed, found.note) == (share, passed, note)


async def test_a_card_keeps_its_revisions(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        version = await service.get_version(tx, "tiny")
        cards = service.cards
        await cards.write_card(tx, version, FULL)
        same = await cards.write_card(tx, version, FULL, 1)
        second = await cards.write_card(tx, version, FULL | {"limits": "none known"}, 1)
        with pytest.raises(PilotageError) as stale:
            await cards.write_card(tx, version, FULL, 1)
        with pytest.raises(PilotageError) as unknown:
            await cards.write_card(tx, version, {"colour": "red"})
        with pytest.raises(PilotageError) as missing:
            await cards.get_card(tx, version, 3)
        assert (await cards.get_card(tx, version, 1)).fields == FULL
        assert await cards.get_card(tx, version) == second

    assert (same.rev, second.rev) == (1, 2)
    assert [error.value.code for error in (stale, unknown, missing)] == [
        "precondition_failed",
        "invalid_request",
        "not_found",
    ]
    assert (await list_events(database)).count("registry.card.written") == 2


async def test_of_two_who_write_a_card_one_is_told(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async def write(tx: Tx) -> int:
        version = await service.get_version(tx, "tiny")
        return (await service.cards.write_card(tx, version, FULL, 0)).rev

    won, lost = await stores.race(database, projects.mine, write)

    assert won == [1]
    assert {getattr(error, "code", "") for error in lost} <= {"precondition_failed", "conflict"}

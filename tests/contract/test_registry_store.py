"""The registry on both databases."""

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import read_revisions
from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.service import RegistryService

SHA = "ab" * 32
OTHER_SHA = "cd" * 32
INFO = Inspection(
    architecture="llama",
    name="Tiny",
    parameters=100,
    quantization="Q8_0",
    context_length=2048,
    file_bytes=10,
    license="MIT",
    has_chat_template=True,
    tensor_count=2,
    metadata_count=3,
)


async def is_idle(tx: Tx, version_id: str) -> bool:
    return False


async def is_busy(tx: Tx, version_id: str) -> bool:
    return True


@pytest.fixture
def service(clock: ManualClock) -> RegistryService:
    return RegistryService(clock)


@pytest.fixture
async def projects(
    database: Database, clock: ManualClock, service: RegistryService
) -> stores.Projects:
    made = await stores.make_projects(database, clock)
    async with database.write(made.mine) as tx:
        await service.create_model(tx, "tiny", "small")
        await service.add_artifact(tx, SHA, 10, INFO)
    return made


async def test_a_version_takes_licence_and_context_from_its_file(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await service.create_version(tx, "tiny", "1.0.0", SHA)

    async with database.read(projects.mine) as tx:
        assert await service.get_version(tx, "tiny@1.0.0") == made
        assert await service.get_version(tx, made.id) == made
    assert (made.ref, made.license, made.context_tokens) == ("tiny@1.0.0", "MIT", 2048)
    assert (made.source, made.created_by) == ("manual", "usr_1")


async def test_a_name_alone_means_the_highest_release(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        for version in ("1.9.0", "1.10.0", "2.0.0-rc.1"):
            await service.create_version(tx, "tiny", version, SHA)

    async with database.read(projects.mine) as tx:
        assert (await service.get_version(tx, "tiny")).version == "1.10.0"


async def test_models_are_listed_by_name_or_by_age(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = [await service.create_model(tx, name) for name in ("zeta", "alpha", "mid")]

    async with database.read(projects.mine) as tx:
        by_name = [item.name for item in await service.list_models(tx, "alpha", 2)]
        newest = await service.list_models(tx, limit=2, is_newest_first=True)
        older = await service.list_models(tx, newest[-1].id, is_newest_first=True)
    assert by_name == ["mid", "tiny"]
    assert [item.name for item in newest] == ["mid", "alpha"]
    assert [item.name for item in older] == ["zeta", "tiny"]
    assert older[0] == made[0]


async def test_versions_are_paged_in_semantic_order(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    ordered = ["1.2.0", "1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0"]
    async with database.write(projects.mine) as tx:
        for version in sorted(ordered):
            await service.create_version(tx, "tiny", version, SHA)

    async with database.read(projects.mine) as tx:
        first = [item.version for item in await service.list_versions(tx, "tiny", "", 2)]
        rest = [item.version for item in await service.list_versions(tx, "tiny", first[-1])]
    assert first + rest == ordered


@pytest.mark.parametrize(
    ("version", "sha", "code"),
    [
        ("1.0", SHA, "invalid_request"),
        ("1.0.0", SHA, "already_exists"),
        ("1.0.0+build", SHA, "already_exists"),
        ("1.0.1", OTHER_SHA, "not_found"),
    ],
)
async def test_a_version_that_cannot_be_is_refused(
    database: Database,
    service: RegistryService,
    projects: stores.Projects,
    version: str,
    sha: str,
    code: str,
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_version(tx, "tiny", "1.0.0", SHA)

    with pytest.raises(PilotageError) as refused:
        async with database.write(projects.mine) as tx:
            await service.create_version(tx, "tiny", version, sha)

    assert refused.value.code == code


async def test_another_project_sees_nothing(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await service.create_version(tx, "tiny", "1.0.0", SHA)

    async with database.read(projects.other) as tx:
        assert list(await service.list_models(tx)) == []
        for find in (
            service.get_model(tx, "tiny"),
            service.get_version(tx, made.id),
            service.get_version(tx, "tiny@1.0.0"),
            service.get_artifact(tx, SHA),
        ):
            with pytest.raises(PilotageError) as missing:
                await find
            assert missing.value.code == "not_found"


async def test_a_file_may_be_in_several_projects(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.other) as tx:
        added = await service.add_artifact(tx, SHA, 10, INFO)
        again = await service.add_artifact(tx, SHA, 10, INFO)

    assert added == again
    assert added.project_id == projects.other.project_id


async def test_a_file_is_needed_whoever_registered_it(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.read(projects.other) as tx:
        assert await service.artifacts.find_needed(tx, [SHA, OTHER_SHA]) == {SHA}


async def test_what_is_deployed_stays(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_version(tx, "tiny", "1.0.0", SHA)

    for kind, ref in ((service.delete_version, "tiny@1.0.0"), (service.delete_model, "tiny")):
        with pytest.raises(PilotageError) as refused:
            async with database.write(projects.mine) as tx:
                await kind(tx, ref, is_busy)
        assert refused.value.code == "conflict"

    async with database.read(projects.mine) as tx:
        assert (await service.get_version(tx, "tiny")).ref == "tiny@1.0.0"


async def test_deleting_leaves_a_tombstone_and_frees_the_names(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        first = await service.create_version(tx, "tiny", "1.0.0", SHA)
    async with database.write(projects.mine) as tx:
        await service.delete_version(tx, "tiny@1.0.0", is_idle)
        second = await service.create_version(tx, "tiny", "1.0.0", SHA)
    async with database.write(projects.mine) as tx:
        await service.delete_model(tx, "tiny", is_idle)
        assert list(await service.list_models(tx)) == []
        for find in (service.get_model(tx, second.model_id), service.get_version(tx, second.id)):
            with pytest.raises(PilotageError):
                await find
        model = await service.create_model(tx, "tiny")

    async with database.read(SYSTEM) as tx:
        events = [item for item in await read_revisions(tx, 0, 100) if "deleted" in item.event]
    assert [(item.event, item.object_id, item.rev) for item in events] == [
        ("registry.version.deleted", first.id, 2),
        ("registry.version.deleted", second.id, 2),
        ("registry.model.deleted", second.model_id, 2),
    ]
    assert model.id != second.model_id


async def test_importing_again_changes_nothing(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async def bring(tx: Tx, sha: str) -> str:
        made = await service.import_version(
            tx, "packed", "1.0.0", sha, source="package", license="MIT", description="packed"
        )
        return made.id

    async with database.write(projects.mine) as tx:
        first = await bring(tx, SHA)
    async with database.write(projects.mine) as tx:
        assert await bring(tx, SHA) == first
        with pytest.raises(PilotageError) as refused:
            await bring(tx, OTHER_SHA)
    assert refused.value.code == "already_exists"


async def test_one_of_several_transactions_gets_a_name(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    won, lost = await stores.race(
        database, projects.mine, lambda tx: service.create_model(tx, "new")
    )

    assert len(won) == 1
    assert [getattr(error, "code", "") for error in lost] == ["already_exists"] * 3


async def test_one_of_several_transactions_gets_a_version_number(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    won, lost = await stores.race(
        database, projects.mine, lambda tx: service.create_version(tx, "tiny", "1.0.0", SHA)
    )

    assert len(won) == 1
    assert [getattr(error, "code", "") for error in lost] == ["already_exists"] * 3


async def test_a_version_is_deleted_once(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_version(tx, "tiny", "1.0.0", SHA)

    won, lost = await stores.race(
        database, projects.mine, lambda tx: service.delete_version(tx, "tiny@1.0.0", is_idle)
    )

    assert len(won) == 1
    assert {getattr(error, "code", "") for error in lost} <= {"not_found", "precondition_failed"}
    assert len(lost) == 3

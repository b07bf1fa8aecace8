"""Prompts on both databases."""

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.core.prompts import Filled, PromptContent, encode_content, read_content
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import DecisionKind, FreezeSpec
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import read_revisions
from pilotage.registry.prompts.service import PromptService
from pilotage.registry.prompts.types import Provenance

HELLO = read_content({"text": "Hello {{ name }}", "description": "a greeting"})
GOODBYE = read_content({"messages": [{"role": "system", "content": "Say goodbye."}]})
HOUR_US = 3_600_000_000
FROM_GIT = Provenance(repository="git@host:prompts", commit="ab" * 20, path="hello.prompt.md")


@pytest.fixture
def governance(clock: ManualClock) -> GovernanceService:
    return GovernanceService(clock, IdentityService(clock))


@pytest.fixture
def service(clock: ManualClock, governance: GovernanceService) -> PromptService:
    return PromptService(clock, governance)


@pytest.fixture
async def projects(
    database: Database, clock: ManualClock, service: PromptService
) -> stores.Projects:
    made = await stores.make_projects(database, clock)
    async with database.write(made.mine) as tx:
        await service.create_prompt(tx, "hello", "how we greet")
        await service.create_version(tx, "hello", "1.0.0", HELLO, FROM_GIT)
    return made


async def add(
    database: Database, service: PromptService, projects: stores.Projects, *versions: str
) -> None:
    async with database.write(projects.mine) as tx:
        for version in versions:
            await service.create_version(tx, "hello", version, GOODBYE)


async def test_a_version_is_what_was_given(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    async with database.read(projects.mine) as tx:
        found = await service.get_version(tx, "hello", "1.0.0")
        (listed,) = await service.list_versions(tx, "hello")
        rendered = await service.render(tx, "hello", "1.0.0", {"name": "{{ x }}"})

    assert (found.ref, found.description, found.created_by) == (
        "hello@1.0.0",
        "a greeting",
        "usr_1",
    )
    assert found.provenance == FROM_GIT
    assert found.content == encode_content(HELLO).decode()
    assert {name: getattr(found, name) for name in type(listed).__dataclass_fields__} == {
        name: getattr(listed, name) for name in type(listed).__dataclass_fields__
    }
    assert rendered == (found, [Filled("user", "Hello {{ x }}")])


async def test_versions_are_paged_in_semantic_order(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    await add(database, service, projects, "1.10.0", "1.9.0", "2.0.0-rc.1")

    async with database.read(projects.mine) as tx:
        everything = [item.version for item in await service.list_versions(tx, "hello")]
        page = [item.version for item in await service.list_versions(tx, "hello", "1.9.0", 1)]
    assert everything == ["1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1"]
    assert page == ["1.10.0"]


@pytest.mark.parametrize("version", ["1.0.0", "1.0.0+other"])
async def test_a_version_never_changes(
    database: Database, service: PromptService, projects: stores.Projects, version: str
) -> None:
    async with database.write(projects.mine) as tx:
        with pytest.raises(PilotageError) as refused:
            await service.create_version(tx, "hello", version, GOODBYE)

    assert refused.value.code == "already_exists"


async def test_the_number_of_a_deleted_version_stays_taken(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await service.delete_version(tx, "hello", "1.0.0")
        with pytest.raises(PilotageError) as refused:
            await service.create_version(tx, "hello", "1.0.0", HELLO)
        with pytest.raises(PilotageError) as gone:
            await service.get_version(tx, "hello", "1.0.0")

    assert (refused.value.code, gone.value.code) == ("already_exists", "not_found")


async def test_a_label_is_moved_and_every_move_is_a_revision(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    await add(database, service, projects, "1.1.0")
    async with database.write(projects.mine) as tx:
        first = await service.set_label(tx, "hello", "production", "1.0.0")
        same = await service.set_label(tx, "hello", "production", "1.0.0")
        moved = await service.set_label(tx, "hello", "production", "1.1.0", first.rev)
        assert (await service.get_version(tx, "hello", "production")).version == "1.1.0"
        with pytest.raises(PilotageError) as stale:
            await service.set_label(tx, "hello", "production", "1.0.0", first.rev)
        with pytest.raises(PilotageError) as absent:
            await service.set_label(tx, "hello", "latest", "1.0.0", 1)
        await service.delete_label(tx, "hello", "production")
        with pytest.raises(PilotageError) as gone:
            await service.get_label(tx, "hello", "production")

    assert (same, moved.rev, moved.id) == (first, 2, first.id)
    assert (stale.value.code, absent.value.code, gone.value.code) == (
        "precondition_failed",
        "precondition_failed",
        "not_found",
    )
    async with database.read(SYSTEM) as tx:
        revisions = [r for r in await read_revisions(tx, 0, 100) if r.object_id == first.id]
    assert [(item.event, item.rev) for item in revisions] == [
        ("registry.prompt_label.moved", 1),
        ("registry.prompt_label.moved", 2),
        ("registry.prompt_label.removed", 3),
    ]


async def test_what_a_label_says_is_a_decision_on_record(
    database: Database,
    service: PromptService,
    governance: GovernanceService,
    projects: stores.Projects,
) -> None:
    await add(database, service, projects, "1.1.0")
    async with database.write(projects.mine) as tx:
        label = await service.set_label(tx, "hello", "production", "1.0.0")
        moved = await service.set_label(tx, "hello", "production", "1.1.0")
        await service.set_label(tx, "hello", "production", "1.1.0")
        await service.delete_label(tx, "hello", "production")
        decisions = await governance.list_decisions(tx, kinds=(DecisionKind.PROMPT,))
        target = await service.get_version(tx, "hello", moved.version)
        by_age = sorted(decisions, key=lambda item: item.seq)
        (way,) = await governance.decisions.list_facts(tx, by_age[1].id)

    assert {(item.subject, item.subject_id, item.by) for item in decisions} == {
        ("hello@production", label.id, "usr_1")
    }
    assert [(item.before, item.after) for item in by_age] == [
        (None, {"version": "1.0.0"}),
        ({"version": "1.0.0"}, {"version": "1.1.0"}),
        ({"version": "1.1.0"}, None),
    ]
    assert list(by_age[1].evidence) == [target.sha256]
    assert way.content["command"] == "pilotage prompts tag hello@1.0.0 production"


async def test_a_label_waits_for_the_end_of_a_freeze(
    database: Database,
    service: PromptService,
    governance: GovernanceService,
    projects: stores.Projects,
    clock: ManualClock,
) -> None:
    now_us = clock.now_us()
    spec = FreezeSpec(reason="the year ends", starts_at_us=now_us, ends_at_us=now_us + HOUR_US)
    async with database.write(projects.mine) as tx:
        await service.set_label(tx, "hello", "latest", "1.0.0")
        await governance.calendar.freeze(tx, "quiet", spec)
        for changing in (
            service.set_label(tx, "hello", "production", "1.0.0"),
            service.delete_label(tx, "hello", "latest"),
        ):
            with pytest.raises(PilotageError) as refused:
                await changing
            assert refused.value.code == "frozen"
        await service.create_version(tx, "hello", "1.1.0", GOODBYE)

    clock.advance(HOUR_US / 1e6)
    async with database.write(projects.mine) as tx:
        await service.set_label(tx, "hello", "production", "1.0.0")


async def test_what_a_label_points_to_is_not_deleted(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    await add(database, service, projects, "1.1.0")
    async with database.write(projects.mine) as tx:
        await service.set_label(tx, "hello", "production", "1.0.0")
        for deleting in (
            service.delete_version(tx, "hello", "1.0.0"),
            service.delete_prompt(tx, "hello"),
        ):
            with pytest.raises(PilotageError, match="released as production") as refused:
                await deleting
            assert refused.value.code == "conflict"
        await service.delete_version(tx, "hello", "1.1.0")


async def test_a_deleted_prompt_keeps_its_name(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await service.delete_prompt(tx, "hello")
        assert list(await service.list_prompts(tx)) == []
        assert list(await service.list_published(tx)) == []
        with pytest.raises(PilotageError) as refused:
            await service.create_prompt(tx, "hello")
    assert (refused.value.code, refused.value.detail) == (
        "already_exists",
        "There was a prompt 'hello' already.",
    )
    async with database.read(SYSTEM) as tx:
        events = [item.event for item in await read_revisions(tx, 0, 100)]
    assert events[-2:] == ["registry.prompt_version.deleted", "registry.prompt.deleted"]


async def test_a_description_is_changed_at_the_revision_that_was_read(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        changed = await service.change_prompt(tx, "hello", "new", 1)
        assert await service.change_prompt(tx, "hello", "new", 2) == changed
        assert await service.get_prompt(tx, changed.id) == changed
        with pytest.raises(PilotageError) as refused:
            await service.change_prompt(tx, "hello", "newer", 1)

    assert (changed.rev, changed.description) == (2, "new")
    assert refused.value.code == "precondition_failed"


async def test_another_project_sees_nothing(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    async with database.write(projects.other) as tx:
        assert list(await service.list_prompts(tx)) == []
        for asking in (
            service.get_prompt(tx, "hello"),
            service.get_version(tx, "hello", "1.0.0"),
            service.create_version(tx, "hello", "2.0.0", HELLO),
            service.set_label(tx, "hello", "production", "1.0.0"),
            service.delete_prompt(tx, "hello"),
        ):
            with pytest.raises(PilotageError) as refused:
                await asking
            assert refused.value.code == "not_found"
        await service.create_prompt(tx, "hello")


async def test_two_versions_are_told_apart(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    await add(database, service, projects, "1.1.0")
    async with database.write(projects.mine) as tx:
        await service.set_label(tx, "hello", "production", "1.0.0")
        old, new, lines = await service.diff_versions(tx, "hello", "production", "1.1.0")
        assert (await service.diff_versions(tx, "hello", "1.0.0", "1.0.0"))[2] == []

    assert (old.ref, new.ref) == ("hello@1.0.0", "hello@1.1.0")
    assert lines[:2] == ["--- hello@1.0.0", "+++ hello@1.1.0"]
    assert {"-Hello {{ name }}", "+Say goodbye.", "-# variable name"} <= set(lines)


async def test_every_change_moves_the_mark(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    seen = []
    async with database.write(projects.mine) as tx:
        for change in (
            lambda: service.create_version(tx, "hello", "1.1.0", GOODBYE),
            lambda: service.set_label(tx, "hello", "production", "1.0.0"),
            lambda: service.set_label(tx, "hello", "production", "1.1.0"),
            lambda: service.delete_version(tx, "hello", "1.0.0"),
            lambda: service.delete_label(tx, "hello", "production"),
            lambda: service.delete_prompt(tx, "hello"),
            lambda: service.create_prompt(tx, "other"),
        ):
            seen.append(await service.mark_prompts(tx))
            await change()
        seen.append(await service.mark_prompts(tx))

    assert len(set(seen)) == len(seen)


async def test_what_is_published_has_its_labels(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    await add(database, service, projects, "1.1.0")
    async with database.write(projects.mine) as tx:
        await service.set_label(tx, "hello", "production", "1.0.0")
        await service.set_label(tx, "hello", "latest", "1.0.0")

    async with database.read(SYSTEM) as tx:
        published = {item.version: item for item in await service.list_published(tx)}
    assert published["1.0.0"][:4] == (
        projects.mine.project_id,
        "hello",
        "1.0.0",
        ["latest", "production"],
    )
    assert published["1.0.0"].content == encode_content(HELLO)
    assert list(published["1.1.0"].labels) == []


async def test_one_of_several_transactions_moves_a_label(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    await add(database, service, projects, "1.1.0")
    async with database.write(projects.mine) as tx:
        label = await service.set_label(tx, "hello", "production", "1.0.0")

    won, lost = await stores.race(
        database,
        projects.mine,
        lambda tx: service.set_label(tx, "hello", "production", "1.1.0", label.rev),
    )

    assert len(won) == 1
    assert [getattr(error, "code", "") for error in lost] == ["precondition_failed"] * 3


async def test_one_of_several_transactions_gets_a_version(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    async def create(tx: Tx) -> str:
        content = PromptContent(text="x")
        return (await service.create_version(tx, "hello", "3.0.0", content)).id

    won, lost = await stores.race(database, projects.mine, create)

    assert len(won) == 1
    assert {getattr(error, "code", "") for error in lost} <= {
        "already_exists",
        "precondition_failed",
    }
    assert len(lost) == 3


async def test_a_label_and_the_deletion_of_its_version_do_not_cross(
    database: Database, service: PromptService, projects: stores.Projects
) -> None:
    turns = iter((True, False, True, False))

    async def release_or_delete(tx: Tx) -> str:
        if next(turns):
            return (await service.set_label(tx, "hello", "production", "1.0.0")).version
        await service.delete_version(tx, "hello", "1.0.0")
        return "deleted"

    won, _ = await stores.race(database, projects.mine, release_or_delete)

    assert len(set(won)) == 1

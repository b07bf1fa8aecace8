"""Principals, roles and credentials on both databases."""

from collections.abc import Awaitable
from dataclasses import replace

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.identity.types import EVERYWHERE, Principal, PrincipalKind, Profile, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.outbox import read_revisions

HOUR_US = 3_600_000_000
ADMIN = Actor(principal_id="usr_admin")


@pytest.fixture
def service(clock: ManualClock) -> IdentityService:
    return IdentityService(clock)


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> stores.Projects:
    return await stores.make_projects(database, clock)


@pytest.fixture
async def ada(database: Database, service: IdentityService) -> Principal:
    profile = Profile(display_name="Ada Lovelace", email="ada@example.org")
    async with database.write(ADMIN) as tx:
        return await service.principals.create(tx, PrincipalKind.USER, "ada", profile)


async def refuse(work: Awaitable[object]) -> str:
    with pytest.raises(PilotageError) as refused:
        await work
    return refused.value.code


async def test_roles_count_where_they_are_bound(
    database: Database, service: IdentityService, projects: stores.Projects, ada: Principal
) -> None:
    mine, other = projects.mine.project_id, projects.other.project_id
    assert mine
    async with database.write(ADMIN) as tx:
        await service.principals.grant(tx, ada.id, Role.VIEWER)
        await service.principals.grant(tx, "ada", Role.APPROVER, scope=mine)

    async with database.read(projects.other) as tx:  # whatever the transaction's own project
        assert await service.roles_of(tx, ada.id, mine) == {"viewer", "approver"}
        assert await service.roles_of(tx, ada.id, other) == {"viewer"}
        assert await service.roles_of(tx, ada.id, None) == {"viewer"}
        assert await service.roles_of(tx, "nobody", mine) == frozenset()
        await service.authorise(tx, ada.id, "governance.approval.vote", mine)
        asked = service.authorise(tx, ada.id, "governance.approval.vote", other)
        assert await refuse(asked) == "permission_denied"


async def test_a_role_in_one_project_shows_that_project_and_no_other(
    database: Database, service: IdentityService, projects: stores.Projects, ada: Principal
) -> None:
    mine = projects.mine.project_id or ""
    async with database.write(ADMIN) as tx:
        await service.principals.grant(tx, ada.id, Role.VIEWER, scope=mine)

    async with database.read(SYSTEM) as tx:
        found = await service.list_own_projects(tx, ada.id)
        assert [project.name for project in found] == ["mine"]
        assert (await service.find_own_project(tx, ada.id, "mine")).id == mine
        await service.authorise(tx, ada.id, "identity.projects.read")
        assert await refuse(service.authorise(tx, ada.id, "identity.projects.create"))
        texts = set()
        for name in ("other", "another"):
            with pytest.raises(PilotageError) as missing:
                await service.find_own_project(tx, ada.id, name)
            texts.add((missing.value.code, missing.value.detail.replace(name, "")))
    assert len(texts) == 1


async def test_roles_end_by_time_by_hand_and_with_whom_they_were_given_to(
    database: Database, service: IdentityService, clock: ManualClock, ada: Principal
) -> None:
    async with database.write(ADMIN) as tx:
        await service.principals.grant(tx, ada.id, Role.AUDITOR, ttl_us=HOUR_US)
        ops = await service.principals.grant(tx, ada.id, Role.ML_OPS)
        await service.principals.grant(tx, ada.id, Role.VIEWER)
    clock.advance(3600)
    async with database.write(ADMIN) as tx:
        assert await service.roles_of(tx, ada.id, None) == {"ml_ops", "viewer"}
        ended = await service.principals.end_binding(tx, ops.id)
        assert await service.principals.end_binding(tx, ops.id) == ended
        assert await service.roles_of(tx, ada.id, None) == {"viewer"}
        await service.principals.disable(tx, ada.id)
        assert await service.roles_of(tx, ada.id, None) == frozenset()
        await service.principals.enable(tx, ada.id)
        again = await service.principals.grant(tx, ada.id, Role.ML_OPS)
        assert await service.roles_of(tx, ada.id, None) == {"ml_ops", "viewer"}
        assert await service.principals.grant(tx, ada.id, Role.ML_OPS) == again
    assert (again.id, again.rev, again.ended_at_us) == (ops.id, 3, None)


async def test_nobody_gives_a_role_to_themselves(
    database: Database, service: IdentityService, ada: Principal
) -> None:
    async with database.write(Actor(principal_id=ada.id)) as tx:
        for role in Role:
            granted = service.principals.grant(tx, "ada", role)
            assert await refuse(granted) == "permission_denied"
    async with database.read(SYSTEM) as tx:
        assert list(await service.principals.list_bindings(tx)) == []


async def test_a_credential_is_rotated_without_a_gap(
    database: Database, service: IdentityService, clock: ManualClock, ada: Principal
) -> None:
    async def is_known(tx: Tx, secret: str) -> bool:
        try:
            return await service.authenticate(tx, secret) == ada
        except PilotageError:
            return False

    async with database.write(ADMIN) as tx:
        first = await service.principals.issue(tx, "ada", 48 * HOUR_US)
        second = await service.principals.rotate(tx, first.credential.id, 24 * HOUR_US)
        assert [await is_known(tx, made.secret) for made in (first, second)] == [True, True]
    clock.advance(24 * 3600 - 1)
    async with database.read(SYSTEM) as tx:
        assert [await is_known(tx, made.secret) for made in (first, second)] == [True, True]
    clock.advance(1)
    async with database.write(ADMIN) as tx:
        assert [await is_known(tx, made.secret) for made in (first, second)] == [False, True]
        rotating = service.principals.rotate(tx, first.credential.id, HOUR_US)
        assert await refuse(rotating) == "conflict"
    clock.advance(24 * 3600)
    async with database.read(SYSTEM) as tx:  # the second lived as long as the first was made for
        assert await is_known(tx, second.secret) is False


async def test_a_revoked_credential_and_a_disabled_principal_are_refused(
    database: Database, service: IdentityService, ada: Principal
) -> None:
    async with database.write(ADMIN) as tx:
        one = await service.principals.issue(tx, "ada")
        two = await service.principals.issue(tx, "ada")
        await service.principals.revoke_credential(tx, one.credential.id)
        assert await refuse(service.authenticate(tx, one.secret)) == "invalid_credential"
        assert await service.authenticate(tx, two.secret) == ada
        await service.principals.disable(tx, "ada")
        assert await refuse(service.authenticate(tx, two.secret)) == "invalid_credential"
        assert await refuse(service.principals.issue(tx, "ada")) == "conflict"


async def test_nobody_lengthens_the_life_of_their_own_credential(
    database: Database, service: IdentityService, clock: ManualClock, ada: Principal
) -> None:
    rotate = service.principals.rotate_own
    async with database.write(ADMIN) as tx:
        first = (await service.principals.issue(tx, "ada", HOUR_US)).credential
        endless = (await service.principals.issue(tx, "ada")).credential
    async with database.write(Actor(principal_id=ada.id)) as tx:
        assert await refuse(rotate(tx, first.id, 0, HOUR_US + 1)) == "permission_denied"
    clock.advance(1800)
    async with database.write(Actor(principal_id=ada.id)) as tx:
        same = (await rotate(tx, first.id, HOUR_US)).credential
        less = (await rotate(tx, same.id, 0, HOUR_US // 2)).credential
        assert await refuse(rotate(tx, less.id, 0, HOUR_US)) == "permission_denied"
        some = (await rotate(tx, endless.id, 0, 99 * HOUR_US)).credential
    for made, life_us in ((same, HOUR_US), (less, HOUR_US // 2), (some, 99 * HOUR_US)):
        assert made.expires_at_us == made.created_at_us + life_us
    async with database.write(ADMIN) as tx:
        assert await refuse(rotate(tx, less.id, 0)) == "not_found"
        more = (await service.principals.rotate(tx, less.id, 0, 99 * HOUR_US)).credential
    assert more.expires_at_us == more.created_at_us + 99 * HOUR_US


async def test_what_somebody_makes_of_their_own_tells_who_let_them_in(
    database: Database, service: IdentityService, clock: ManualClock, ada: Principal
) -> None:
    principals = service.principals
    begun_us = clock.now_us()
    async with database.write(ADMIN) as tx:
        first = (await principals.issue(tx, "ada")).credential
    async with database.write(Actor(principal_id=ada.id)) as tx:
        second = (await principals.rotate_own(tx, first.id, 0)).credential
        third = (await principals.issue(tx, "ada")).credential
        await principals.revoke_credential(tx, second.id)
    async with database.read(SYSTEM) as tx:
        (seen,) = (await service.access.review(tx)).principals
    assert {first.created_by, second.created_by, third.created_by} == {ADMIN.principal_id}
    assert [item.id for item in seen.credentials] == [third.id]
    assert "credential_made_by_somebody_else" in seen.remarks

    clock.advance(3600)
    async with database.write(Actor(principal_id="usr_other")) as tx:
        assert (await principals.rotate(tx, third.id, 0)).credential.created_by == "usr_other"
    async with database.read(SYSTEM) as tx:
        assert await principals.list_armers(tx, ada.id, clock.now_us()) == ["usr_other"]
        assert await principals.list_armers(tx, ada.id, clock.now_us() - 1) == ["usr_admin"]
        assert await principals.list_armers(tx, ada.id, begun_us - 1) == []


async def test_the_review_tells_who_made_a_key(
    database: Database, service: IdentityService, projects: stores.Projects, ada: Principal
) -> None:
    ids = []
    for actor in (projects.mine, replace(projects.other, principal_id=ada.id)):
        async with database.write(actor) as tx:
            await service.create_tenant(tx, "team")
            ids.append((await service.create_key(tx, "team", "ci")).key.id)
            gone = (await service.create_key(tx, "team", "gone")).key
            await service.revoke_key(tx, gone.id)
    async with database.write(ADMIN) as tx:
        revoked = await service.access.revoke(tx, "ada")
        review = await service.access.review(tx)

    assert [key.id for key in revoked.keys] == [ids[1]]
    assert [(item.key.id, item.created_by) for item in review.keys] == [
        (ids[0], projects.mine.principal_id),
        (ids[1], ada.id),
    ]
    assert ["made_by_disabled" in item.remarks for item in review.keys] == [False, True]


async def test_revisions_name_nobody(
    database: Database, service: IdentityService, ada: Principal
) -> None:
    async with database.write(ADMIN) as tx:
        made = await service.principals.issue(tx, "ada")
        await service.principals.grant(tx, "ada", Role.VIEWER)
        await service.principals.put_profile(tx, "ada", Profile(display_name="Countess"))
        await service.principals.disable(tx, "ada")
        assert (await service.principals.get_profile(tx, ada.id)).display_name == "Countess"
        await service.principals.put_profile(tx, "ada", Profile())
        assert await service.principals.get_profile(tx, ada.id) == Profile()
    async with database.read(SYSTEM) as tx:
        written = await read_revisions(tx, 0, 100)

    assert [item.event for item in written] == [
        "identity.principal.created",
        "identity.credential.created",
        "identity.role.granted",
        "identity.principal.changed",
        "identity.principal.disabled",
        "identity.principal.changed",
    ]
    for item in written:
        text = f"{item.before}{item.after}".lower()
        assert not [word for word in ("ada", "countess", made.secret) if word in text]


async def test_names_are_never_used_again(
    database: Database, service: IdentityService, ada: Principal
) -> None:
    async with database.write(ADMIN) as tx:
        await service.principals.disable(tx, "ada")
        for kind in PrincipalKind:
            again = service.principals.create(tx, kind, "ada")
            assert await refuse(again) == "already_exists"


async def test_the_owner_of_the_installation_gets_in_again(
    database: Database, service: IdentityService
) -> None:
    async with database.write(SYSTEM) as tx:
        first = (await service.bootstrap(tx)).admin_credential
        admin = await service.authenticate(tx, first)
        await service.principals.disable(tx, admin.id)
    async with database.write(SYSTEM) as tx:
        second = (await service.bootstrap(tx)).admin_credential
        assert (await service.authenticate(tx, second)).id == admin.id
        assert await refuse(service.authenticate(tx, first)) == "invalid_credential"
        assert await service.roles_of(tx, admin.id, None) == {Role.ADMIN}


async def test_one_of_several_transactions_ends_a_role(
    database: Database, service: IdentityService, ada: Principal
) -> None:
    async with database.write(ADMIN) as tx:
        given = await service.principals.grant(tx, "ada", Role.VIEWER)

    await stores.race(database, ADMIN, lambda tx: service.principals.end_binding(tx, given.id))

    async with database.read(SYSTEM) as tx:
        (binding,) = await service.principals.list_bindings(tx, "ada")
    assert binding == replace(given, rev=2, ended_at_us=binding.ended_at_us)
    assert binding.scope == EVERYWHERE

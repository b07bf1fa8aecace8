"""Issuers of tokens on both databases: who may say what their tokens give."""

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.identity.types import GroupRole, IssuerSpec, PrincipalKind, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database

URL = "https://id.example.org/bank"
SECURITY = GroupRole(group="sec", role=Role.SECURITY)
ADMIN = GroupRole(group="sec", role=Role.ADMIN)
SPEC = IssuerSpec(url=URL, audience="pilotage", roles=(SECURITY,))
NAMED = f"{URL}|mallory"


@pytest.fixture
def service(clock: ManualClock) -> IdentityService:
    return IdentityService(clock)


async def make_person(
    database: Database, service: IdentityService, name: str, subject: str | None
) -> Actor:
    async with database.write(SYSTEM) as tx:
        made = await service.principals.create(tx, PrincipalKind.USER, name, subject=subject)
    return Actor(principal_id=made.id)


async def refuse(work: Awaitable[object]) -> str:
    with pytest.raises(PilotageError) as refused:
        await work
    return refused.value.code


@pytest.mark.parametrize(
    "other",
    [
        {"roles": (SECURITY, ADMIN)},
        {"roles": (replace(SECURITY, group="staff"),)},
        {"roles": (replace(SECURITY, scope="prj_1"),)},
        {"groups_claim": "nickname"},
        {"subject_claim": "nickname"},
        {"url": "https://elsewhere.example.org"},
    ],
)
async def test_nobody_raises_themselves_by_the_groups_of_their_issuer(
    database: Database, service: IdentityService, other: dict[str, Any]
) -> None:
    mallory = await make_person(database, service, "mallory", NAMED)
    trent = await make_person(database, service, "trent", None)
    async with database.write(SYSTEM) as tx:
        bank = await service.issuers.create(tx, "bank", SPEC)

    async with database.write(mallory) as tx:
        replacing = service.issuers.replace(tx, "bank", replace(SPEC, **other))
        assert await refuse(replacing) == "permission_denied"
        assert await service.issuers.get(tx, "bank") == bank
    async with database.write(trent) as tx:
        changed = await service.issuers.replace(tx, "bank", replace(SPEC, **other))
    assert (changed.rev, changed) == (2, replace(changed, **other))


async def test_an_issuer_is_not_pointed_at_an_address_that_speaks_of_oneself(
    database: Database, service: IdentityService
) -> None:
    mallory = await make_person(database, service, "mallory", NAMED)
    elsewhere = replace(SPEC, url="https://elsewhere.example.org")
    async with database.write(mallory) as tx:
        assert await refuse(service.issuers.create(tx, "mine", SPEC)) == "permission_denied"
        await service.issuers.create(tx, "mine", elsewhere)
        assert await refuse(service.issuers.replace(tx, "mine", SPEC)) == "permission_denied"


async def test_somebody_may_take_from_themselves_what_their_issuer_gives(
    database: Database, service: IdentityService
) -> None:
    mallory = await make_person(database, service, "mallory", NAMED)
    async with database.write(SYSTEM) as tx:
        await service.issuers.create(tx, "bank", SPEC)
    async with database.write(mallory) as tx:
        less = await service.issuers.replace(tx, "bank", replace(SPEC, roles=(), parties=("cli",)))
    assert (less.roles, less.parties) == ((), ("cli",))

"""Issuers of tokens on both databases: who may say what their tokens give."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from oidc_issuer import OidcIssuer
from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.identity.types import GroupRole, IssuerSpec, PrincipalKind, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database

URL = "https://id.example.org/bank"
SECURITY = GroupRole(group="sec", role=Role.SECURITY)
ADMIN = GroupRole(group="sec", role=Role.ADMIN)
SPEC = IssuerSpec(url=URL, audience="pilotage", roles=(SECURITY,))
WEEK_US = 7 * 86_400_000_000
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


async def test_what_an_issuer_no_longer_says_ends_at_once(
    database: Database, service: IdentityService
) -> None:
    async with database.write(SYSTEM) as tx:
        await service.issuers.create(tx, "bank", replace(SPEC, roles=(SECURITY, ADMIN)))
        await service.issuers.create(tx, "other", replace(SPEC, url="https://other.example.org"))
    ada = await make_person(database, service, "ada", f"{URL}|ada")

    async def give() -> None:
        async with database.write(SYSTEM) as tx:
            for role, source in ((Role.SECURITY, "bank"), (Role.ADMIN, "bank")):
                await service.principals.grant(tx, "ada", role, ttl_us=WEEK_US, source=source)
            await service.principals.grant(tx, "ada", Role.AUDITOR)
            await service.principals.grant(tx, "ada", Role.ML_OPS, ttl_us=WEEK_US, source="other")

    async def change(**other: Any) -> set[str]:  # noqa: ANN401 - whatever a spec has
        await give()
        async with database.write(SYSTEM) as tx:
            before = await service.issuers.get(tx, "bank")
            await service.issuers.replace(tx, "bank", replace(before, **other))
        async with database.read(SYSTEM) as tx:
            return set(await service.roles_of(tx, ada.principal_id, None)) - {"auditor", "ml_ops"}

    staff = replace(ADMIN, group="staff")
    assert await change(parties=("cli",), skew_us=0) == {"security", "admin"}
    assert await change(roles=(SECURITY, ADMIN, staff)) == {"security", "admin"}
    assert await change(roles=(SECURITY, staff)) == {"security"}  # a group less gives it
    assert await change(roles=(SECURITY,)) == {"security"}
    assert await change(groups_claim="teams") == set()
    assert await change(subject_claim="oid") == set()
    assert await change(url="https://moved.example.org") == set()
    async with database.read(SYSTEM) as tx:
        assert await service.roles_of(tx, ada.principal_id, None) == {"auditor", "ml_ops"}


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_token_that_was_read_before_its_issuer_changed_gives_nothing(
    database: Database, clock: ManualClock, *, is_deleted: bool
) -> None:
    issuer = OidcIssuer()
    issuer.add_ec("one")
    service = IdentityService(clock)

    async def fetch(url: str) -> dict[str, Any]:
        if not url.endswith("/keys"):
            return {"issuer": URL, "jwks_uri": f"{URL}/keys"}
        async with database.write(SYSTEM) as tx:  # meanwhile
            if is_deleted:
                await service.issuers.delete(tx, "bank")
            else:
                await service.issuers.replace(tx, "bank", replace(SPEC, roles=()))
        return {"keys": issuer.list_keys()}

    async with database.write(SYSTEM) as tx:
        await service.issuers.create(tx, "bank", SPEC)

    admitting = IdentityService(clock, fetch).admit(database, sign(issuer, clock))
    assert await refuse(admitting) == "invalid_credential"

    async with database.read(SYSTEM) as tx:
        assert list(await service.principals.list_bindings(tx)) == []


async def test_a_token_and_the_end_of_its_issuer_at_once_leave_no_role(
    database: Database, clock: ManualClock
) -> None:
    issuer = OidcIssuer()
    issuer.add_ec("one")

    async def fetch(url: str) -> dict[str, Any]:
        if url.endswith("/keys"):
            return {"keys": issuer.list_keys()}
        return {"issuer": URL, "jwks_uri": f"{URL}/keys"}

    service = IdentityService(clock, fetch)

    async def delete() -> None:
        async with database.write(SYSTEM) as tx:
            await service.issuers.delete(tx, "bank")

    for number in range(8):
        async with database.write(SYSTEM) as tx:
            await service.issuers.create(tx, "bank", SPEC)
        await service.admit(database, sign(issuer, clock, "somebody"))  # the keys are there
        token = sign(issuer, clock, f"ada-{number}")
        admitting = service.admit(database, token)
        await asyncio.gather(admitting, delete(), return_exceptions=True)
        async with database.read(SYSTEM) as tx:
            given = await service.principals.list_bindings(tx)
        assert [item for item in given if item.is_live(clock.now_us())] == []


def sign(issuer: OidcIssuer, clock: ManualClock, subject: str = "ada") -> str:
    now = clock.now_us() // 1_000_000
    claims = {"iss": URL, "sub": subject, "aud": "pilotage", "iat": now, "exp": now + 600}
    return issuer.sign("one", claims | {"groups": ["sec"]})

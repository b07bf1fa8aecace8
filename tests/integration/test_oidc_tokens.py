"""Tokens of a real issuer, at the door and under attack."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from oidc_issuer import OidcIssuer, open_oidc_issuer
from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.identity.types import EVERYWHERE, GroupRole, IssuerSpec, Profile, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, open_sqlite
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.fetch import JsonFetch
from pilotage.kit.outbox import read_revisions
from pilotage.migrations.tables import get_metadata

AUDIENCE = "pilotage"


class World:
    """An installation that trusts one issuer."""

    def __init__(
        self, clock: ManualClock, db: Database, identity: IdentityService, issuer: OidcIssuer
    ) -> None:
        self.clock = clock
        self.db = db
        self.identity = identity
        self.issuer = issuer
        self.spec = IssuerSpec(
            url=issuer.url,
            audience=AUDIENCE,
            parties=("console", "cli"),
            roles=(
                GroupRole(group="readers", role=Role.VIEWER),
                GroupRole(group="deployers", role=Role.ML_OPS, scope="prj_1"),
            ),
        )

    def claims(self, **other: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a token says
        """Return the claims of a token that is right, and what is to be otherwise (None: gone)."""
        now = self.clock.now_us() // 1_000_000
        right = {
            "iss": self.issuer.url,
            "sub": "ada",
            "aud": AUDIENCE,
            "azp": "cli",
            "iat": now,
            "exp": now + 3600,
            "groups": ["readers"],
            "name": "Ada Lovelace",
            "email": "ada@example.org",
        }
        return {name: value for name, value in (right | other).items() if value is not None}

    def sign(self, kid: str = "one", /, **other: Any) -> str:  # noqa: ANN401
        """Return a token with a right signature."""
        return self.issuer.sign(kid, self.claims(**other))

    async def admit(self, token: str) -> str:
        """Return the id of the principal whose token it is."""
        return (await self.identity.admit(self.db, token)).id

    async def refuse(self, token: str) -> str:
        """Return what is said to be wrong with a token."""
        with pytest.raises(PilotageError) as refused:
            await self.identity.admit(self.db, token)
        assert refused.value.code == "invalid_credential"
        return refused.value.param or ""

    async def roles(self, principal_id: str, project_id: str | None = None) -> set[str]:
        """Return the roles that somebody has."""
        async with self.db.read(SYSTEM) as tx:
            return set(await self.identity.roles_of(tx, principal_id, project_id))

    async def events(self) -> list[str]:
        """Return what has happened to identities."""
        async with self.db.read(SYSTEM) as tx:
            return [item.event for item in await read_revisions(tx, 0, 1000)]


@pytest.fixture
async def world(clock: ManualClock, tmp_path: Path) -> AsyncIterator[World]:
    db = open_sqlite(tmp_path / "test.db", clock)
    async with db.engine.begin() as conn:
        await conn.run_sync(get_metadata().create_all)
    async with open_oidc_issuer() as issuer:
        identity = IdentityService(clock, JsonFetch(EgressPolicy("127.0.0.1", clock)))
        made = World(clock, db, identity, issuer)
        async with db.write(SYSTEM) as tx:
            await identity.issuers.create(tx, "bank", made.spec)
        yield made
    await db.close()


async def test_the_first_token_of_somebody_makes_a_principal_with_the_roles_of_its_groups(
    world: World,
) -> None:
    ada = await world.admit(world.sign())
    assert await world.admit(world.sign(groups=["readers"])) == ada
    eve = await world.admit(world.sign(sub="eve", groups=[]))

    assert ada != eve
    assert await world.roles(ada) == {"viewer"}
    assert await world.roles(eve) == set()
    async with world.db.read(SYSTEM) as tx:
        principal = await world.identity.get_principal(tx, ada)
        profile = await world.identity.principals.get_profile(tx, ada)
        written = await read_revisions(tx, 0, 100)
    assert principal.subject == f"{world.issuer.url}|ada"
    assert (profile.display_name, profile.email) == ("Ada Lovelace", "ada@example.org")
    assert [item.event for item in written][1:] == [
        "identity.principal.created",
        "identity.role.granted",
        "identity.principal.created",
    ]
    assert not [item for item in written if "Lovelace" in item.after or "|ada" in item.after]


async def test_roles_follow_the_groups_of_the_newest_token(world: World) -> None:
    ada = await world.admit(world.sign(groups=["readers", "deployers", "others"]))
    assert await world.roles(ada, "prj_1") == {"viewer", "ml_ops"}
    assert await world.roles(ada, "prj_2") == {"viewer"}

    await world.admit(world.sign(groups="deployers"))
    assert await world.roles(ada, "prj_1") == {"ml_ops"}

    count = len(await world.events())
    await world.admit(world.sign(groups=["deployers"]))
    assert len(await world.events()) == count  # nothing changed, so nothing was written
    world.clock.advance(4 * 86_400)
    await world.admit(world.sign(groups=["deployers"]))
    world.clock.advance(4 * 86_400)
    assert await world.roles(ada, "prj_1") == {"ml_ops"}  # given anew on the way
    world.clock.advance(4 * 86_400)
    assert await world.roles(ada, "prj_1") == set()  # nobody has said it for a week


@pytest.mark.parametrize(
    ("other", "param"),
    [
        ({"aud": "another"}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": ["another"]}, "aud"),
        ({"iss": "https://issuer.example.org"}, "iss"),
        ({"iss": None}, "iss"),
        ({"azp": "stranger"}, "azp"),
        ({"azp": None}, "azp"),
        ({"exp": 1}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"exp": True}, "exp"),
        ({"nbf": 1 << 39}, "nbf"),
        ({"iat": None}, "iat"),
        ({"iat": 1 << 39}, "iat"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "a" * 256}, "sub"),
        ({"sub": "\ud800"}, "sub"),
        ({"sub": "a\0b"}, "sub"),
        ({"iss": "\ud800"}, "iss"),
        ({"iss": "a\0b"}, "iss"),
        ({"junk": "a" * 20_000}, "size"),
    ],
)
async def test_a_token_that_is_not_for_us_now_is_refused(
    world: World, other: dict[str, Any], param: str
) -> None:
    right = world.claims() | other
    claims = {name: value for name, value in right.items() if value is not None}
    assert await world.refuse(world.issuer.sign("one", claims)) == param
    assert (await world.events()) == ["identity.issuer.created"]


@pytest.mark.parametrize("odd", ["\ud800", "a\0b"])
async def test_what_cannot_be_a_name_or_a_group_is_not_believed(world: World, odd: str) -> None:
    token = world.sign(name=odd, email=f"{odd}@example.org", groups=[odd, "readers"])
    ada = await world.admit(token)
    assert await world.roles(ada) == {"viewer"}
    async with world.db.read(SYSTEM) as tx:
        assert await world.identity.principals.get_profile(tx, ada) == Profile()


async def test_clocks_may_differ_by_a_minute_and_no_more(world: World) -> None:
    now = world.clock.now_us() // 1_000_000
    for other in ({"exp": now - 59}, {"nbf": now + 60}, {"iat": now + 60}):
        await world.admit(world.sign(**other))
    for other in ({"exp": now - 60}, {"nbf": now + 61}, {"iat": now + 61}):
        assert await world.refuse(world.sign(**other)) == next(iter(other))
    day = 86_400
    await world.admit(world.sign(iat=now - day - 59, exp=now + day))
    assert await world.refuse(world.sign(iat=now - day - 60, exp=now + day)) == "iat"


async def test_forged_signatures_are_refused(world: World) -> None:
    right = world.sign()
    head, body, signature = right.split(".")
    public = world.issuer.keys["one"].public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    stranger = OidcIssuer()
    stranger.add_rsa("one")
    claims = world.claims(sub="root")

    assert await world.refuse(_encode({"alg": "none", "kid": "one"}, claims, b"")) == "alg"
    assert await world.refuse(_encode({"kid": "one"}, claims, b"")) == "alg"
    odd = claims | {"iss": [world.issuer.url]}
    assert await world.refuse(_encode({"alg": "RS256", "kid": "one"}, odd, b"")) == "iss"
    for algorithm in ("HS256", "HS512"):
        assert await world.refuse(_hmac(algorithm, claims, pem)) == "alg"
    assert await world.refuse(stranger.sign("one", claims)) == "signature"
    other_body = _part(claims)
    assert await world.refuse(f"{head}.{other_body}.{signature}") == "signature"
    assert await world.refuse(f"{head}.{body}.") == "signature"
    assert await world.refuse(_encode({"alg": "ES256", "kid": "one"}, claims, b"a" * 64)) == (
        "signature"
    )
    assert await world.refuse(world.issuer.sign("one", claims, kid="")) == "kid"
    assert await world.refuse(world.issuer.sign("one", claims, kid="nobody's")) == "kid"
    for junk in ("a.b.c", "..", f"{head}.{body}.{signature}."[:-2] + ".", "\u00e4.\u00e4.\u00e4"):
        await world.refuse(junk)
    assert await world.events() == ["identity.issuer.created"]


async def test_a_key_in_the_token_itself_is_not_looked_at(world: World) -> None:
    stranger = OidcIssuer()
    stranger.add_rsa("mine")
    own = stranger.list_keys()[0]
    token = stranger.sign("mine", world.claims(), jwk=own, jku="http://127.0.0.1:1/keys")

    assert await world.refuse(token) == "kid"
    assert set(world.issuer.asked) == {"/.well-known/openid-configuration", "/keys"}


async def test_weak_and_foreign_keys_of_an_issuer_do_not_count(world: World) -> None:
    world.issuer.add_rsa("weak", 1024)
    world.issuer.add_ec("curve")
    secret = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    world.issuer.more_keys = [
        {"kty": "oct", "kid": "shared", "k": secret, "alg": "HS256"},
        {"kty": "RSA", "kid": "cut", "n": "AQAB"},
        {"no": "key"},
    ]
    await world.admit(world.sign("curve"))
    assert await world.refuse(_hmac("HS256", world.claims(), b"s" * 32, "shared")) == "alg"
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        weak = world.sign("weak")
    assert await world.refuse(weak) == "kid"


async def test_a_key_that_the_issuer_adds_is_found_and_one_it_withdraws_is_refused(
    world: World,
) -> None:
    await world.admit(world.sign())
    world.issuer.add_rsa("two")
    world.clock.advance(31)
    await world.admit(world.sign("two"))
    assert world.issuer.asked["/keys"] == 2
    old = world.sign("one", exp=world.clock.now_us() // 1_000_000 + 86_400)
    del world.issuer.keys["one"]
    await world.admit(old)
    world.clock.advance(301)
    assert await world.refuse(old) == "kid"


async def test_unknown_keys_make_nobody_ask_the_issuer_again_and_again(world: World) -> None:
    await world.admit(world.sign())
    world.clock.advance(1)
    stranger = OidcIssuer()
    for number in range(20):
        stranger.add_ec(f"key-{number}")
        assert await world.refuse(stranger.sign(f"key-{number}", world.claims())) == "kid"
    assert world.issuer.asked["/keys"] == 2  # the first look, and one that was forced


async def test_one_asks_for_all_and_the_others_use_what_there_is(world: World) -> None:
    world.issuer.gate.clear()
    waiting = [asyncio.ensure_future(world.admit(world.sign(sub=f"u{n}"))) for n in range(8)]
    await world.issuer.is_asked.wait()
    world.issuer.gate.set()
    assert len(set(await asyncio.gather(*waiting))) == 8
    assert world.issuer.asked["/keys"] == 1

    world.clock.advance(301)
    world.issuer.gate.clear()
    refreshing = asyncio.ensure_future(world.admit(world.sign(sub="u0")))
    world.issuer.is_asked.clear()
    await world.issuer.is_asked.wait()
    await world.admit(world.sign(sub="u1"))  # does not wait for the answer
    world.issuer.gate.set()
    await refreshing


async def test_an_issuer_that_is_away_is_believed_for_a_day(world: World) -> None:
    await world.admit(world.sign())
    world.issuer.is_away = True
    world.clock.advance(3600)
    await world.admit(world.sign())
    world.clock.advance(86_400)
    with pytest.raises(PilotageError) as away:
        await world.admit(world.sign())
    assert away.value.code == "unavailable"


@pytest.mark.parametrize(
    "discovery",
    [{"issuer": "https://issuer.example.org"}, {"jwks_uri": "http://10.0.0.1/keys"}],
)
async def test_what_discovery_says_must_fit(world: World, discovery: dict[str, str]) -> None:
    world.issuer.discovery = discovery
    with pytest.raises(PilotageError) as refused:
        await world.admit(world.sign())
    assert refused.value.code in ("unavailable", "invalid_request")


async def test_keys_are_fetched_from_where_the_operator_allows(world: World) -> None:
    identity = IdentityService(world.clock, JsonFetch(EgressPolicy("", world.clock)))
    with pytest.raises(PilotageError) as refused:
        await identity.admit(world.db, world.sign())
    assert refused.value.code == "egress_denied"


async def test_the_disabled_and_the_tokens_of_a_deleted_issuer_are_refused(world: World) -> None:
    ada = await world.admit(world.sign())
    eve = await world.admit(world.sign(sub="eve"))
    async with world.db.write(SYSTEM) as tx:
        await world.identity.principals.disable(tx, ada)
    await world.refuse(world.sign())
    assert await world.admit(world.sign(sub="eve")) == eve
    async with world.db.write(SYSTEM) as tx:
        await world.identity.issuers.delete(tx, "bank")
    assert await world.refuse(world.sign(sub="eve")) == "iss"
    assert await world.roles(eve) == set()


async def test_what_an_issuer_cannot_be_is_refused(world: World) -> None:
    spec = replace(world.spec, url="https://issuer.example.org/realms/bank")
    gateway = GroupRole(group="g", role=Role.GATEWAY, scope=EVERYWHERE)
    for other in (
        {"url": "http://issuer.example.org"},
        {"url": "https://user:secret@issuer.example.org"},
        {"url": "ftp://127.0.0.1"},
        {"audience": ""},
        {"algorithms": ("HS256",)},
        {"algorithms": ("none",)},
        {"algorithms": ()},
        {"skew_us": 601_000_000},
        {"max_age_us": 0},
        {"roles": (gateway,)},
    ):
        async with world.db.write(SYSTEM) as tx:
            with pytest.raises(PilotageError) as refused:
                await world.identity.issuers.create(tx, "other", replace(spec, **other))
            assert refused.value.code == "invalid_request"
    async with world.db.write(SYSTEM) as tx:
        made = await world.identity.issuers.create(tx, "other", spec)
        assert await world.identity.issuers.get(tx, made.id) == made
        changed = await world.identity.issuers.replace(tx, "other", replace(spec, parties=("a",)))
    assert (changed.rev, changed.parties) == (2, ("a",))


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _encode(header: dict[str, Any], claims: dict[str, Any], signature: bytes) -> str:
    tail = base64.urlsafe_b64encode(signature).decode().rstrip("=")
    return f"{_part(header)}.{_part(claims)}.{tail}"


def _hmac(algorithm: str, claims: dict[str, Any], secret: bytes, kid: str = "one") -> str:
    digest = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}[algorithm]
    signed = f"{_part({'alg': algorithm, 'kid': kid})}.{_part(claims)}"
    proof = hmac.new(secret, signed.encode(), digest).digest()
    return f"{signed}.{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"

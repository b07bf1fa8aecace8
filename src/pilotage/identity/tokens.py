"""Bearer tokens of issuers: whose they are, and what the groups in them give."""

import hashlib
from typing import Any, NamedTuple

import jwt

from pilotage.core.errors import PilotageError
from pilotage.identity import issuer_store
from pilotage.identity import principal_store as store
from pilotage.identity.principals import Principals
from pilotage.identity.rules import check_profile
from pilotage.identity.signing_keys import Fetch, SigningKeys
from pilotage.identity.token_rules import MAX_TOKEN, check_claims, find_roles, is_text, refuse_token
from pilotage.identity.types import (
    Binding,
    Principal,
    PrincipalKind,
    Profile,
    Role,
    TokenIssuer,
)
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.outbox import hold_revisions

LASTS_US = 7 * 86_400_000_000  # a role that a group gives, after the last token that said so
_TOKEN_PARTS = 3


class _Verified(NamedTuple):
    issuer: TokenIssuer
    subject: str
    claims: dict[str, Any]


def is_token(secret: str) -> bool:
    """Say whether a bearer credential is a token of an issuer rather than one of ours."""
    return secret.count(".") == _TOKEN_PARTS - 1


class Tokens:
    """Verifies tokens; the first of somebody makes a principal of theirs."""

    def __init__(self, clock: Clock, principals: Principals, fetch: Fetch) -> None:
        self._principals = principals
        self._clock = clock
        self._keys = SigningKeys(clock, fetch)

    async def authenticate(self, db: Database, token: str) -> Principal:
        """Return whose token it is; raise ``invalid_credential``, or ``unavailable``.

        The issuer may be asked for its keys, in no transaction.
        """
        verified = await self._verify(db, token)
        wanted = find_roles(verified.issuer, verified.claims)
        async with db.read(SYSTEM) as tx:
            principal = await store.find_subject(tx, _name_subject(verified))
            if principal is not None and await self._is_settled(tx, principal, verified, wanted):
                return _check_enabled(principal)
        actor = Actor(principal_id=verified.issuer.id, reason="a token says so")
        async with db.write(actor) as tx:
            return await self._settle(tx, verified, wanted)

    async def _verify(self, db: Database, token: str) -> _Verified:
        if len(token) > MAX_TOKEN:
            raise refuse_token("size", f"it has more than {MAX_TOKEN} letters")
        try:
            header = jwt.get_unverified_header(token)
            unread = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise refuse_token("token", "it cannot be read") from None
        named = unread.get("iss")
        issuer = None
        if is_text(named):
            async with db.read(SYSTEM) as tx:
                issuer = await issuer_store.find_url(tx, named)
        if issuer is None:
            raise refuse_token("iss", "nobody here knows its issuer")
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in issuer.algorithms:
            raise refuse_token("alg", "its algorithm is not accepted")
        if not isinstance(kid, str) or not kid:
            raise refuse_token("kid", "it does not say which key signed it")
        key = await self._keys.find(issuer, kid)
        try:
            claims = jwt.decode(token, key.key, [str(algorithm)], options=_SIGNATURE_ONLY)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise refuse_token("signature", "its signature is not right") from None
        return _Verified(issuer, check_claims(issuer, claims, self._clock.now_us()), claims)

    async def _is_settled(
        self,
        tx: Tx,
        principal: Principal,
        verified: _Verified,
        wanted: frozenset[tuple[Role, str]],
    ) -> bool:
        given = await self._list_given(tx, principal, verified.issuer)
        return given.keys() == wanted and not any(
            _is_due(binding, tx.now_us) for binding in given.values()
        )

    async def _settle(
        self, tx: Tx, verified: _Verified, wanted: frozenset[tuple[Role, str]]
    ) -> Principal:
        """Make the principal if this is the first token, and give it the roles of its groups.

        The issuer may have been changed or deleted while its keys were asked for.
        """
        issuer, subject = verified.issuer, _name_subject(verified)
        await hold_revisions(tx)
        current = await issuer_store.find_issuer(tx, issuer.id)
        if current is None or (current.id, current.rev) != (issuer.id, issuer.rev):
            raise refuse_token("iss", "its issuer has just been changed")
        principal = await store.find_subject(tx, subject)
        if principal is None:
            digest = hashlib.sha256(subject.encode()).hexdigest()[:12]
            principal = await self._principals.create(
                tx,
                PrincipalKind.USER,
                f"{issuer.name[:48]}-{digest}",
                _read_profile(verified.claims),
                subject=subject,
            )
        _check_enabled(principal)
        given = await self._list_given(tx, principal, issuer)
        for role, scope in sorted(wanted):
            binding = given.get((role, scope))
            if binding is None or _is_due(binding, tx.now_us):
                await self._principals.grant(
                    tx, principal.id, role, scope=scope, ttl_us=LASTS_US, source=issuer.name
                )
        for key in given.keys() - wanted:
            await self._principals.end_binding(tx, given[key].id)
        return principal

    async def _list_given(
        self, tx: Tx, principal: Principal, issuer: TokenIssuer
    ) -> dict[tuple[Role, str], Binding]:
        return {
            (binding.role, binding.scope): binding
            for binding in await store.list_bindings(tx, [principal.id])
            if binding.source == issuer.name and binding.is_live(tx.now_us)
        }


_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _name_subject(verified: _Verified) -> str:
    return f"{verified.issuer.url}|{verified.subject}"


def _is_due(binding: Binding, now_us: int) -> bool:
    """Say whether a role should be given anew: half of its time is over."""
    return binding.expires_at_us is not None and binding.expires_at_us - now_us < LASTS_US // 2


def _check_enabled(principal: Principal) -> Principal:
    if principal.disabled_at_us is not None:
        raise PilotageError("invalid_credential", "The principal of the token is disabled.")
    return principal


def _read_profile(claims: dict[str, Any]) -> Profile:
    """Return what a token says of a person, as far as it looks like that."""
    said = {"display_name": claims.get("name"), "email": claims.get("email")}
    plain = {name: text for name, text in said.items() if is_text(text)}
    try:
        return check_profile(Profile(**plain))
    except PilotageError:
        return Profile()

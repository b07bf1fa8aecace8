"""Issuers of tokens. Never commits: whoever opened the transaction does."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pilotage.core.errors import PilotageError
from pilotage.identity import issuer_store as store
from pilotage.identity import principal_store
from pilotage.identity.principals import PAGE, Principals
from pilotage.identity.token_rules import check_issuer, check_not_own, list_kept
from pilotage.identity.types import IssuerSpec, Role, TokenIssuer
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision, hold_revisions


class Issuers:
    """Whose tokens the control API accepts, and what the groups in them give."""

    def __init__(self, clock: Clock, principals: Principals) -> None:
        self._clock = clock
        self._principals = principals

    async def create(self, tx: Tx, name: str, spec: IssuerSpec) -> TokenIssuer:
        """Accept the tokens of an issuer; raise ``already_exists`` for its name or address.

        Raises ``permission_denied`` for whoever it has spoken of already.
        """
        check_issuer(name, spec)
        await self._check_not_own(tx, None, spec)
        if await store.find_issuer(tx, name) or await store.find_url(tx, spec.url):
            raise PilotageError(
                "already_exists",
                f"There is an issuer {name!r}, or one of {spec.url}.",
                param="name",
            )
        issuer = TokenIssuer(
            id=self._clock.new_id("iss"),
            rev=1,
            name=name,
            created_at_us=tx.now_us,
            **_values(spec),
        )
        await store.insert_issuer(tx, issuer)
        await append_revision(tx, "identity.issuer.created", issuer.id, 1, issuer)
        return issuer

    async def get(self, tx: Tx, name_or_id: str) -> TokenIssuer:
        """Return an issuer by name or id; raise ``not_found``."""
        issuer = await store.find_issuer(tx, name_or_id)
        if issuer is None:
            raise PilotageError(
                "not_found",
                f"There is no issuer {name_or_id!r}.",
                hint="List them: GET /api/v1/issuers",
            )
        return issuer

    async def list(self, tx: Tx, after: str = "", limit: int = PAGE) -> Sequence[TokenIssuer]:
        """Return issuers in order of their names."""
        return await store.list_issuers(tx, after, limit)

    async def replace(
        self, tx: Tx, name_or_id: str, spec: IssuerSpec, expected_rev: int | None = None
    ) -> TokenIssuer:
        """Replace what is said of an issuer; its name stays.

        Roles that it gave and no longer gives end; the next token gives those that are left.
        Raises ``permission_denied`` for whoever would get more by it.
        """
        await hold_revisions(tx)
        before = await self.get(tx, name_or_id)
        if expected_rev not in (None, before.rev):
            raise _changed(before)
        after = replace(before, rev=before.rev + 1, **_values(check_issuer(before.name, spec)))
        await self._check_not_own(tx, before, after)
        if not await store.replace_issuer(tx, before, after):
            raise _changed(before)
        await append_revision(tx, "identity.issuer.changed", after.id, after.rev, after, before)
        await self._end_given(tx, before.name, list_kept(before, after))
        return after

    async def delete(self, tx: Tx, name_or_id: str) -> None:
        """Accept an issuer's tokens no more, and take away what their groups gave."""
        await hold_revisions(tx)
        issuer = await self.get(tx, name_or_id)
        await self._end_given(tx, issuer.name, frozenset())
        if not await store.delete_issuer(tx, issuer):
            raise _changed(issuer)
        await append_revision(
            tx, "identity.issuer.deleted", issuer.id, issuer.rev + 1, {"id": issuer.id}, issuer
        )

    async def _end_given(self, tx: Tx, name: str, kept: frozenset[tuple[Role, str]]) -> None:
        """End the roles that tokens of an issuer gave, but for some."""
        for binding in await self._principals.list_bindings(tx):
            if binding.source == name and (binding.role, binding.scope) not in kept:
                await self._principals.end_binding(tx, binding.id)

    async def _check_not_own(self, tx: Tx, before: IssuerSpec | None, after: IssuerSpec) -> None:
        actor = await principal_store.find_principal(tx, tx.actor.principal_id)
        check_not_own(actor.subject if actor else None, before, after)


def _values(spec: IssuerSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in IssuerSpec.__dataclass_fields__}


def _changed(issuer: TokenIssuer) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"The issuer {issuer.name!r} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )

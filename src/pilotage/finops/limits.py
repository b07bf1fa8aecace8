"""The verbs of limits: budgets, quotas, rates and concurrency. Never commits."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.finops import store
from pilotage.finops.rules import check_limit
from pilotage.finops.types import Limit, LimitSpec
from pilotage.identity.service import IdentityService
from pilotage.identity.types import ApiKey
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

EVERYTHING = 1_000_000
EACH = "*"
_CHANGEABLE = ("amount", "action", "downgrade_to", "on_store_loss")
_SCOPE = ("measure", "per", "tenant_id", "key_id", "user", "endpoint")


class Named(Protocol):
    """Anything with a name, such as an endpoint."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...


class LimitService:
    """Limits of projects.

    ``get_endpoint`` returns an endpoint by name or id, or raises ``not_found``: endpoints belong to
    a slice above this one.
    """

    def __init__(
        self,
        clock: Clock,
        identity: IdentityService,
        get_endpoint: Callable[[Tx, str], Awaitable[Named]],
    ) -> None:
        self._clock = clock
        self._identity = identity
        self._get_endpoint = get_endpoint

    async def create_limit(self, tx: Tx, name: str, spec: LimitSpec) -> Limit:
        """Create a limit in the transaction's project; it counts calls that begin from then on.

        Raise ``already_exists`` if the name is taken, ``not_found`` for a tenant, key or endpoint
        that is not there, ``invalid_request`` for what a limit cannot be.
        """
        check_name(name)
        values = await self._resolve(tx, spec)
        if await store.find_limit(tx, name):
            raise PilotageError(
                "already_exists", f"There is a limit {name!r} already.", param="name"
            )
        limit = Limit(
            id=self._clock.new_id("lim"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            created_at_us=tx.now_us,
            **values,
        )
        await store.insert_limit(tx, limit)
        await append_revision(tx, "finops.limit.created", limit.id, 1, limit)
        return limit

    async def get_limit(self, tx: Tx, name_or_id: str) -> Limit:
        """Return a living limit by name or id; raise ``not_found``."""
        limit = await store.find_limit(tx, name_or_id)
        if limit is None or limit.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no limit {name_or_id!r}.",
                hint="List them: pilotage limits list",
                param="limit_name",
            )
        return limit

    async def list_limits(
        self, tx: Tx, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[Limit]:
        """Return living limits by name."""
        return await store.list_limits(tx, after, limit)

    async def change_limit(
        self, tx: Tx, name_or_id: str, spec: LimitSpec, expected_rev: int | None = None
    ) -> Limit:
        """Change a limit's amount or what it does; its counters go on.

        Raise ``conflict`` if it would count something else, or of somebody else.
        """
        limit = await self.get_limit(tx, name_or_id)
        if expected_rev is not None and expected_rev != limit.rev:
            raise _changed(limit)
        wanted = await self._resolve(tx, spec)
        for name in _SCOPE:
            if wanted[name] != getattr(limit, name):
                raise PilotageError(
                    "conflict",
                    f"Limit {limit.name!r} counts something else: its "
                    f"{name.removesuffix('_id')} never changes.",
                    hint="Delete it and set it anew, or set one of another name; it counts anew.",
                    param=name.removesuffix("_id"),
                )
        after = {name: wanted[name] for name in _CHANGEABLE}
        before = {name: getattr(limit, name) for name in _CHANGEABLE}
        if after == before:
            return limit
        if not await store.change_limit(tx, limit, **after):
            raise _changed(limit)
        await append_revision(tx, "finops.limit.changed", limit.id, limit.rev + 1, after, before)
        return replace(limit, rev=limit.rev + 1, **after)

    async def delete_limit(self, tx: Tx, name_or_id: str) -> None:
        """Delete a limit: from then on it holds nothing back."""
        limit = await self.get_limit(tx, name_or_id)
        name = f"{limit.name}~{limit.id}"
        if not await store.change_limit(tx, limit, name=name, deleted_at_us=tx.now_us):
            raise _changed(limit)
        gone = {"id": limit.id, "name": limit.name}
        await append_revision(tx, "finops.limit.deleted", limit.id, limit.rev + 1, gone, limit)

    async def _resolve(self, tx: Tx, spec: LimitSpec) -> dict[str, Any]:
        """Return a specification with ids in place of names, and the amount as a number."""
        amount = check_limit(spec)
        tenant_id = spec.tenant
        if spec.tenant not in {"", EACH}:
            tenant_id = (await self._identity.get_tenant(tx, spec.tenant)).id
        key_id = spec.key
        if spec.key not in {"", EACH}:
            key_id = (await self._find_key(tx, spec.key, tenant_id)).id
        return {
            "measure": spec.measure,
            "amount": amount,
            "per": spec.per,
            "tenant_id": tenant_id,
            "key_id": key_id,
            "user": spec.user,
            "endpoint": await self._name_endpoint(tx, spec.endpoint, "endpoint"),
            "action": spec.action,
            "downgrade_to": await self._name_endpoint(tx, spec.downgrade_to, "downgrade_to"),
            "on_store_loss": spec.on_store_loss,
        }

    async def _find_key(self, tx: Tx, name_or_id: str, tenant_id: str) -> ApiKey:
        """Return the one living key of that id or name, of the tenant if one is given."""
        named = (
            [await self._identity.get_key(tx, name_or_id)]
            if name_or_id.startswith("key_")
            else [key for key in await self._identity.list_keys(tx) if key.name == name_or_id]
        )
        found = [
            key
            for key in named
            if key.revoked_at_us is None and tenant_id in {"", EACH, key.tenant_id}
        ]
        if len(found) == 1:
            return found[0]
        if not found:
            raise PilotageError(
                "not_found",
                f"There is no key {name_or_id!r}.",
                hint="List them: pilotage keys list",
                param="key",
            )
        raise PilotageError(
            "invalid_request",
            f"{len(found)} keys are called {name_or_id!r}.",
            hint="Name the tenant as well, or the key's id: pilotage keys list",
            param="key",
        )

    async def _name_endpoint(self, tx: Tx, name_or_id: str, param: str) -> str:
        if name_or_id in {"", EACH}:
            return name_or_id
        try:
            return (await self._get_endpoint(tx, name_or_id)).name
        except PilotageError as missing:
            raise PilotageError(
                missing.code, missing.detail, hint=missing.hint, param=param
            ) from None


def _changed(limit: Limit) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"Limit {limit.name!r} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )

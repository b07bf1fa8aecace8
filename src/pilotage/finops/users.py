"""End users in the ledger: a token in each entry, and their names apart, sealed for their tenant.

A token is a fingerprint with the tenant's own key, so it says who is the same and not who. With
the tenant's key its users' names are gone, wherever in the database they were.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from pilotage.core.errors import PilotageError
from pilotage.finops import erasure_store, user_store
from pilotage.finops.rules import LimitOwner, is_counter_of
from pilotage.finops.types import LedgerEntry
from pilotage.finops.user_store import SealedName
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.kit.secrets import OwnerKeys, Vault

PAGE = 1_000
_ALL = 2**31 - 1
_USER = "user"  # what fingerprints of users are for


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An end user of a tenant: the token in the ledger and the name it stands for."""

    tenant_id: str
    token: str
    name: str

    @property
    def id(self) -> str:
        """The token."""
        return self.token


class Users:
    """Gives end users tokens and knows their names. Never commits."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def label(self, tx: Tx, charges: Sequence[LedgerEntry]) -> list[LedgerEntry]:
        """Return charges with tokens for users, whose names are kept.

        The users of a tenant that was erased become nobody.
        """
        named = {(item.tenant_id, item.project_id, item.user) for item in charges if item.user}
        tokens = await self.keep(tx, named)
        return [
            replace(item, user=tokens[item.tenant_id, item.user]) if item.user else item
            for item in charges
        ]

    async def list_users(
        self,
        tx: Tx,
        tenant_id: str | None = None,
        tokens: Collection[str] = (),
        after: str = "",
        limit: int = PAGE,
    ) -> list[User]:
        """Return users by token; ``tokens`` only those. Users of erased tenants are none."""
        return await self._open_all(
            tx, await user_store.list_names(tx, tenant_id, tokens, after, limit)
        )

    async def count_users(self, tx: Tx, tenant_id: str) -> int:
        """Return how many users of a tenant have a name."""
        return await user_store.count_names(tx, tenant_id)

    async def count_limits(self, tx: Tx, tenant_id: str) -> int:
        """Return how many limits name a user of a tenant."""
        return len(await erasure_store.list_naming_limits(tx, tenant_id))

    async def forget(
        self, tx: Tx, tenant_id: str, *, project_id: str = "", key_ids: Collection[str] = ()
    ) -> int:
        """Remove the names of a tenant's users wherever finops has them; return how many users.

        Their counters go too, and the limits that are for one of them. The tenant's project and
        keys tell whose a counter is that does not name its tenant.
        """
        await self._delete_counters(tx, tenant_id, project_id, key_ids)
        for limit in await erasure_store.list_naming_limits(tx, tenant_id):
            if not await erasure_store.unname_limit(tx, limit):
                raise PilotageError("conflict", f"Limit {limit.name!r} has changed meanwhile.")
            gone = {"id": limit.id, "name": limit.name}
            await append_revision(tx, "finops.limit.deleted", limit.id, limit.rev + 1, gone)
        return await user_store.delete_names(tx, tenant_id)

    async def label_next_plain(self, tx: Tx, limit: int = PAGE) -> int:
        """Put tokens into the next older entries that name users in plain words; return how many.

        Entries were written like that before there were tokens. 0 means that there are no more.
        """
        end = await user_store.find_plain_end(tx)
        if end is None:
            return 0
        entries = await user_store.list_plain(tx, end, limit)
        named = {(item.tenant_id, item.project_id, item.user) for item in entries}
        tokens = await self.keep(tx, named)
        await user_store.replace_users(
            tx, {item.seq: tokens[item.tenant_id, item.user] for item in entries}
        )
        rest = entries[-1].seq - 1 if len(entries) == limit else None
        if not await user_store.move_plain_end(tx, end, rest):
            raise PilotageError("conflict", "The ledger's users are labelled by another process.")
        return len(entries)

    async def reseal_next(self, tx: Tx, tenant_id: str, limit: int = PAGE) -> int:
        """Seal the next names with the tenant's newest key; return how many, 0 when all are."""
        keys = await self._vault.get_keys(tx, tenant_id)
        stale = await user_store.list_stale(tx, tenant_id, keys.newest, limit)
        for item in stale:
            new = _seal(keys, item.project_id, item.token, _open(keys, item))
            if not await user_store.replace_name(tx, item, new):
                raise PilotageError("conflict", "A user's name was sealed anew meanwhile.")
        return len(stale)

    async def _delete_counters(
        self, tx: Tx, tenant_id: str, project_id: str, key_ids: Collection[str]
    ) -> None:
        limits = await erasure_store.list_limit_owners(tx, project_id)
        users: set[str] = set()
        if LimitOwner("", "") in limits.values():  # they count the users of all tenants together
            users = await self._list_own_names(tx, tenant_id, project_id)
        gone = [
            counter
            for counter in await erasure_store.list_user_counters(tx)
            if is_counter_of(
                counter,
                limits.get(counter.partition("|")[0]),
                tenant_id=tenant_id,
                key_ids=key_ids,
                users=users,
            )
        ]
        await erasure_store.delete_counters(tx, gone)

    async def _list_own_names(self, tx: Tx, tenant_id: str, project_id: str) -> set[str]:
        """Return the names of a tenant's users that no other tenant of the project has."""
        own: set[str] = set()
        others: set[str] = set()
        sealed = await user_store.list_names(tx, None, (), "", _ALL)
        of_project = [item for item in sealed if item.project_id == project_id]
        for user in await self._open_all(tx, of_project):
            (own if user.tenant_id == tenant_id else others).add(user.name)
        return own - others

    async def _open_all(self, tx: Tx, sealed: Sequence[SealedName]) -> list[User]:
        keys = await self._vault.find_keys(tx, {item.tenant_id for item in sealed})
        return [
            User(tenant_id=item.tenant_id, token=item.token, name=_open(keys[item.tenant_id], item))
            for item in sealed
            if item.tenant_id in keys
        ]

    async def keep(
        self, tx: Tx, named: Iterable[tuple[str, str, str]]
    ) -> dict[tuple[str, str], str]:
        """Keep the names of (tenant, project, user); return the tokens of (tenant, user)."""
        by_tenant: dict[str, dict[str, str]] = defaultdict(dict)
        for tenant_id, project_id, user in sorted(named):
            by_tenant[tenant_id][user] = project_id
        tokens: dict[tuple[str, str], str] = {}
        for tenant_id, users in by_tenant.items():
            keys = await self._find_keys(tx, tenant_id)
            found = {user: keys.fingerprint(user, _USER) if keys else "" for user in users}
            tokens |= {(tenant_id, user): token for user, token in found.items()}
            if keys is not None:
                known = await user_store.list_known(tx, tenant_id, list(found.values()))
                fresh = {user: token for user, token in found.items() if token not in known}
                await user_store.insert_names(
                    tx, [_seal(keys, users[user], token, user) for user, token in fresh.items()]
                )
        return tokens

    async def _find_keys(self, tx: Tx, tenant_id: str) -> OwnerKeys | None:
        try:
            return await self._vault.get_keys(tx, tenant_id)
        except PilotageError as refused:
            if refused.code != "erased":
                raise
            return None


def _seal(keys: OwnerKeys, project_id: str, token: str, name: str) -> SealedName:
    return SealedName(
        tenant_id=keys.owner_id,
        token=token,
        project_id=project_id,
        name=keys.seal(name.encode("utf-8", "surrogatepass"), _purpose(token)),
        key_number=keys.newest,
    )


def _open(keys: OwnerKeys, sealed: SealedName) -> str:
    return keys.open(sealed.name, _purpose(sealed.token)).decode("utf-8", "surrogatepass")


def _purpose(token: str) -> str:
    return f"user_label/{token}"

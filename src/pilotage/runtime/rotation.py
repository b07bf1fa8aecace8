"""Changing keys: the root key, and a tenant's data key; each step stands by itself.

A process that is killed in between leaves both keys at work. The next start goes on wrapping; a
tenant's names are sealed again by the next rotation.
"""

import asyncio
from collections.abc import Awaitable, Callable

from pilotage.finops.users import Users
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.operations import Progress
from pilotage.kit.secrets import Vault
from pilotage.runtime.vault import announce_root


class Rotation:
    """Makes new keys and puts them in use."""

    def __init__(self, db: Database, vault: Vault, users: Users) -> None:
        self._db = db
        self._vault = vault
        self._users = users
        self._one = asyncio.Lock()

    async def rotate_root(self, actor: Actor, progress: Progress) -> dict[str, int]:
        """Make a new root key and wrap every data key with it; the old ones stay in the file.

        If an earlier rotation was interrupted, it is ended instead.
        """
        async with self._one:
            stale = await self._count_stale() or await self._add_root(actor)
        wrapped = await self._repeat(self._vault.rewrap_next, "wrapping data keys", stale, progress)
        return {"root": self._vault.root.newest, "data_keys": wrapped}

    async def rotate_tenant(
        self, actor: Actor, tenant_id: str, progress: Progress
    ) -> dict[str, int]:
        """Make a new data key for a tenant and seal with it what the old ones sealed."""
        async with self._db.write(actor) as tx:
            number = await self._vault.rotate(tx, tenant_id)
            names = await self._users.count_users(tx, tenant_id)

        async def reseal(tx: Tx) -> int:
            return await self._users.reseal_next(tx, tenant_id)

        resealed = await self._repeat(reseal, "sealing names", names, progress)
        return {"data_key": number, "names": resealed}

    async def _add_root(self, actor: Actor) -> int:
        """Put a new root key in use once it is said that there is one; return what it is to wrap.

        A key that was announced and then not written is made now: it was never in use.
        """
        number = self._vault.root.newest + 1
        await announce_root(self._db, actor, number)
        self._vault.root.add()
        return await self._count_stale()

    async def _count_stale(self) -> int:
        async with self._db.read(SYSTEM) as tx:
            return await self._vault.count_stale(tx)

    async def _repeat(
        self, step: Callable[[Tx], Awaitable[int]], phase: str, total: int, progress: Progress
    ) -> int:
        done = 0
        while True:
            progress(phase, done, total)
            async with self._db.write(SYSTEM) as tx:
                changed = await step(tx)
            if not changed:
                return done
            done += changed

"""Erasing a tenant: what identifies anybody goes, what was counted and paid for stays.

With the tenant's data key everything that was sealed for it is gone at once, in the database and,
once their root key is gone, in every copy of it. What files still say, and until when, is listed.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pilotage.audit.holds import HoldService
from pilotage.core.errors import PilotageError
from pilotage.finops.users import Users
from pilotage.identity.service import IdentityService
from pilotage.identity.types import Tenant
from pilotage.kit.clock import rfc3339
from pilotage.kit.config import Settings, duration_s
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import Tx
from pilotage.kit.idempotency import KEPT_US
from pilotage.kit.outbox import append_revision
from pilotage.kit.secrets import Vault
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.alerts.service import KEEP_PAST_US as ALERTS_KEPT_US
from pilotage.monitoring.quality.rules import KEPT_US as OPINIONS_KEPT_US
from pilotage.monitoring.quality.service import QualityService
from pilotage.rollouts.samples.service import SampleService

_GATEWAY_REPLIES_S = 600
_CUT_WITHIN_S = 0.5  # until readers have ended; whoever writes waits meanwhile
_CUT_AGAIN_S = 0.05
_CUT_EVERY_S = 1.0
_LOG = logging.getLogger("pilotage.erasure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remnant:
    """Where something of the tenant is left, what, and when it goes."""

    where: str
    what: str
    until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureReport:
    """What erasing a tenant removes, or has removed, and what is left."""

    tenant_id: str
    tenant: str
    is_done: bool
    api_keys: int
    data_keys: int
    users: int
    limits: int
    remnants: Sequence[Remnant]


class Erasure:
    """Erases tenants. Never commits."""

    def __init__(
        self,
        settings: Settings,
        folder: DataFolder,
        *,
        identity: IdentityService,
        users: Users,
        quality: QualityService,
        samples: SampleService,
        vault: Vault,
        holds: HoldService,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._identity = identity
        self._users = users
        self._quality = quality
        self._samples = samples
        self._vault = vault
        self._holds = holds
        self._one = asyncio.Lock()
        self._is_cut = settings.database.url != "sqlite"  # else unknown: a process was killed

    async def assess(self, tx: Tx, name_or_id: str) -> ErasureReport:
        """Say what erasing a tenant would remove and leave; change nothing."""
        return await self._report(tx, await self._identity.get_tenant(tx, name_or_id))

    async def erase(self, tx: Tx, name_or_id: str) -> ErasureReport:
        """Erase a tenant for ever.

        Raises ``on_hold`` under a legal hold, ``invalid_request`` without a reason.
        """
        if not tx.actor.reason.strip():
            raise PilotageError(
                "invalid_request",
                "Erasing a tenant needs a reason: it cannot be undone.",
                hint="Give --reason, or the header X-Pilotage-Reason.",
            )
        await self._holds.check_none(tx, "no tenant is erased")
        tenant = await self._identity.get_tenant(tx, name_or_id)
        report = await self._report(tx, tenant, is_done=True)
        keys = await self._identity.list_keys(tx, tenant.id)
        await self._identity.delete_tenant(tx, tenant.id)
        await self._users.forget(
            tx, tenant.id, project_id=tenant.project_id, key_ids={key.id for key in keys}
        )
        await self._quality.forget(tx, tenant.id)
        await self._samples.forget(tx, tenant.id)
        await self._vault.destroy(tx, tenant.id)
        counts = {"users": report.users, "data_keys": report.data_keys, "limits": report.limits}
        await append_revision(
            tx, "runtime.tenant.erased", f"{tenant.id}/erasure", 1, {"id": tenant.id} | counts
        )
        return report

    async def clean_up(self) -> list[Remnant]:
        """Take what was overwritten out of SQLite's write-ahead log; return what cannot be yet.

        While somebody reads what was there before, it stays, and :meth:`step` tries again.
        """
        if self._settings.database.url != "sqlite" or await self._cut(_CUT_WITHIN_S):
            return []
        _LOG.warning("what was erased is in the write-ahead log until all reads have ended")
        name = self._folder.database.name
        return [
            Remnant(
                where=f"{name}, {name}-wal",
                what="the wrapped data key, which the root keys open, and what it had sealed",
                until="until reads that run now have ended, of a backup for example",
            )
        ]

    async def step(self) -> bool:
        """Cut the write-ahead log if that could not be done yet."""
        if not self._is_cut:
            await self._cut(_CUT_AGAIN_S)
        return False

    def make_worker(self) -> Worker:
        """Make the worker that ends what :meth:`clean_up` could not."""
        return Worker("erasure", self.step, Wakeup(), _CUT_EVERY_S)

    async def _cut(self, within_s: float) -> bool:
        async with self._one:
            self._is_cut = False
            self._is_cut = await asyncio.to_thread(_cut_log, self._folder.database, within_s)
            return self._is_cut

    async def _report(self, tx: Tx, tenant: Tenant, *, is_done: bool = False) -> ErasureReport:
        keys = await self._identity.list_keys(tx, tenant.id)
        data_keys = await self._vault.list_keys_of(tx, tenant.id)
        return ErasureReport(
            tenant_id=tenant.id,
            tenant=tenant.name,
            is_done=is_done,
            api_keys=sum(key.revoked_at_us is None for key in keys),
            data_keys=sum(key.destroyed_at_us is None for key in data_keys),
            users=await self._users.count_users(tx, tenant.id),
            limits=await self._users.count_limits(tx, tenant.id),
            remnants=self._list_remnants(tx.now_us),
        )

    def _list_remnants(self, now_us: int) -> list[Remnant]:
        settings = self._settings

        def after(seconds: float) -> str:
            return rfc3339(now_us + round(seconds * 1e6))

        spool = after(duration_s(settings.spool.retention))
        kept = [
            Remnant(where="spools", what="frames of calls with users' names", until=spool),
            Remnant(
                where="gateways' counters",
                what="users' names in counters of limits per user: memory, run/seeds.json, Valkey",
                until="until their windows are over; of limits in all until they are deleted there",
            ),
            Remnant(
                where="gateways' memory",
                what="replies kept for idempotency keys, encrypted",
                until=after(_GATEWAY_REPLIES_S),
            ),
            Remnant(
                where="control API",
                what="replies kept for idempotency keys",
                until=after(KEPT_US / 1e6),
            ),
            Remnant(
                where="request log",
                what="lines with the tenant's id and pseudonyms of users",
                until="until its four files of 16 MiB are written over",
            ),
            Remnant(
                where="audit log",
                what="in changes the names of the tenant, its keys, its limits; of calls no user",
                until=f"for {settings.audit.keep}, then pruned",
            ),
            Remnant(
                where="ledger, costs, budgets",
                what="tokens, amounts, names of features and budgets, and ids that name nobody",
                until="for ever",
            ),
            Remnant(
                where="rows of calls",
                what="ids that name nobody, names of features",
                until=after(duration_s(settings.calls.keep)),
            ),
            Remnant(
                where="feedback",
                what="scores and labels, with ids that name nobody",
                until=after(OPINIONS_KEPT_US / 1e6),
            ),
            Remnant(
                where="rollouts",
                what="scores of calls, hashes of sessions and users",
                until="until an hour after the rollouts that count them have ended",
            ),
            Remnant(
                where="samples' spools",
                what="ids that name nobody, beside what no key opens any more",
                until="for little more than an hour",
            ),
            Remnant(
                where="metrics",
                what="sums of calls under the tenant's id",
                until=after(duration_s(settings.metrics.keep_days)),
            ),
            Remnant(
                where="alerts and notices",
                what="the tenant's name, where rules tell tenants apart",
                until=f"{after(ALERTS_KEPT_US / 1e6)}, but in rules that name it",
            ),
        ]
        return [*kept, *self._list_copies()]

    def _list_copies(self) -> list[Remnant]:
        copies = [*self._folder.path.glob("*.bak"), *self._folder.backups.glob("*.tar")]
        files = [
            Remnant(
                where=str(path.relative_to(self._folder.path)),
                what="a copy of the database as it was then",
                until="until it is deleted by hand",
            )
            for path in sorted(copies)
        ]
        elsewhere = [
            Remnant(
                where="backups elsewhere",
                what="copies of the database and of the wrapped data key",
                until="until they are deleted by hand",
            ),
            Remnant(
                where="notices sent, metrics collected, chargeback files",
                what="the tenant's name",
                until="until they are deleted there",
            ),
        ]
        return [*files, *elsewhere]


def _cut_log(path: Path, within_s: float) -> bool:
    """Write everything to the database and empty its log; False if somebody reads or writes."""
    with closing(sqlite3.connect(path, timeout=within_s)) as connection:
        (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy

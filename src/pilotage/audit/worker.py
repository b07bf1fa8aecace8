"""The loop that appends to the audit log; nobody else does."""

from pilotage.audit.service import AuditService
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.worker import Wakeup, Worker


def make_audit_worker(db: Database, service: AuditService, wakeup: Wakeup) -> Worker:
    """Make the worker; ring its wake-up when revisions were written."""

    async def step() -> bool:
        async with db.write(SYSTEM) as tx:
            return await service.append_next(tx)

    return Worker("audit log", step, wakeup)

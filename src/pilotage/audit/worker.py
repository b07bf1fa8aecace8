"""The loops that append revisions to the audit log, and sign what was appended."""

from pilotage.audit.open_log import OpenLog
from pilotage.audit.service import AuditService
from pilotage.kit.worker import Wakeup, Worker

SIGN_EVERY_S = 1.0  # what no checkpoint signs yet could be altered while nothing runs


def make_audit_worker(service: AuditService, wakeup: Wakeup) -> Worker:
    """Make the worker that appends; ring its wake-up when revisions were written."""
    return Worker("audit log", service.append_next, wakeup)


def make_signing_worker(log: OpenLog) -> Worker:
    """Make the worker that signs a checkpoint of what was appended, within a second."""

    async def sign() -> bool:
        if log.signed < log.size:
            await log.publish()
        return False

    return Worker("audit signing", sign, Wakeup(), SIGN_EVERY_S)

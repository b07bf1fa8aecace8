"""The loop that appends revisions to the audit log; nobody else does."""

from pilotage.audit.service import AuditService
from pilotage.kit.worker import Wakeup, Worker


def make_audit_worker(service: AuditService, wakeup: Wakeup) -> Worker:
    """Make the worker; ring its wake-up when revisions were written."""
    return Worker("audit log", service.append_next, wakeup)

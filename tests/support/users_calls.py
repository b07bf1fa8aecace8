"""Ends of calls that users of tenants made."""

from pilotage.core.frames import Ended, Outcome
from pilotage.core.usage import Usage


def end(call_id: str, user: str, tenant_id: str = "ten_1", project_id: str = "") -> Ended:
    """Return the end of a call of a tenant's user."""
    return Ended(
        call_id=call_id,
        at_us=1_700_000_000_000_000,
        project_id=project_id or f"prj_{tenant_id[-1]}",
        tenant_id=tenant_id,
        key_id="key_1",
        alias="chat",
        outcome=Outcome.OK,
        status=200,
        usage=Usage(input=10),
        cost_nano=1,
        is_estimated=False,
        duration_us=1,
        ttft_us=1,
        chunks=1,
        attempts=1,
        user=user,
    )

"""Calls that nobody pays for or waits for: copies of calls, and requests that are replayed.

They are calls of one arm alone, on record as every call is, with the flag ``shadow``.
"""

import msgspec

from pilotage.core.frames import Flag
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.snapshot import Routing, TenantEntry
from pilotage.gateway.call import Call
from pilotage.gateway.routing.residency import Allowed
from pilotage.gateway.snapshots import AliasView, SnapshotView
from pilotage.gateway.wire.door import Wire, WireRequest
from pilotage.kit.clock import Clock


def make_copy(  # noqa: PLR0913 - a whole call
    clock: Clock,
    *,
    view: SnapshotView,
    alias: AliasView,
    arms: Allowed,
    tenant: TenantEntry,
    wire: Wire,
    request: WireRequest,
    body: bytes,
    deadline_s: float,
    purpose: str = "",
) -> Call:
    """Return a request as a call of the first of some arms alone, which nobody pays for.

    Made in the task that runs it, which is the one that its deadline and a drain stop.
    """
    entry = alias.entry
    routing = Routing(first_byte_timeout_ms=entry.routing.first_byte_timeout_ms)
    call = Call(
        call_id=clock.new_id("call"),
        wire=wire,
        view=view,
        tenant=TenantEntry(
            id=SHADOW_TENANT,
            name=SHADOW_TENANT,
            project_id=tenant.project_id,
            regions=tenant.regions,
            data_class=tenant.data_class,
            shows=False,
        ),
        key_id="",
        alias=AliasView(msgspec.structs.replace(entry, arms=[arms[0]], routing=routing)),
        request=request,
        body=body,
        started_s=clock.monotonic_s(),
        deadline_s=deadline_s,
        purpose=purpose,
    )
    call.flags.add(Flag.SHADOW)
    call.plan, call.arm = arms, arms[0]
    return call

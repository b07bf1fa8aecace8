"""Ends of calls as gateways write them, and spools that hold them."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pilotage.core.frames import Ended, Outcome, encode_frame
from pilotage.core.usage import Usage
from pilotage.kit.spool import SpoolWriter, open_spool

NOON_US = 1_699_963_200_000_000  # 2023-11-14T12:00:00Z, ten hours before a ManualClock begins

_CALL = Ended(
    call_id="call_0",
    at_us=NOON_US,
    project_id="prj",
    tenant_id="ten_a",
    key_id="key",
    alias="chat",
    outcome=Outcome.OK,
    status=200,
    usage=Usage(input=10, output=20),
    cost_nano=1_000,
    is_estimated=False,
    duration_us=300_000,
    ttft_us=100_000,
    chunks=11,
    attempts=1,
    arm="stable",
    version_id="ver_1",
    model="smollm2",
    finish_reason="stop",
    queue_us=0,
)


def make_call(**values: object) -> Ended:
    """Return the end of an ordinary call with some values of its own."""
    return msgspec.structs.replace(_CALL, **values)


def open_writer(
    root: Path, gateway: str = "gateway-0", segment_bytes: int = 1 << 20
) -> SpoolWriter:
    """Open a gateway's spool below a folder."""
    return open_spool(
        root / gateway, segment_bytes=segment_bytes, reserve_bytes=16_384, sync="none"
    )


def put_calls(spool: SpoolWriter, calls: Iterable[Ended]) -> None:
    """Append ends of calls."""
    for call in calls:
        spool.append_end(encode_frame(call))

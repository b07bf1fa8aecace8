"""Call frames made by hand, the same for the same count."""

from pilotage.core.frames import Begun, Ended, Outcome, encode_frame
from pilotage.core.ids import make_id
from pilotage.core.usage import Usage

COST_NANO = 1_500_000
AT_US = 1_700_000_000_000_000


def make_call_frames(
    count: int, project_id: str = "prj_1", tenant_id: str = "ten_1"
) -> list[bytes]:
    """Return Begun and Ended of one call after the other, ``count`` frames; each ends ok."""
    frames = []
    for number in range((count + 1) // 2):
        call_id = make_id("call", AT_US, number.to_bytes(10, "big"))
        begun = Begun(
            call_id=call_id,
            at_us=AT_US,
            project_id=project_id,
            tenant_id=tenant_id,
            key_id="key_1",
            alias="chat",
            wire="chat",
            is_stream=False,
            worst_nano=COST_NANO,
            snapshot_n=1,
        )
        ended = Ended(
            call_id=call_id,
            at_us=AT_US + 1000,
            project_id=project_id,
            tenant_id=tenant_id,
            key_id="key_1",
            alias="chat",
            outcome=Outcome.OK,
            status=200,
            usage=Usage(input=10, output=5),
            cost_nano=COST_NANO,
            is_estimated=False,
            duration_us=1,
            ttft_us=1,
            chunks=1,
            attempts=1,
        )
        frames += [encode_frame(begun), encode_frame(ended)]
    return frames[:count]

"""Settings of what is written, counted and kept of calls."""

from typing import Annotated, Literal

import msgspec

from pilotage.kit.setting_types import Duration, doc


class SpoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The call frames on disk."""

    sync: Annotated[
        Literal["none", "100ms", "every"],
        doc(
            "when frames are forced to disk: never, ten times a second, "
            "or before the model is asked"
        ),
    ] = "100ms"
    segment_mb: Annotated[
        int, msgspec.Meta(ge=1, le=1024, description="size of a segment file, MiB")
    ] = 64
    reserve_kb: Annotated[
        int,
        msgspec.Meta(
            ge=16,
            le=65536,
            description=(
                "disk space held back per process so that running calls can be ended "
                "when the disk is full, KiB"
            ),
        ),
    ] = 1024
    retention: Annotated[Duration, doc("how long consumed segments are kept")] = "7d"


class CallSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of single calls (never a prompt), and queries about them."""

    keep: Annotated[Duration, doc("how long each call is kept as a row")] = "400d"
    query_timeout: Annotated[Duration, doc("longest time that a query may take")] = "30s"
    query_memory_mb: Annotated[
        int, msgspec.Meta(ge=64, le=1_048_576, description="memory that a query may take, MiB")
    ] = 512


class SampleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The calls that tenants let be kept, sealed, to be replayed."""

    keep: Annotated[Duration, doc("how long a call is kept to be replayed")] = "30d"


class MetricSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What calls add up to, and what replicas are used to."""

    keep_minutes: Annotated[Duration, doc("how long metrics are kept by the minute")] = "48h"
    keep_hours: Annotated[Duration, doc("how long metrics are kept by the hour")] = "90d"
    keep_days: Annotated[Duration, doc("how long metrics are kept by the day")] = "1095d"


class CostSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What things cost."""

    close_after: Annotated[
        Duration,
        doc(
            "how long after its end a month is closed: what belongs to it and comes later is a "
            "correction of the month in which it comes"
        ),
    ] = "3d"

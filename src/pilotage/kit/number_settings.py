"""Settings of what is counted and kept of calls."""

from typing import Annotated

import msgspec

from pilotage.kit.setting_types import Duration, doc


class CallSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of single calls (never a prompt), and queries about them."""

    keep: Annotated[Duration, doc("how long each call is kept as a row")] = "400d"
    query_timeout: Annotated[Duration, doc("longest time that a query may take")] = "30s"
    query_memory_mb: Annotated[
        int, msgspec.Meta(ge=64, le=1_048_576, description="memory that a query may take, MiB")
    ] = 512


class MetricSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What calls add up to, and what replicas are used to."""

    keep_minutes: Annotated[Duration, doc("how long metrics are kept by the minute")] = "48h"
    keep_hours: Annotated[Duration, doc("how long metrics are kept by the hour")] = "90d"
    keep_days: Annotated[Duration, doc("how long metrics are kept by the day")] = "1095d"

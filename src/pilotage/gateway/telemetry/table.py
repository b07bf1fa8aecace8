"""Every metric of a gateway: the one table that the page and its reference are made of.

``gen_ai_*`` are OpenTelemetry's names and buckets for generative AI (status "development").
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """One metric: its name, what kind it is, what it says, its labels, a histogram's bounds.

    Every series has the label ``slot`` besides.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def heading(self) -> str:
        """The lines above its series."""
        return f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"


_DURATIONS = tuple(round(0.01 * 2**step, 2) for step in range(14))  # 0.01 to 81.92
_CHUNKS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_INSIDE = (
    0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 1.0,
)  # fmt: skip
_TOKENS = tuple(4**step for step in range(14))  # 1 to 67,108,864
_WHAT = ("gen_ai_operation_name", "gen_ai_provider_name", "alias", "arm")

CALLS = Metric(
    "pilotage_calls_total", "counter", "Calls that ended.", ("alias", "arm", "wire", "outcome")
)
COST = Metric(
    "pilotage_cost_usd_total", "counter", "What calls cost.", ("alias", "arm", "operation")
)
TOKENS = Metric(
    "pilotage_tokens_total", "counter", "Tokens by class; the classes do not overlap.",
    ("alias", "arm", "operation", "class"),
)  # fmt: skip
TENANT_CALLS = Metric("pilotage_tenant_calls_total", "counter", "Calls by tenant.", ("tenant",))
TENANT_COST = Metric(
    "pilotage_tenant_cost_usd_total", "counter", "What calls cost, by tenant.", ("tenant",)
)
DURATION = Metric(
    "gen_ai_client_operation_duration_seconds", "histogram", "How long calls take.",
    _WHAT, _DURATIONS,
)  # fmt: skip
TTFT = Metric(
    "gen_ai_client_operation_time_to_first_chunk_seconds", "histogram",
    "From a call's beginning to the first content of its stream.", _WHAT, _DURATIONS,
)  # fmt: skip
PER_CHUNK = Metric(
    "gen_ai_client_operation_time_per_output_chunk_seconds", "histogram",
    "Time between pieces of content of a stream, after the first.", _WHAT, _CHUNKS,
)  # fmt: skip
TOKEN_USAGE = Metric(
    "gen_ai_client_token_usage", "histogram",
    "Tokens of a call that used any: input (cached included) and output (reasoning included).",
    (*_WHAT, "gen_ai_token_type"), _TOKENS,
)  # fmt: skip
INSIDE = Metric(
    "pilotage_overhead_seconds", "histogram",
    "Time of a call that was not spent waiting for its targets; of a stream until its first "
    "content.", ("reply",), _INSIDE,
)  # fmt: skip
REFUSED = Metric(
    "pilotage_refusals_total", "counter",
    "Calls refused by a limit, a budget or a rule, or for what they ask.", ("code",),
)  # fmt: skip
FLAGS = Metric(
    "pilotage_flagged_calls_total", "counter",
    "Calls with a flag: fell_back, retried, downgraded, budget_overrun ...", ("flag",),
)  # fmt: skip
ATTEMPTS_FAILED = Metric(
    "pilotage_failed_attempts_total", "counter",
    "Attempts that failed, whatever became of their calls.", ("arm", "code"),
)  # fmt: skip
RETRIES = Metric(
    "pilotage_further_attempts_total", "counter", "Attempts after the first one of a call."
)
OVERRUN = Metric(
    "pilotage_budget_overrun_usd_total", "counter", "What calls cost beyond their worst case."
)

COUNTED = (
    CALLS, COST, TOKENS, TENANT_CALLS, TENANT_COST, DURATION, TTFT, PER_CHUNK, TOKEN_USAGE, INSIDE,
    REFUSED, FLAGS, ATTEMPTS_FAILED, RETRIES, OVERRUN,
)  # fmt: skip
TABLE = (
    *COUNTED,
    Metric("pilotage_open_calls", "gauge", "Calls that run now."),
    Metric("pilotage_ready", "gauge", "1 if the process takes calls."),
    Metric(
        "pilotage_strangers_total", "counter", "Requests refused before they were calls.", ("code",)
    ),
    Metric("pilotage_snapshot_number", "gauge", "The Snapshot in use."),
    Metric(
        "pilotage_snapshot_age_seconds", "gauge", "Time since the Snapshot was made or renewed."
    ),
    Metric("pilotage_snapshot_expires_seconds", "gauge", "Time until the Snapshot expires."),
    Metric("pilotage_breaker_open", "gauge", "1 for a target that is given a rest.", ("target",)),
    Metric(
        "pilotage_breakers_opened_total",
        "counter",
        "How often a target was given a rest after failures.",
    ),
    Metric(
        "pilotage_upstream_connections",
        "gauge",
        "Connections to targets: all, and the idle ones of them.",
        ("state",),
    ),
    Metric("pilotage_shadow_copies_total", "counter", "Shadow copies by fate.", ("fate",)),
    Metric(
        "pilotage_samples_total",
        "counter",
        "Calls that were drawn to be kept for replays, by fate.",
        ("fate",),
    ),
    Metric(
        "pilotage_shadow_comparisons_total",
        "counter",
        "Shadow copies that ended, by what became of comparing their answers.",
        ("fate",),
    ),
    Metric("pilotage_counter_store_away", "gauge", "1 if limits cannot be shared now."),
    Metric(
        "pilotage_counter_store_open", "gauge", "1 if the store grants: it knows every process."
    ),
    Metric("pilotage_counter_exchanges_total", "counter", "Exchanges with the counter store."),
    Metric("pilotage_spool_sequence", "gauge", "The number of the last call frame."),
    Metric("pilotage_spool_pending", "gauge", "Call frames that the disk has not taken yet."),
    Metric(
        "pilotage_spool_dropped_total", "counter", "Call frames that found no room even in memory."
    ),
    Metric("pilotage_spool_full", "gauge", "1 while the disk takes no further calls."),
    Metric("pilotage_disk_used_ratio", "gauge", "Part of the spool's disk that is used."),
    Metric("pilotage_spans_total", "counter", "Spans by fate.", ("fate",)),
    Metric(
        "pilotage_measures_dropped_total",
        "counter",
        "Calls to be measured that found no room, in memory or in the spool.",
    ),
    Metric(
        "pilotage_request_log_dropped_total",
        "counter",
        "Lines of the request log that were not written.",
    ),
    Metric("pilotage_build_info", "gauge", "1, with the version that runs.", ("version", "python")),
    Metric("process_cpu_seconds_total", "counter", "Processor time of the process."),
    Metric("process_resident_memory_bytes", "gauge", "Memory of the process."),
    Metric("process_open_fds", "gauge", "Open files and sockets of the process."),
)

"""The numbers of one gateway process, in Prometheus' text format.

Labels come from closed sets: aliases and arms as the Snapshot knows them (anything else is
"unknown"), the first tenants seen (later ones are "other"). Format: Prometheus exposition 0.0.4.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pilotage.core.frames import Flag, Outcome
from pilotage.core.money import NANO
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call
from pilotage.gateway.telemetry.semconv import OPERATIONS

MAX_TENANTS = 50
MAX_SERIES = 5_000  # of one metric; beyond it, what is new is counted as "other"
UNKNOWN, OTHER = "unknown", "other"
_DURATIONS = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
_CHUNKS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_INSIDE = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_REFUSALS = frozenset(
    {"rate_limit_exceeded", "insufficient_quota", "limits_unavailable", "no_allowed_target"}
)


class Metric(NamedTuple):
    """One metric: its name, what kind it is, what it says, its labels, a histogram's bounds."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


CALLS = Metric(
    "pilotage_calls_total", "counter", "Calls that ended.", ("alias", "arm", "wire", "outcome")
)
TENANT_CALLS = Metric("pilotage_tenant_calls_total", "counter", "Calls by tenant.", ("tenant",))
TENANT_COST = Metric(
    "pilotage_tenant_cost_usd_total", "counter", "What calls cost, by tenant.", ("tenant",)
)
COST = Metric("pilotage_cost_usd_total", "counter", "What calls cost.", ("alias", "arm"))
TOKENS = Metric(
    "pilotage_tokens_total", "counter", "Tokens by class; the classes do not overlap.",
    ("alias", "arm", "class"),
)  # fmt: skip
DURATION = Metric(
    "gen_ai_client_operation_duration_seconds", "histogram", "How long calls take.",
    ("gen_ai_operation_name", "alias"), _DURATIONS,
)  # fmt: skip
TTFT = Metric(
    "gen_ai_client_operation_time_to_first_chunk_seconds", "histogram",
    "From a call's beginning to the first content of its stream.", ("alias",), _DURATIONS,
)  # fmt: skip
PER_CHUNK = Metric(
    "gen_ai_client_operation_time_per_output_chunk_seconds", "histogram",
    "Time between pieces of content of a stream, after the first.", ("alias",), _CHUNKS,
)  # fmt: skip
INSIDE = Metric(
    "pilotage_overhead_seconds", "histogram",
    "Time of a plain call that was not spent waiting for its targets.", (), _INSIDE,
)  # fmt: skip
REFUSED = Metric(
    "pilotage_refusals_total", "counter", "Calls refused by a limit or rule.", ("code",)
)
FLAGS = Metric(
    "pilotage_flagged_calls_total", "counter",
    "Calls with a flag: fell_back, retried, downgraded, budget_overrun ...", ("flag",),
)  # fmt: skip
OVERRUN = Metric(
    "pilotage_budget_overrun_usd_total", "counter", "What calls cost beyond their worst case."
)
EVENTS = (
    CALLS, TENANT_CALLS, TENANT_COST, COST, TOKENS, DURATION, TTFT, PER_CHUNK, INSIDE, REFUSED,
    FLAGS, OVERRUN,
)  # fmt: skip
GAUGES = (
    Metric("pilotage_open_calls", "gauge", "Calls that run now."),
    Metric("pilotage_snapshot_number", "gauge", "The Snapshot in use."),
    Metric("pilotage_snapshot_expires_seconds", "gauge", "Time until the Snapshot expires."),
    Metric("pilotage_ready", "gauge", "1 if the process takes calls."),
    Metric("pilotage_breaker_open", "gauge", "1 for a target that is given a rest.", ("target",)),
    Metric("pilotage_counter_store_away", "gauge", "1 if limits cannot be shared now."),
    Metric("pilotage_counter_exchanges_total", "counter", "Exchanges with the counter store."),
    Metric("pilotage_spool_sequence", "gauge", "The number of the last call frame."),
    Metric("pilotage_spool_pending", "gauge", "Call frames that the disk has not taken yet."),
    Metric("pilotage_strangers_total", "counter", "Requests refused before they were calls."),
    Metric("pilotage_shadow_copies_total", "counter", "Shadow copies by fate.", ("fate",)),
    Metric("pilotage_spans_total", "counter", "Spans by fate.", ("fate",)),
    Metric("pilotage_disk_used_ratio", "gauge", "Part of the spool's disk that is used."),
)

Labels = tuple[str, ...]
Reading = tuple[str, Labels, float]


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """Counts calls as they end. ``read_gauges`` says at each :meth:`render` what is true then."""

    def __init__(self, read_gauges: Callable[[], Iterable[Reading]] = tuple) -> None:
        self._sums: dict[str, dict[Labels, float]] = {
            metric.name: {} for metric in EVENTS if not metric.bounds
        }
        self._histograms: dict[str, dict[Labels, _Histogram]] = {
            metric.name: {} for metric in EVENTS if metric.bounds
        }
        self._tenants: set[str] = set()
        self.read_gauges = read_gauges

    def note(self, call: Call) -> None:
        """Count a call that has ended, billed and recorded."""
        bill = bill_call(call)
        alias = call.alias.entry.name if call.alias is not None else UNKNOWN
        arm = call.arm.id if call.arm is not None else ""
        duration_s = max(call.ended_s - call.started_s, 0.0)
        self._add(CALLS, (alias, arm, call.wire.name, call.outcome.value))
        tenant = self._cap(call.tenant.name)
        self._add(TENANT_CALLS, (tenant,))
        if bill.cost_nano:
            self._add(TENANT_COST, (tenant,), bill.cost_nano / NANO)
            self._add(COST, (alias, arm), bill.cost_nano / NANO)
        for name, count in zip(_CLASSES, _counts(call), strict=True):
            if count:
                self._add(TOKENS, (alias, arm, name), count)
        self._observe(DURATION, (OPERATIONS.get(call.wire.name, ""), alias), duration_s)
        if call.ttft_us >= 0:
            ttft_s = call.ttft_us / 1e6
            self._observe(TTFT, (alias,), ttft_s)
            if call.chunks > 1:
                self._observe(PER_CHUNK, (alias,), (duration_s - ttft_s) / (call.chunks - 1))
        elif call.outcome is Outcome.OK:
            self._observe(INSIDE, (), max(duration_s - call.waited_s, 0.0))
        if call.error is not None and call.error.code in _REFUSALS:
            self._add(REFUSED, (call.error.code,))
        for flag in call.flags:
            self._add(FLAGS, (flag.value,))
        if Flag.BUDGET_OVERRUN in call.flags:
            self._add(OVERRUN, (), (bill.cost_nano - call.worst_nano) / NANO)

    def render(self, slot: str) -> str:
        """Return every series, each labelled with the slot of this process."""
        lines: list[str] = []
        readings: dict[str, list[tuple[Labels, float]]] = {}
        for name, labels, value in self.read_gauges():
            readings.setdefault(name, []).append((labels, value))
        for metric in (*EVENTS, *GAUGES):
            if metric.bounds:
                for labels, histogram in self._histograms[metric.name].items():
                    lines += _write_histogram(metric, labels, histogram, slot)
                continue
            series = [*self._sums.get(metric.name, {}).items(), *readings.get(metric.name, ())]
            lines += [
                f"{metric.name}{_write(metric.labels, labels, slot)} {value:.12g}"
                for labels, value in series
            ]
        return "\n".join(lines) + "\n" if lines else ""

    def _add(self, metric: Metric, labels: Labels, value: float = 1) -> None:
        series = self._sums[metric.name]
        if labels not in series and len(series) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        series[labels] = series.get(labels, 0) + value

    def _observe(self, metric: Metric, labels: Labels, value: float) -> None:
        series = self._histograms[metric.name]
        found = series.get(labels)
        if found is None:
            if len(series) >= MAX_SERIES:
                labels = (OTHER,) * len(labels)
            found = series.setdefault(labels, _Histogram(metric.bounds))
        found.note(value)

    def _cap(self, tenant: str) -> str:
        if tenant in self._tenants:
            return tenant
        if len(self._tenants) >= MAX_TENANTS:
            return OTHER
        self._tenants.add(tenant)
        return tenant


_CLASSES = ("input", "cache_read", "cache_write", "output", "reasoning")


def _counts(call: Call) -> tuple[int, ...]:
    usage = bill_call(call).usage
    return (usage.input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning)


def merge(pages: Sequence[str]) -> bytes:
    """Return one page of several processes' series, each metric's together under one heading."""
    metrics = {metric.name: metric for metric in (*EVENTS, *GAUGES)}
    found: dict[str, list[str]] = {name: [] for name in metrics}
    for line in (line for page in pages for line in page.splitlines()):
        name = line[: line.index("{")]
        base = name if name in metrics else name.rpartition("_")[0]  # _bucket, _sum, _count
        if base in found:
            found[base].append(line)
    parts = []
    for name, metric in metrics.items():
        if found[name]:
            parts += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}", *found[name]]
    return ("\n".join(parts) + "\n").encode()


def _write_histogram(
    metric: Metric, labels: Labels, histogram: _Histogram, slot: str
) -> Iterable[str]:
    below = 0
    for bound, count in zip((*metric.bounds, "+Inf"), histogram.counts, strict=True):
        below += count
        within = _write((*metric.labels, "le"), (*labels, f"{bound}"), slot)
        yield f"{metric.name}_bucket{within} {below}"
    own = _write(metric.labels, labels, slot)
    yield f"{metric.name}_sum{own} {histogram.total:.9g}"
    yield f"{metric.name}_count{own} {below}"


def _write(names: Labels, values: Labels, slot: str) -> str:
    pairs = zip(("slot", *names), (slot, *values), strict=True)
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

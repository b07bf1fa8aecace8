"""The numbers of one gateway process, in Prometheus' text format.

Labels come from closed sets: aliases and arms as the Snapshot knows them (anything else is
"unknown"), the first tenants seen (later ones are "other"). A call is counted in integers of one
row, found by one look; texts are made when somebody asks, and only of rows that changed since.
Format: Prometheus exposition 0.0.4. What there is: ``table.py``.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from pilotage.core.frames import Flag, Outcome
from pilotage.core.money import format_usd
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call
from pilotage.gateway.snapshots import SnapshotView
from pilotage.gateway.telemetry.semconv import OPERATIONS, find_provider
from pilotage.gateway.telemetry.table import (
    ATTEMPTS_FAILED,
    CALLS,
    COST,
    DURATION,
    FLAGS,
    INSIDE,
    OVERRUN,
    PER_CHUNK,
    REFUSED,
    RETRIES,
    TABLE,
    TENANT_CALLS,
    TENANT_COST,
    TOKEN_USAGE,
    TOKENS,
    TTFT,
    Metric,
)

MAX_TENANTS = 50
MAX_ROWS = 1_000  # of alias, arm and operation; what comes beyond them is counted as "other"
MAX_FAILED = 1_000  # pairs of arm and code
UNKNOWN, OTHER = "unknown", "other"
PLAIN, STREAM = "plain", "stream"
_OK = Outcome.OK
_CLASSES = ("input", "cache_read", "cache_write", "output", "reasoning")

Labels = tuple[str, ...]
Reading = tuple[str, Labels, float]
Texts = dict[str, str]


class Histogram:
    """How many values were at most so much; a metric's bounds, and one more without a bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, metric: Metric) -> None:
        self.bounds = metric.bounds
        self.counts = [0] * (len(metric.bounds) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Row:
    """What the calls of one alias, arm and operation came to."""

    __slots__ = (
        "chunk", "cost_nano", "duration", "failed", "first", "inputs", "key", "ok", "outputs",
        "provider", "texts", "tokens",
    )  # fmt: skip

    def __init__(self, key: Labels, provider: str) -> None:
        self.key = key
        self.provider = provider
        self.ok: dict[str, int] = {}  # by wire
        self.failed: dict[Labels, int] = {}  # by wire and outcome
        self.cost_nano = 0
        self.tokens = [0, 0, 0, 0, 0]
        self.duration = Histogram(DURATION)
        self.first = Histogram(TTFT)
        self.chunk = Histogram(PER_CHUNK)
        self.inputs = Histogram(TOKEN_USAGE)
        self.outputs = Histogram(TOKEN_USAGE)
        self.texts: Texts | None = None

    def note(self, call: Call) -> None:
        """Count a call."""
        self.texts = None
        wire, outcome, ttft_us = call.wire.name, call.outcome, call.ttft_us
        if outcome is _OK:
            self.ok[wire] = self.ok.get(wire, 0) + 1
        else:
            ending = (wire, outcome.value)
            self.failed[ending] = self.failed.get(ending, 0) + 1
        duration_s = call.ended_s - call.started_s
        self.duration.note(duration_s)
        if ttft_us >= 0:
            first_s = ttft_us / 1e6
            self.first.note(first_s)
            if call.chunks > 1:
                self.chunk.note((duration_s - first_s) / (call.chunks - 1))
        usage, cost_nano, _ = call.bill or bill_call(call)
        self.cost_nano += cost_nano
        tokens = self.tokens
        read, written = usage.input, usage.output
        tokens[0] += read
        tokens[3] += written
        if usage.cache_read or usage.cache_write or usage.reasoning:
            tokens[1] += usage.cache_read
            tokens[2] += usage.cache_write
            tokens[4] += usage.reasoning
            read, written = usage.prompt_tokens, usage.completion_tokens
        if read or written:
            self.inputs.note(read)
            self.outputs.note(written)

    def write(self, slot: str) -> Texts:
        """Return the lines of each metric, made anew only after a call."""
        if self.texts is not None:
            return self.texts
        alias, arm, operation = self.key
        whose, what = (alias, arm), (operation, self.provider, alias, arm)
        endings = [((wire, "ok"), count) for wire, count in self.ok.items()]
        calls = [((*whose, *end), count) for end, count in (*endings, *self.failed.items())]
        tokens = zip(_CLASSES, self.tokens, strict=True)
        texts = {
            CALLS.name: _write_all(CALLS, slot, calls),
            COST.name: _write_all(COST, slot, [(self.key, format_usd(self.cost_nano))]),
            TOKENS.name: _write_all(
                TOKENS, slot, [((*self.key, kind), count) for kind, count in tokens if count]
            ),
            DURATION.name: _write_histogram(DURATION, slot, what, self.duration),
            TTFT.name: _write_histogram(TTFT, slot, what, self.first),
            PER_CHUNK.name: _write_histogram(PER_CHUNK, slot, what, self.chunk),
            TOKEN_USAGE.name: _write_histogram(TOKEN_USAGE, slot, (*what, "input"), self.inputs)
            + _write_histogram(TOKEN_USAGE, slot, (*what, "output"), self.outputs),
        }
        self.texts = texts
        return texts


class _Tenant:
    __slots__ = ("calls", "cost_nano")

    def __init__(self) -> None:
        self.calls = 0
        self.cost_nano = 0


class Metrics:
    """Counts calls as they end. ``read_gauges`` says at each :meth:`render` what is true then."""

    def __init__(self, slot: str, read_gauges: Callable[[], Iterable[Reading]] = tuple) -> None:
        self.read_gauges = read_gauges
        self._slot = slot
        self._rows: dict[Labels, Row] = {}
        self._tenants: dict[str, _Tenant] = {}
        self._inside = {PLAIN: Histogram(INSIDE), STREAM: Histogram(INSIDE)}
        self._refused: dict[Labels, int] = {}
        self._flags: dict[Labels, int] = {}
        self._failed: dict[Labels, int] = {}
        self._retries = 0
        self._overrun_nano = 0
        self._tidied_n = -1  # the Snapshot after which rows were looked through last

    def note(self, call: Call) -> None:
        """Count a call that has ended, billed and recorded."""
        alias, arm, operation = call.alias, call.arm, OPERATIONS.get(call.wire.name, UNKNOWN)
        key = (
            alias.entry.name if alias is not None else UNKNOWN,
            arm.id if arm is not None else "",
            operation,
        )
        row = self._rows.get(key) or self._open_row(key, call)
        row.note(call)
        tenant = self._tenants.get(call.tenant.name) or self._open_tenant(call.tenant.name)
        tenant.calls += 1
        if call.bill is not None:
            tenant.cost_nano += call.bill.cost_nano
        if call.ttft_us >= 0:
            self._inside[STREAM].note(max(call.ttft_us / 1e6 - call.waited_s, 0.0))
        elif call.outcome is _OK:
            self._inside[PLAIN].note(call.ended_s - call.started_s - call.waited_s)
        if call.error is not None or call.flags or call.attempts > 1:
            self._note_trouble(call)

    def write_rows(self) -> Iterator[Texts]:
        """Return the lines of one row after another, so that others may run between them."""
        return (row.write(self._slot) for row in list(self._rows.values()))

    def render(self, rows: Iterable[Texts] | None = None) -> str:
        """Return a page of every series, each labelled with the slot of this process."""
        texts: dict[str, list[str]] = {metric.name: [] for metric in TABLE}
        for row in self.write_rows() if rows is None else rows:
            for name, text in row.items():
                texts[name].append(text)
        for metric, series in self._list_events():
            texts[metric.name].append(_write_all(metric, self._slot, series))
        for kind, histogram in self._inside.items():
            texts[INSIDE.name].append(_write_histogram(INSIDE, self._slot, (kind,), histogram))
        metrics = {metric.name: metric for metric in TABLE}
        for name, labels, value in self.read_gauges():
            texts[name].append(_write_all(metrics[name], self._slot, [(labels, value)]))
        return "".join(
            f"{metric.heading}{body}" for metric in TABLE if (body := "".join(texts[metric.name]))
        )

    def _list_events(self) -> list[tuple[Metric, Iterable[tuple[Labels, object]]]]:
        tenants = self._tenants.items()
        return [
            (TENANT_CALLS, [((name,), one.calls) for name, one in tenants]),
            (TENANT_COST, [((name,), format_usd(one.cost_nano)) for name, one in tenants]),
            (REFUSED, self._refused.items()),
            (FLAGS, self._flags.items()),
            (ATTEMPTS_FAILED, self._failed.items()),
            (RETRIES, [((), self._retries)]),
            (OVERRUN, [((), format_usd(self._overrun_nano))]),
        ]

    def _note_trouble(self, call: Call) -> None:
        if call.error is not None and call.outcome is Outcome.REFUSED:
            code = (call.error.code,)
            self._refused[code] = self._refused.get(code, 0) + 1
        for flag in call.flags:
            name = (flag.value,)
            self._flags[name] = self._flags.get(name, 0) + 1
        if Flag.BUDGET_OVERRUN in call.flags:
            self._overrun_nano += max(bill_call(call).cost_nano - call.worst_nano, 0)
        self._retries += max(call.attempts - 1, 0)
        for failed in call.tries:
            pair = (failed.arm_id, failed.code)
            if pair not in self._failed and len(self._failed) >= MAX_FAILED:
                self._tidy(call.view)
                pair = pair if len(self._failed) < MAX_FAILED else (OTHER, failed.code)
            self._failed[pair] = self._failed.get(pair, 0) + 1

    def _open_row(self, key: Labels, call: Call) -> Row:
        if len(self._rows) >= MAX_ROWS:
            self._tidy(call.view)
        if len(self._rows) >= MAX_ROWS:
            key = (OTHER, OTHER, key[2])
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(key, find_provider(call) if call.arm else UNKNOWN)
        return row

    def _tidy(self, view: SnapshotView) -> None:
        """Forget what the Snapshot no longer knows; looked for once a Snapshot."""
        if view.n == self._tidied_n:
            return
        self._tidied_n = view.n
        known = {(name, arm) for (_, name), alias in view.aliases.items() for arm in alias.arms}
        arms = {arm for _, arm in known}
        names = {name for _, name in view.aliases} | {UNKNOWN, OTHER}
        self._rows = {
            key: row
            for key, row in self._rows.items()
            if (key[0], key[1]) in known or (key[1] in ("", OTHER) and key[0] in names)
        }
        self._failed = {
            pair: count for pair, count in self._failed.items() if pair[0] in arms | {OTHER}
        }

    def _open_tenant(self, name: str) -> _Tenant:
        if len(self._tenants) >= MAX_TENANTS:
            name = OTHER
        return self._tenants.setdefault(name, _Tenant())


def merge(pages: Sequence[str]) -> bytes:
    """Return one page of several processes' series, each metric's together under one heading."""
    found: dict[str, list[str]] = {metric.heading: [] for metric in TABLE}
    for page in pages:
        for block in page.split("# HELP ")[1:]:
            first, second, body = block.split("\n", 2)
            found.setdefault(f"# HELP {first}\n{second}\n", []).append(body)
    return "".join(
        f"{heading}{''.join(bodies)}" for heading, bodies in found.items() if bodies
    ).encode()


def _write_all(metric: Metric, slot: str, series: Iterable[tuple[Labels, object]]) -> str:
    return "".join(
        f"{metric.name}{_write_labels(metric.labels, labels, slot)} {value}\n"
        for labels, value in series
    )


def _write_histogram(metric: Metric, slot: str, labels: Labels, histogram: Histogram) -> str:
    """Return a histogram's series, none for an empty one."""
    if not any(histogram.counts):
        return ""
    own = _write_labels(metric.labels, labels, slot)
    start = f"{metric.name}_bucket{own[:-1]},le="
    below, lines = 0, []
    for bound, count in zip((*metric.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        lines.append(f'{start}"{"+Inf" if bound == float("inf") else f"{bound:.12g}"}"}} {below}\n')
    lines.append(f"{metric.name}_sum{own} {histogram.total:.12g}\n")
    lines.append(f"{metric.name}_count{own} {below}\n")
    return "".join(lines)


def _write_labels(names: Labels, values: Labels, slot: str) -> str:
    pairs = zip(("slot", *names), (slot, *values), strict=True)
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

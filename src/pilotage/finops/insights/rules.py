"""What costs say of releases and savings: pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from pilotage.core.money import divide_half_even
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.usage import PER_TOKENS, Rates
from pilotage.finops.costs.rules import price_nano, split_hours, to_micro_hours
from pilotage.finops.costs.types import CostLine, ReplicaTime
from pilotage.finops.insights.types import Saving

LEAST_STOP_US = 300_000_000  # the longest pause before a crashed replica is tried again, and more
CLASSES = ("input", "cache_read", "cache_write", "output", "reasoning")


def scale_cost(nano: int, calls: int, to_calls: int) -> int | None:
    """Return what so many calls cost at another lot's cost per call; None where that is none."""
    return divide_half_even(nano * to_calls, calls) if calls else None


def price_line(line: CostLine, rates: Rates) -> int:
    """Return what a line's tokens cost at some rates, of the prompts' size, in nano-USD."""
    due = rates.for_prompt(line.band + 1)
    exact = sum(getattr(line, f"{name}_tokens") * getattr(due, name) for name in CLASSES)
    return divide_half_even(exact, PER_TOKENS)


def find_routing_savings(
    lines: Iterable[CostLine], rates: Mapping[str, Rates], reference: Rates | None, name: str
) -> list[Saving]:
    """Return for each alias what routing saved against having one model answer everything.

    ``rates`` are by price id. Without a ``reference`` the dearest model that answered the alias
    is it: the one at whose rates the alias's calls would have cost most. Calls at one model alone
    saved nothing and are left out, and so are copies for nobody: nothing was routed to them.
    """
    by_alias: dict[str, list[CostLine]] = defaultdict(list)
    for line in lines:
        if line.tenant_id != SHADOW_TENANT:
            by_alias[line.alias].append(line)
    found = []
    for alias, own in sorted(by_alias.items()):
        priced = [line for line in own if line.price_id in rates]
        known = {line.price_id: line.model for line in priced}
        if reference is None and len(set(known.values())) < 2:
            continue
        candidates = (
            [(name, reference)]
            if reference is not None
            else [(model, rates[price_id]) for price_id, model in sorted(known.items())]
        )
        sums = [(sum(price_line(line, at) for line in priced), model) for model, at in candidates]
        without_nano, model = max(sums)
        found.append(
            Saving(
                way="routing",
                subject=alias,
                reference=model,
                with_nano=sum(price_line(line, rates[line.price_id]) for line in priced),
                without_nano=without_nano,
                unpriced=sum(line.calls for line in own) - sum(line.calls for line in priced),
            )
        )
    return found


def find_caching_savings(lines: Iterable[CostLine], rates: Mapping[str, Rates]) -> list[Saving]:
    """Return for each model what the provider's cache saved: read tokens at the full price."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for line in lines:
        if line.price_id in rates and line.cache_read_tokens:
            due = rates[line.price_id].for_prompt(line.band + 1)
            read = line.cache_read_tokens
            sums[line.model][0] += price_nano(read, due.cache_read)
            sums[line.model][1] += price_nano(read, due.input)
    return [
        Saving(
            way="caching",
            subject=model,
            reference="every token read anew",
            with_nano=paid,
            without_nano=full,
        )
        for model, (paid, full) in sorted(sums.items())
    ]


def find_idle_savings(
    times: Sequence[ReplicaTime],
    price_hour: Callable[[ReplicaTime, int], int],
    start_us: int,
    end_us: int,
) -> list[Saving]:
    """Return for each alias what not running replicas between their runs saved.

    ``price_hour`` returns what a replica's hour cost at a time in nano-USD, 0 without a price. A
    replica that is stopped for a while would else have run on; one that comes back within
    :data:`LEAST_STOP_US` was not stopped, it crashed.
    """
    runs: dict[str, list[ReplicaTime]] = defaultdict(list)
    for time in sorted(times, key=lambda time: time.start_us):
        runs[time.replica_id].append(time)
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for own in runs.values():
        reached_us = max(own[0].start_us, start_us)
        for time in own:
            since_us, until_us = max(time.start_us, start_us), min(time.seen_us, end_us)
            paid = _price_span(time, price_hour, since_us, until_us)
            sums[time.alias][0] += paid
            sums[time.alias][1] += paid
            if since_us - reached_us > LEAST_STOP_US:
                sums[time.alias][1] += _price_span(time, price_hour, reached_us, since_us)
            reached_us = until_us
    return [
        Saving(
            way="scale_to_zero",
            subject=alias,
            reference="replicas that are never stopped",
            with_nano=paid,
            without_nano=full,
        )
        for alias, (paid, full) in sorted(sums.items())
        if full
    ]


def _price_span(
    replica: ReplicaTime,
    price_hour: Callable[[ReplicaTime, int], int],
    start_us: int,
    end_us: int,
) -> int:
    """Return what a replica costs from one time to another, hour by hour."""
    return sum(
        price_nano(to_micro_hours(until_us - since_us), price_hour(replica, since_us))
        for since_us, until_us in split_hours(start_us, end_us)
    )

"""The verbs of what is worked out from costs: outlook, anomalies, releases, savings. Read-only."""

from collections.abc import Sequence
from datetime import date, timedelta

from pilotage.core.errors import PilotageError
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.usage import Rates
from pilotage.finops.budgets.rules import divide_spending
from pilotage.finops.costs import store
from pilotage.finops.costs.outlook import (
    LEAST_BEFORE,
    MOST_DAYS,
    find_anomalies,
    find_limit,
    forecast,
)
from pilotage.finops.costs.service import find_price
from pilotage.finops.costs.types import CostBy, CostKind, CostLine, ReplicaTime, Resource, Span
from pilotage.finops.insights.rules import (
    find_caching_savings,
    find_idle_savings,
    find_routing_savings,
    scale_cost,
)
from pilotage.finops.insights.types import (
    Check,
    CostAnomaly,
    ModelCost,
    Outlook,
    ReleaseCost,
    Saving,
)
from pilotage.finops.periods import find_month, list_days, list_remaining
from pilotage.finops.replicas import store as replica_store
from pilotage.finops.replicas.service import find_hourly_nano
from pilotage.finops.rules import get_day
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import parse_time
from pilotage.kit.db import Tx

CONFIDENCE = 0.9
LEAST_SPIKE_NANO = 1_000_000_000  # a dollar: what is less wakes nobody
LEAST_TRAFFIC = 20  # calls
_MEASURES = (("cost", LEAST_SPIKE_NANO), ("calls", LEAST_TRAFFIC))


class CostInsights:
    """What the costs of a project say."""

    def __init__(self, finops: FinopsService) -> None:
        self._finops = finops

    async def get_outlook(self, tx: Tx, confidence: float = CONFIDENCE) -> Outlook:
        """Return what the running month will have cost at its end."""
        today = get_day(tx.now_us)
        month, first, after = find_month(today)
        back = _days_before(today, MOST_DAYS)
        rows = await store.sum_costs(tx, [CostBy.DAY], Span(since=min(first, back), until=after))
        spent, ahead, history = divide_spending(rows, first, today)
        seen = forecast(history, spent + ahead, list_remaining(tx.now_us, after), confidence)
        return Outlook(
            month=month,
            spent_nano=spent,
            expected_nano=round(seen.expected) if seen else None,
            low_nano=round(seen.low) if seen else None,
            high_nano=round(seen.high) if seen else None,
            confidence=confidence,
            days=len(history),
        )

    async def list_anomalies(self, tx: Tx, days: int = 30) -> list[CostAnomaly]:
        """Return the days on which cost or calls stood out, the newest first."""
        today = get_day(tx.now_us)
        since = _days_before(today, days)
        by_day = _fill(
            await self._sum_days(tx, _days_before(since, MOST_DAYS + LEAST_BEFORE), today), today
        )
        found = []
        for place, (measure, least) in enumerate(_MEASURES):
            history = {day: float(amounts[place]) for day, amounts in by_day.items()}
            found += [
                CostAnomaly(
                    measure=measure,
                    day=item.day,
                    amount=round(item.amount),
                    usual=round(item.usual),
                    deviations=round(item.deviations, 1),
                )
                for item in find_anomalies(history, least)
                if item.day >= since
            ]
        return sorted(found, key=lambda item: item.key, reverse=True)

    async def measure_spikes(self, tx: Tx, project_id: str) -> dict[str, float]:
        """Return this day's cost and calls by the amount from which on it stands out, from 1 on.

        By measure as in :meth:`list_anomalies`; none before there are two weeks to compare with.
        """
        today = get_day(tx.now_us)
        since, until = _days_before(today, MOST_DAYS), _days_before(today, -1)
        by_day = await self._sum_days(tx, since, until, project_id)
        before = _fill(by_day, today)
        spikes = {}
        for place, (measure, least) in enumerate(_MEASURES):
            history = {day: float(amounts[place]) for day, amounts in before.items()}
            limit = find_limit(history, today, least)
            if limit is not None:
                spikes[measure] = by_day.get(today, (0, 0))[place] / limit
        return spikes

    async def get_release_cost(self, tx: Tx, release: str, since: str, until: str) -> ReleaseCost:
        """Return what a deployment cost; raise ``not_found`` if nothing of it is known.

        It is compared with the others from the first to the last of its own days.
        """
        span = Span(since=since, until=until, only=((CostBy.RELEASE, release),))
        days = [row.groups["day"] for row in await store.sum_costs(tx, [CostBy.DAY], span)]
        rows = await store.sum_costs(tx, [CostBy.ALIAS, CostBy.TENANT, CostBy.KIND], span)
        if not rows:
            raise PilotageError(
                "not_found",
                f"{release!r} cost nothing in that time.",
                hint="Name a deployment's id: pilotage cost show --by release",
                param="release",
            )
        alias = rows[0].groups["alias"]
        kinds = dict.fromkeys(CostKind, 0)
        calls = shadow_nano = 0
        for row in rows:
            kind = CostKind(row.groups["kind"])
            if kind is CostKind.CALLS and row.groups["tenant"] == SHADOW_TENANT:
                shadow_nano += row.cost_nano
                continue
            kinds[kind] += row.cost_nano
            calls += row.calls
        others = await self._sum_others(tx, alias, release, days[0], _days_before(days[-1], -1))
        baseline_nano = scale_cost(others[1], others[0], calls)
        calls_nano = kinds[CostKind.CALLS]
        return ReleaseCost(
            release=release,
            alias=alias,
            calls=calls,
            calls_nano=calls_nano,
            failed_nano=await store.sum_failed(tx, release, since, until),
            shadow_nano=shadow_nano,
            compute_nano=kinds[CostKind.COMPUTE],
            idle_nano=kinds[CostKind.IDLE],
            baseline_calls=others[0],
            baseline_nano=baseline_nano,
            excess_nano=None if baseline_nano is None else calls_nano - baseline_nano,
        )

    async def list_savings(
        self, tx: Tx, since: str, until: str, reference: str = "", provider: str = ""
    ) -> list[Saving]:
        """Return what routing, caches and stopped replicas saved, on the usage there was.

        ``reference`` (MODEL, MODEL@VERSION, or a ``provider``'s MODEL) is the one that would have
        answered everything; raises ``not_found`` if it has no price.
        """
        lines = await store.list_lines(tx, Span(since=since, until=until))
        rates = await self.find_rates(tx, lines)
        compared = None
        if reference:
            name, _, version = ("", "", "") if provider else reference.partition("@")
            compared = await self._finops.find_rates(
                tx, name or reference, version, tx.now_us, provider=provider
            )
            if compared is None:
                raise PilotageError(
                    "not_found",
                    f"Nobody knows what {reference!r} costs.",
                    hint="Look: pilotage prices show MODEL --provider PROVIDER",
                    param="reference",
                )
        start_us, end_us = parse_time(since), parse_time(until)
        times = await replica_store.list_times(tx, start_us, end_us)
        prices = await store.list_prices(tx)

        def price_hour(replica: ReplicaTime, at_us: int) -> int:
            price = find_price(prices, tx.project_id, Resource.COMPUTE, replica.alias, at_us)
            return 0 if price is None else find_hourly_nano(replica, price)[0]

        return [
            *find_routing_savings(lines, rates, compared, reference),
            *find_caching_savings(lines, rates),
            *find_idle_savings(times, price_hour, start_us, end_us),
        ]

    async def list_model_costs(
        self, tx: Tx, since: str, until: str, task: str = ""
    ) -> list[ModelCost]:
        """Return what calls of each model cost, the cheapest call first.

        ``task`` is a feature or an alias; "" takes all calls.
        """
        found = await store.sum_models(tx, since, until, task)
        rows = [
            ModelCost(
                model=model,
                calls=calls,
                failed=failed,
                cost_nano=nano,
                nano_per_call=scale_cost(nano, calls - failed, 1) or 0,
            )
            for model, calls, failed, nano in found
            if calls > failed
        ]
        return sorted(rows, key=lambda row: (row.nano_per_call, row.model))

    async def check(self, tx: Tx, since: str, until: str) -> Check:
        """Return the sums of the ledger and of the lines, which must be the same."""
        span = Span(since=since, until=until)
        rows = await store.sum_costs(tx, [CostBy.KIND], span)
        by_kind = {row.groups["kind"]: row.cost_nano for row in rows}
        lines = by_kind.pop(CostKind.CALLS.value, 0)
        return Check(
            ledger_nano=await store.sum_ledger(tx, span),
            lines_nano=lines,
            entries_nano=sum(by_kind.values()),
            parts=tuple(sorted(by_kind.items())),
        )

    async def find_rates(self, tx: Tx, lines: Sequence[CostLine]) -> dict[str, Rates]:
        """Return the rates that lines were priced at, by price id; unknown ones are left out."""
        last: dict[str, str] = {}
        for line in lines:
            last[line.price_id] = max(line.day, last.get(line.price_id, ""))
        return await self._finops.find_rates_on(tx, last)

    async def _sum_days(
        self, tx: Tx, since: str, until: str, project_id: str | None = None
    ) -> dict[str, tuple[int, int]]:
        span = Span(since=since, until=until, project_id=project_id)
        rows = await store.sum_costs(tx, [CostBy.DAY], span)
        return {row.groups["day"]: (row.cost_nano, row.calls) for row in rows}

    async def _sum_others(
        self, tx: Tx, alias: str, release: str, since: str, until: str
    ) -> tuple[int, int]:
        """Return the calls and their cost that other releases of an alias answered."""
        span = Span(since=since, until=until, only=((CostBy.ALIAS, alias),))
        rows = await store.sum_costs(tx, [CostBy.RELEASE, CostBy.TENANT, CostBy.KIND], span)
        others = [
            row
            for row in rows
            if row.groups["kind"] == CostKind.CALLS
            and row.groups["release"] not in {release, ""}
            and row.groups["tenant"] != SHADOW_TENANT
        ]
        return sum(row.calls for row in others), sum(row.cost_nano for row in others)


def _days_before(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def _fill(by_day: dict[str, tuple[int, int]], today: str) -> dict[str, tuple[int, int]]:
    """Return the whole days before today since the first of them, with zeros where none is."""
    if not by_day or min(by_day) >= today:
        return {}
    return {day: by_day.get(day, (0, 0)) for day in list_days(min(by_day), today)}

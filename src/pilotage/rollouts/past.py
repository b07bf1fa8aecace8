"""What calls of the past say of a rollout: how the baseline is, what the candidate has cost."""

from pilotage.endpoints.types import Deployment
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.types import CostBy, Span
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import rfc3339
from pilotage.kit.db import Tx
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.types import Selection
from pilotage.rollouts.types import Known, Rollout, Signal

DAY_US = 24 * 3_600_000_000
REMEMBERED_US = 60_000_000
MOST_REMEMBERED = 100  # deployments
LEAST_CALLS = 200  # fewer do not show where the slowest twentieth begins


class CountedPast:
    """Knows what the rollups and the ledger of calls say."""

    def __init__(self, rollups: RollupService, costs: CostService, finops: FinopsService) -> None:
        self._rollups = rollups
        self._costs = costs
        self._finops = finops
        self._remembered: dict[tuple[str, str, str], tuple[int, Known]] = {}

    async def has_price(self, tx: Tx, deployment: Deployment, provider: str) -> bool:
        """Say whether the price book or the offline list knows what calls of it cost."""
        name, version = deployment.priced_as
        found = await self._finops.find_rates(tx, name, version, tx.now_us, provider=provider)
        return found is not None

    async def find_known(self, tx: Tx, endpoint: str, arm: str) -> Known:
        """Return what is known of the calls that a deployment answered in the last 24 hours.

        With a hundred tenants it takes a second or more to add up, so it is remembered for a
        minute: whoever asks before a write keeps no other writer waiting.
        """
        key = (tx.project_id, endpoint, arm)
        at_us, known = self._remembered.get(key, (0, Known()))
        if tx.now_us - at_us < REMEMBERED_US:
            return known
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        known = await self._add_up(tx, endpoint, arm)
        if known.taken:  # what is too little is added up quickly, and may soon be enough
            self._remembered[key] = (tx.now_us, known)
        return known

    async def find_cost(self, tx: Tx, rollout: Rollout) -> int:
        """Return what the candidate has cost, in whole days from the start on, in nano-USD."""
        days = Span(
            since=_get_day(rollout.created_at_us),
            until=_get_day(tx.now_us + DAY_US),
            only=((CostBy.RELEASE, rollout.candidate_id),),
        )
        return sum(row.cost_nano for row in await self._costs.sum_costs(tx, (), days))

    async def _add_up(self, tx: Tx, endpoint: str, arm: str) -> Known:
        select = Selection(alias=endpoint, arm=arm)
        cells = await self._rollups.read_cells(tx, select, tx.now_us - DAY_US, tx.now_us)
        cell = cells.get(())
        if cell is None or not cell.answerable:
            return Known()
        calls_s = cell.answerable / (DAY_US / 1e6)
        if cell.answerable < LEAST_CALLS:
            return Known(calls_s=calls_s)
        slow_us = cell.duration.quantile(0.95)
        return Known(
            calls_s=calls_s,
            error_share=cell.error_rate,
            slow_us=round(slow_us) if slow_us else None,
            mean_nano=round(cell.cost_nano / cell.answerable) or None,
            stream_share=cell.streams / cell.calls,
            taken={Signal.LATENCY: cell.duration, Signal.TTFT: cell.ttft},
        )


def _get_day(at_us: int) -> str:
    return rfc3339(at_us)[: len("2026-03-10")]

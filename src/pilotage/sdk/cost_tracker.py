"""``CostTracker``: what was spent, from Python.

There is no logic here: every method asks the control API and shows its answer. Amounts are Decimal
USD, for money is no float.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import SystemClock, rfc3339
from pilotage.sdk.held import hold_control, make_project

if TYPE_CHECKING:
    from types import TracebackType


_FINEST = Decimal("1e-9")
_LARGEST_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The model whose answered calls cost least, and what all of them cost, the cheapest first.

    Costs are USD per answered call; those that failed are paid for by those that were answered.
    """

    model: str
    cost_per_request: Decimal
    candidates: dict[str, Decimal]


class CostTracker:
    """The costs of a project: all that its gateways saw, and what is told here.

    The constructor does no I/O. The first awaited call finds the live server of the data folder, or
    opens its control plane in this process. Use ``async with``, or call :meth:`aclose`. Asking of a
    project that is not there raises ``not_found``.
    """

    def __init__(
        self, project_id: str | None = None, *, data_dir: str | None = None, reason: str = ""
    ) -> None:
        self.project_id = project_id or "default"
        self._clock = SystemClock()
        self._held = hold_control(self.project_id, data_dir, reason, makes_project=False)

    async def __aenter__(self) -> Self:
        await self._held.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close everything that was opened."""
        await self._held.close()

    async def track_usage(
        self,
        model: str,
        tokens_used: int,
        cost: Decimal | float | str,
        *,
        provider: str = "",
        source: str = "",
    ) -> str:
        """Book usage that no gateway saw; return its id. Calls of gateways are booked already.

        ``provider`` is who charges it: its invoice is compared with what was recorded of openai,
        anthropic or vertex. A ``source`` is booked once, so that the same usage told twice counts
        once: the second time raises ``already_exists``. A project that is not there is made.
        """
        control = await self._held.open()
        await make_project(control, self.project_id)
        now_us = self._clock.now_us()
        body = {
            "kind": "usage",
            "source": source or self._clock.new_id("use"),
            "cost_usd": f"{Decimal(str(cost)).quantize(_FINEST):f}",
            "start": rfc3339(now_us),
            "end": rfc3339(now_us + 1),
            "quantity": f"{Decimal(tokens_used).scaleb(-6):f}",
            "unit": "1000000 Tokens",
            "model": model,
            "provider": provider,
        }
        made = await control.post("/cost-entries", body)
        return str(made["id"])

    async def get_daily_cost(self, date: date | str | None = None) -> Decimal:
        """Return what was spent on a day (UTC), today without one."""
        first = _day(date)
        return await self._sum(first, first + timedelta(days=1))

    async def get_monthly_cost(self, month: date | str | None = None) -> Decimal:
        """Return what was spent in the month that a day is in; ``2026-03`` is a month, too."""
        text = f"{month}-01" if isinstance(month, str) and len(month) == len("2026-03") else month
        first = _day(text).replace(day=1)
        return await self._sum(first, (first + timedelta(days=31)).replace(day=1))

    async def get_cost_breakdown(
        self,
        since: date | str | None = None,
        until: date | str | None = None,
        by: str = "model",
    ) -> dict[str, Decimal]:
        """Return what was spent from one day to before another, by any group of the API.

        Without days it is all there is; ``by`` is model, tenant, feature, kind and so on.
        """
        control = await self._held.open()
        days = {
            "since": None if since is None else _day(since).isoformat(),
            "until": None if until is None else _day(until).isoformat(),
        }
        rows = control.list("/costs", by=by, limit=_LARGEST_PAGE, **days)
        return {"/".join(row["groups"].values()): _usd(row) async for row in rows}

    async def optimize_model_selection(self, task_type: str = "", *, days: int = 30) -> ModelChoice:
        """Return the model whose answers cost least for a feature or an endpoint, as measured.

        It says nothing of how good the answers are. Raises ``not_found`` where nothing was
        answered in the last days.
        """
        control = await self._held.open()
        since = (_day(None) - timedelta(days=days - 1)).isoformat()
        found = await control.get("/costs:models", task=task_type, since=since)
        if not found["items"]:
            raise PilotageError(
                "not_found",
                f"No call of {task_type or 'any endpoint'!r} was answered in {days} days.",
                hint="Name a feature or an endpoint that has traffic: pilotage usage --by feature",
            )
        costs = {
            item["model"]: Decimal(item["nano_per_call"]).scaleb(-9) for item in found["items"]
        }
        best = next(iter(costs))
        return ModelChoice(model=best, cost_per_request=costs[best], candidates=costs)

    async def _sum(self, since: date, until: date) -> Decimal:
        control = await self._held.open()
        found = await control.get("/costs", since=since.isoformat(), until=until.isoformat())
        return sum(map(_usd, found["items"]), start=Decimal(0))


def _day(day: date | str | None) -> date:
    if day is None:
        return datetime.fromisoformat(rfc3339(SystemClock().now_us())).astimezone(UTC).date()
    if isinstance(day, datetime):  # one without a time zone is in UTC, as days are
        return (day if day.tzinfo is None else day.astimezone(UTC)).date()
    if isinstance(day, date):
        return day
    try:
        return date.fromisoformat(day)
    except ValueError:
        raise PilotageError(
            "invalid_request", f"{day[:40]!r} is not a day.", hint="Write it as 2026-03-31."
        ) from None


def _usd(row: dict[str, Any]) -> Decimal:
    return Decimal(row["cost_nano"]).scaleb(-9)

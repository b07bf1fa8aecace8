"""Costs from Python, in process."""

import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

import pilotage
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import SystemClock, rfc3339
from pilotage.kit.config import Settings
from pilotage.sdk.control import share_control


async def test_usage_that_is_told_is_in_the_costs_once(tmp_path: Path) -> None:
    today = date.fromisoformat(rfc3339(SystemClock().now_us())[:10])
    async with pilotage.CostTracker("research", data_dir=str(tmp_path)) as tracker:
        await tracker.track_usage("gpt-4o", tokens_used=1500, cost=0.0125, provider="openai")
        made = await tracker.track_usage("claude", 10, "0.000000001", source="batch-7")
        with pytest.raises(PilotageError) as twice:
            await tracker.track_usage("claude", 10, 1, source="batch-7")

        assert made.startswith("cst_")
        assert twice.value.code == "already_exists"
        assert await tracker.get_daily_cost() == Decimal("0.012500001")
        assert await tracker.get_daily_cost(today) == Decimal("0.012500001")
        assert await tracker.get_daily_cost("2020-01-01") == 0
        assert await tracker.get_monthly_cost(f"{today:%Y-%m}") == Decimal("0.012500001")
        assert await tracker.get_monthly_cost(date(2020, 1, 31)) == 0
        assert await tracker.get_cost_breakdown() == {
            "claude": Decimal("0.000000001"),
            "gpt-4o": Decimal("0.0125"),
        }
        assert await tracker.get_cost_breakdown(today, by="kind") == {
            "usage": Decimal("0.012500001")
        }


async def test_asking_makes_no_project(tmp_path: Path) -> None:
    async with pilotage.CostTracker("defualt", data_dir=str(tmp_path)) as tracker:
        with pytest.raises(PilotageError) as unknown:
            await tracker.get_daily_cost()
    settings = msgspec.convert({"data_dir": str(tmp_path)}, type=Settings)
    async with share_control(settings) as control:
        projects = [item["name"] async for item in control.list("/projects")]

    assert unknown.value.code == "not_found"
    assert "defualt" in unknown.value.detail
    assert projects == ["default"]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
async def test_a_day_is_one_of_utc_wherever_it_is_asked_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        async with pilotage.CostTracker(data_dir=str(tmp_path)) as tracker:
            await tracker.track_usage("gpt-4o", 10, 1)
            now = datetime.now(UTC)
            found = [
                await tracker.get_daily_cost(now.replace(tzinfo=None)),
                await tracker.get_daily_cost(now.astimezone(ZoneInfo(zone))),
                await tracker.get_daily_cost(now.date()),
            ]
    finally:
        monkeypatch.undo()
        time.tzset()

    assert found == [1, 1, 1]


async def test_without_traffic_no_model_is_the_cheapest(tmp_path: Path) -> None:
    async with pilotage.CostTracker(data_dir=str(tmp_path)) as tracker:
        with pytest.raises(PilotageError) as unknown:
            await tracker.optimize_model_selection("search")
        with pytest.raises(PilotageError) as no_day:
            await tracker.get_daily_cost("yesterday")

    assert (unknown.value.code, no_day.value.code) == ("not_found", "invalid_request")
    assert "search" in unknown.value.detail

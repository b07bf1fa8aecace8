"""The screen of ``pilotage top``: what it shows, its keys, and looks that fail."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from pilotage.cli.top_reading import Reading
from pilotage.cli.top_screen import TopScreen, draw, write_seconds
from pilotage.core.errors import PilotageError

NEVER_S = 3_600.0  # looks happen when a test asks for one
READING = Reading(
    at="2026-11-21T12:00:00Z",
    window="1m",
    aliases={
        "quiet": {"ready_replicas": 1},
        "chat": {
            "request_rate": 2.5, "request_count": 150, "error_count": 3, "error_rate": 0.02,
            "p95_latency": 0.25, "cost_per_request": 0.0005,
        },
        "slow": {
            "request_rate": 1.0, "request_count": 50, "error_count": 0, "error_rate": 0.0,
            "p95_latency": 4.2,
        },
    },
    project={"daily_cost": 12.5, "budget_used": 0.5},
    alerts=[
        {
            "severity": "critical", "state": "firing", "rule": "slow [answers]",
            "labels": {"alias": "slow"}, "value": 4.2, "began_at": "2026-11-21T11:58:00Z",
        },
    ],
)  # fmt: skip


class Control:
    """Answers looks with what it was given last, or fails."""

    def __init__(self) -> None:
        self.reading = READING
        self.failure: PilotageError | None = None
        self.windows: list[str] = []

    async def read(self, window: str) -> Reading:
        self.windows.append(window)
        if self.failure is not None:
            raise self.failure
        return replace(self.reading, window=window)


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
def screen(control: Control) -> TopScreen:
    return TopScreen(control.read, "default", window="1m", every_s=NEVER_S)


def table(pilot: Pilot[None], name: str) -> list[list[str]]:
    found: DataTable[Any] = pilot.app.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in found.get_row_at(at)] for at in range(found.row_count)]


def said(pilot: Pilot[None], name: str) -> str:
    return str(pilot.app.query_one(f"#{name}", Static).render())


async def test_aliases_totals_and_alerts_are_shown(screen: TopScreen) -> None:
    async with screen.run_test(size=(140, 40)) as pilot:
        assert table(pilot, "fleet") == [
            ["chat", "2.50", "2.00%", "", "250 ms", "", "", "", "0.000500", "", "█"],
            ["slow", "1.00", "0.00%", "", "4.20 s", "", "", "", "", "", "█"],
            ["quiet", "", "", "", "", "", "", "", "", "1", " "],
        ]
        assert table(pilot, "alerts") == [
            ["critical", "firing", "slow [answers]", "alias=slow", "4.2", "2026-11-21 11:58:00"]
        ]
        summary = said(pilot, "summary")
    for part in ("3.50 calls/s", "1.50% errors", "$12.50 today", "50% of the budget", "1 firing"):
        assert part in summary


async def test_another_order_and_another_window(screen: TopScreen, control: Control) -> None:
    async with screen.run_test(size=(140, 40)) as pilot:
        for _ in range(3):
            await pilot.press("s")
        assert [row[0] for row in table(pilot, "fleet")] == ["slow", "chat", "quiet"]
        assert "by p95" in said(pilot, "summary")
        await pilot.press("w")
        await pilot.press("w")
        await pilot.press("w")
        assert "last 1m" in said(pilot, "summary")
    assert control.windows == ["1m", "5m", "1h", "1m"]


async def test_a_pause_shows_what_was_until_it_ends(screen: TopScreen, control: Control) -> None:
    async with screen.run_test(size=(140, 40)) as pilot:
        await pilot.press("p")
        control.reading = replace(READING, aliases={}, alerts=[])
        await screen.look()
        assert len(table(pilot, "fleet")) == 3
        assert said(pilot, "said") == "Paused: p goes on."
        await pilot.press("p")
        await screen.look()
        assert (table(pilot, "fleet"), table(pilot, "alerts")) == ([], [])
        assert said(pilot, "said") == "No alerts."
        assert "no calls" in said(pilot, "summary")


async def test_a_look_that_fails_is_said_and_the_last_one_stays(
    screen: TopScreen, control: Control
) -> None:
    async with screen.run_test(size=(140, 40)) as pilot:
        control.failure = PilotageError("unavailable", "It does not answer.", hint="Try again.")
        await screen.look()
        assert said(pilot, "said") == "It does not answer. Try again."
        assert len(table(pilot, "fleet")) == 3
        control.failure = None
        await screen.look()
        assert said(pilot, "said") == ""


async def test_the_trend_is_of_the_last_looks(screen: TopScreen, control: Control) -> None:
    async with screen.run_test(size=(140, 40)) as pilot:
        for rate in range(40):
            control.reading = replace(READING, aliases={"chat": {"request_rate": float(rate)}})
            await screen.look()
        (row,) = table(pilot, "fleet")
    assert len(row[-1]) == 24
    assert row[-1][0] < row[-1][-1] == "█"


async def test_it_ends(screen: TopScreen) -> None:
    async with screen.run_test() as pilot:
        await pilot.press("q")
    assert not screen.is_running


@pytest.mark.parametrize(
    ("values", "line"), [([], ""), ([0.0, 0.0], "  "), ([1.0, 4.0, 8.0], "▁▄█")]
)
def test_a_line_of_blocks(values: list[float], line: str) -> None:
    assert draw(values) == line


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [(write_seconds, 0.0123, "12 ms"), (write_seconds, 65.0, "65.00 s")],
)
def test_durations(write: Callable[[float], str], value: float, text: str) -> None:
    assert write(value) == text

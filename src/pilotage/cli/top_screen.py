"""The screen of ``pilotage top``, made with Textual."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from pilotage.cli.session import show_time
from pilotage.cli.top_reading import WINDOWS, Reading
from pilotage.core.errors import PilotageError

Read = Callable[[str], Awaitable[Reading]]
BARS = " ▁▂▃▄▅▆▇█"
KEPT = 24  # looks, of which a line is drawn


class TopScreen(App[None]):
    """Looks every few seconds and shows what was found; a look that fails is said and repeated."""

    CSS = """
    #summary { height: 3; padding: 1 1 0 1; text-style: bold; }
    #fleet { height: 2fr; }
    #said { height: 1; padding: 0 1; }
    #alerts { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("w", "next_window", "Window"),
        Binding("s", "next_order", "Order"),
        Binding("p", "pause", "Pause"),
    ]

    def __init__(self, read: Read, project: str, *, window: str, every_s: float) -> None:
        super().__init__()
        self._read = read
        self._project = project
        self._windows = list(dict.fromkeys([window, *WINDOWS]))
        self._every_s = every_s
        self._order = 0
        self._is_paused = False
        self._last: Reading | None = None
        self._rates: dict[str, deque[float]] = {}

    @property
    def window(self) -> str:
        """How far back is looked now."""
        return self._windows[0]

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(id="summary")
        yield DataTable[Text](id="fleet", cursor_type="row", zebra_stripes=True)
        yield Static(id="said")
        yield DataTable[Text](id="alerts", cursor_type="none")
        yield Footer()

    async def on_mount(self) -> None:
        """Begin to look."""
        fleet = self.query_one("#fleet", DataTable)
        fleet.add_column("alias")
        fleet.add_columns(*(heading for heading, _, _ in _COLUMNS), "trend")
        self.query_one("#alerts", DataTable).add_columns(
            "severity", "state", "rule", "series", "value", "since"
        )
        self.set_interval(self._every_s, self.look)
        await self.look()

    async def look(self) -> None:
        """Look once and show what was found, unless the screen is paused."""
        if self._is_paused:
            return
        try:
            reading = await self._read(self.window)
        except PilotageError as failed:
            self._say(f"{failed.detail} {failed.hint}", "red")
            return
        if reading.window != self.window:
            return  # another was chosen meanwhile
        self._last = reading
        for alias, values in reading.aliases.items():
            rates = self._rates.setdefault(alias, deque(maxlen=KEPT))
            rates.append(values.get("request_rate", 0.0))
        self._say("" if reading.alerts else "No alerts.", "dim")
        self._show(reading)

    async def action_next_window(self) -> None:
        """Look further back, or least far again."""
        self._windows.append(self._windows.pop(0))
        self._rates.clear()
        await self.look()

    def action_next_order(self) -> None:
        """Order aliases by the next column."""
        self._order = (self._order + 1) % len(_COLUMNS)
        if self._last is not None:
            self._show(self._last)

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._is_paused = not self._is_paused
        self._say("Paused: p goes on." if self._is_paused else "", "yellow")

    def _say(self, text: str, style: str) -> None:
        self.query_one("#said", Static).update(Text(text, style=style))

    def _show(self, reading: Reading) -> None:
        self.query_one("#summary", Static).update(Text(self._sum_up(reading)))
        fleet = self.query_one("#fleet", DataTable)
        fleet.clear()
        metric = _COLUMNS[self._order][1]
        ordered = sorted(
            reading.aliases.items(), key=lambda item: (-item[1].get(metric, -1.0), item[0])
        )
        for alias, values in ordered:
            cells = [write_cell(values.get(name), write) for _, name, write in _COLUMNS]
            trend = Text(draw(list(self._rates.get(alias, ()))))
            fleet.add_row(Text(alias), *cells, trend, key=alias)
        alerts = self.query_one("#alerts", DataTable)
        alerts.clear()
        for alert in reading.alerts:
            series = ", ".join(f"{name}={value}" for name, value in alert["labels"].items())
            value = alert["value"]
            alerts.add_row(
                Text(alert["severity"], style=_STYLES.get(alert["severity"], "")),
                Text(alert["state"]),
                Text(alert["rule"]),
                Text(series),
                Text("" if value is None else f"{value:.4g}", justify="right"),
                Text(show_time(alert["began_at"])),
            )

    def _sum_up(self, reading: Reading) -> str:
        firing = sum(alert["state"] == "firing" for alert in reading.alerts)
        errors = reading.error_rate
        parts = [
            f"{self._project}, last {reading.window}, {show_time(reading.at)}",
            f"{reading.rate:,.2f} calls/s",
            "no calls" if errors is None else f"{errors:.2%} errors",
        ]
        if "daily_cost" in reading.project:
            parts.append(f"${reading.project['daily_cost']:,.2f} today")
        if "budget_used" in reading.project:
            parts.append(f"{reading.project['budget_used']:.0%} of the budget")
        parts.append(f"{firing} firing, by {_COLUMNS[self._order][0]}")
        return "   ".join(parts)


def draw(values: list[float]) -> str:
    """Return a line of blocks, the highest for the largest value."""
    most = max(values, default=0.0)
    if most <= 0:
        return BARS[0] * len(values)
    steps = len(BARS) - 1
    return "".join(BARS[round(value / most * steps)] for value in values)


def write_cell(value: float | None, write: Callable[[float], str]) -> Text:
    """Return a cell, empty for what is not known."""
    return Text("" if value is None else write(value), justify="right")


def write_seconds(value: float) -> str:
    """Return a duration as people read it: ``12 ms``, ``1.23 s``."""
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.2f} s"


# Of each column: its heading, the metric it shows and orders by, and how that is written.
_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("calls/s", "request_rate", lambda value: f"{value:,.2f}"),
    ("errors", "error_rate", lambda value: f"{value:.2%}"),
    ("p50", "p50_latency", write_seconds),
    ("p95", "p95_latency", write_seconds),
    ("p99", "p99_latency", write_seconds),
    ("ttft p95", "p95_ttft", write_seconds),
    ("tokens/s", "throughput", lambda value: f"{value:,.1f}"),
    ("$/call", "cost_per_request", lambda value: f"{value:.6f}"),
    ("ready", "ready_replicas", lambda value: f"{value:.0f}"),
)
_STYLES = {"critical": "bold red", "error": "red", "warning": "yellow", "info": "cyan"}

"""The screen of ``pilotage rollout watch``, made with Textual."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from pilotage.cli.rollout_text import ENDED, GATE_COLUMNS, describe_look, list_gates, sum_up
from pilotage.core.errors import PilotageError

Read = Callable[[], Awaitable[dict[str, Any]]]
WIDTH = 50  # letters of the bar of weights
MOST_MOVES = 100


class RolloutScreen(App[None]):
    """Looks every few seconds: weights as a bar, gates as a table, and what has happened.

    A look that fails is said and repeated; an ended rollout is looked at no more.
    """

    CSS = """
    #summary { height: 2; padding: 0 1; text-style: bold; }
    #weights { height: 1; padding: 0 1; }
    #look { height: 2; padding: 1 1 0 1; }
    #gates { height: 2fr; }
    #advice { height: auto; padding: 0 1; }
    #moves { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "quit", "Quit")]

    def __init__(self, read: Read, *, every_s: float) -> None:
        super().__init__()
        self._read = read
        self._every_s = every_s
        self._rev = 0
        self.has_ended = False

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(id="summary")
        yield Static(id="weights")
        yield Static(id="look")
        yield DataTable[Text](id="gates", cursor_type="none", zebra_stripes=True)
        yield Static(id="advice")
        yield DataTable[Text](id="moves", cursor_type="none")
        yield Footer()

    async def on_mount(self) -> None:
        """Begin to look."""
        gates = self.query_one("#gates", DataTable)
        gates.add_columns(*(name.removeprefix("#") for name in GATE_COLUMNS))
        self.query_one("#moves", DataTable).add_columns("state", "share", "why")
        self.set_interval(self._every_s, self.look)
        await self.look()

    async def look(self) -> None:
        """Look once and show what was found."""
        if self.has_ended:
            return
        try:
            found = await self._read()
        except PilotageError as failed:
            self._write("#look", Text(f"{failed.detail} {failed.hint}", style="red"))
            return
        self.has_ended = found["state"] in ENDED
        self._show(found)

    def _show(self, found: Mapping[str, Any]) -> None:
        self._write("#summary", Text(sum_up(found)))
        self._write("#weights", draw_weights(found["percent"]))
        self._write("#look", Text(describe_look(found["look"])))
        self._write("#advice", Text("\n".join(found["advice"]), style="yellow"))
        gates = self.query_one("#gates", DataTable)
        gates.clear()
        for row in list_gates(found["look"]):
            gates.add_row(*_style(row))
        if found["rev"] != self._rev:
            self._rev = found["rev"]
            moves = self.query_one("#moves", DataTable)
            share = f"{found['percent']:g} %"
            if moves.row_count < MOST_MOVES:
                moves.add_row(Text(found["state"]), Text(share), Text(found["said"]))

    def _write(self, place: str, text: Text) -> None:
        self.query_one(place, Static).update(text)


def draw_weights(percent: float) -> Text:
    """Return a bar of the traffic: the candidate's part first."""
    own = round(percent / 100 * WIDTH)
    bar = Text("█" * own, style="green")
    bar.append("█" * (WIDTH - own), style="blue")
    return bar.append(f"  {percent:g} % candidate, {100 - percent:g} % baseline")


def _style(row: tuple[str, ...]) -> list[Text]:
    style = {"worse": "bold red", "fine": "green"}.get(row[-1], "")
    cells = zip(GATE_COLUMNS, row, strict=True)
    return [
        Text(cell, style=style, justify="right" if name.startswith("#") else "left")
        for name, cell in cells
    ]

"""``pilotage models compare``: two versions side by side."""

from typing import Annotated, Any

import typer

from pilotage.cli.session import Json, Project, at, run, say, show_json, show_table
from pilotage.sdk.control import ControlClient

BAR = 10  # letters of the longest bar
MARKS = {"better": "+", "worse": "-"}
Number = Annotated[str, typer.Argument(metavar="VERSION")]


def compare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")],
    a: Number,
    b: Number,
    *,
    direction: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC:higher|lower", help="Which way a metric is better."),
    ] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Compare two versions of a model by what was measured of them.

    A metric that one of them lacks is missing, never zero. "Within noise" means that the 95 %
    interval of the difference holds zero.

    [bold]Example[/bold]: pilotage models compare chat 1.0.0 1.1.0
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("models", name) + ":compare"
        return await control.get(path, a=a, b=b, directions=",".join(direction or []))

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    differences = found["performance_diff"] | found["cost_diff"]
    longest = max((abs(item["percent"] or 0) for item in differences.values()), default=0)
    rows = [_row(metric, item, longest) for metric, item in differences.items()]
    columns = ("metric", f"#{a}", f"#{b}", "#difference", "#change", "", "verdict")
    show_table(columns, rows, "Nothing was measured of either version.")
    say(f"\n{found['recommendation']}")


def draw_bar(percent: float | None, longest: float, verdict: str) -> str:
    """Return a bar as long as a change is large; of + for the better and - for the worse."""
    if not percent or not longest:
        return ""
    length = max(1, round(abs(percent) / longest * BAR))
    return MARKS.get(verdict, "~") * length


def _row(metric: str, item: dict[str, Any], longest: float) -> tuple[object, ...]:
    unit = f" {item['unit']}" if item["unit"] else ""
    sides = [f"{item[side]}{unit}" if item[side] is not None else "missing" for side in "ab"]
    return (
        metric,
        *sides,
        _show_difference(item),
        "" if item["percent"] is None else f"{item['percent']:+.1f} %",
        draw_bar(item["percent"], longest, item["verdict"]),
        item["verdict"].replace("_", " "),
    )


def _show_difference(item: dict[str, Any]) -> str:
    if item["difference"] is None:
        return ""
    if item["points"] is not None:
        text = f"{item['points']:+.3g} points"
    else:
        text = f"{float(item['difference']):+.4g}"
    if item["low"] is None:
        return text
    return f"{text} ({float(item['low']):+.3g} to {float(item['high']):+.3g})"

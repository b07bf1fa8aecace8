"""``pilotage slos``: objectives, and how much of their budget of bad calls is left."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    collect,
    fail_usage,
    run,
    say,
    show_json,
    show_table,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("slos", "Objectives: the share of calls that shall be good, and alerts on it.")
EMPTY = "There are no objectives. Set one: pilotage slos set chat --endpoint chat --objective 99.9"
SAID = (
    *("objective", "indicator", "endpoint", "threshold", "team", "runbook"),
    *("min_bad", "min_total", "enabled"),
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The objective.")]


@command(GROUP, "list")
def list_slos(*, project: Project = "default", as_json: Json = False) -> None:
    """List objectives by name.

    [bold]Example[/bold]: pilotage slos list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/slos")

    slos = run(work, project)
    if as_json:
        show_json(slos)
        return
    rows = [(item["name"], say_objective(item), item["team"]) for item in slos]
    show_table(("name", "objective", "team"), rows, EMPTY)


@command(GROUP, "show")
def show_slo(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show an objective, how it is kept, and how much of its budget is left.

    [bold]Example[/bold]: pilotage slos show chat
    """

    async def work(control: ControlClient) -> tuple[dict[str, Any], dict[str, Any]]:
        path = at("slos", name)
        return await control.get(path), await control.get(f"{path}/status")

    slo, status = run(work, project)
    if as_json:
        show_json(slo | {"status": status})
        return
    say(f"{name}: {say_objective(slo)}")
    left = status["budget_left"]
    say("No calls yet." if left is None else f"{left:.1%} of the budget of 30 days is left.")
    rows = [
        (
            item["window"],
            item["bad"],
            item["total"],
            "" if item["burn_rate"] is None else f"{item['burn_rate']:.2f}",
        )
        for item in status["windows"]
    ]
    show_table(("window", "#bad", "#of", "#burn rate"), rows, "")


@command(GROUP, "set")
def set_slo(  # noqa: PLR0913 - an objective has that many parts
    name: Name,
    *,
    objective: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Such as 99.9: calls that are good.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="Of which calls; all without.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Good is: took no longer.")
    ] = None,
    ttft: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Good is: began no later.")
    ] = None,
    team: Annotated[str | None, typer.Option(metavar="TEAM", help="Whom it concerns.")] = None,
    runbook: Annotated[str | None, typer.Option(metavar="URL", help="What to do then.")] = None,
    min_bad: Annotated[int | None, typer.Option(min=1, help="No alert before so many.")] = None,
    min_total: Annotated[int | None, typer.Option(min=1, help="Nor of fewer calls.")] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it alerts.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set an objective; one that is there keeps what is not named. Good is what did not fail.

    [bold]Examples[/bold]: pilotage slos set chat --endpoint chat --objective 99.9 --team ops
    |    pilotage slos set fast --endpoint chat --objective 95 --latency 2s
    """
    if latency is not None and ttft is not None:
        fail_usage("An objective is on one thing: --latency or --ttft.")
    given: dict[str, Any] = {
        "objective": objective,
        "endpoint": endpoint,
        "team": team,
        "runbook": runbook,
        "min_bad": min_bad,
        "min_total": min_total,
        "enabled": enabled,
    }
    body = {key: value for key, value in given.items() if value is not None}
    if latency is not None or ttft is not None:
        body |= {
            "indicator": "ttft" if latency is None else "latency",
            "threshold": latency or ttft,
        }

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("slos", name)
        now = await control.find(path)
        if now is None:
            return await control.post("/slos", body | {"name": name})
        return await control.put(path, {key: now[key] for key in SAID} | body, rev=now["rev"])

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name}: {say_objective(made)}")


@command(GROUP, "delete")
def delete_slo(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete an objective with its rules: what fires of them is over.

    [bold]Example[/bold]: pilotage slos delete chat
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("slos", name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted.")


def say_objective(slo: dict[str, Any]) -> str:
    """Return an objective as a sentence."""
    good = {
        "errors": "do not fail",
        "latency": f"take no longer than {slo['threshold']}",
        "ttft": f"begin within {slo['threshold']}",
    }[slo["indicator"]]
    whose = f"of {slo['endpoint']} " if slo["endpoint"] else ""
    disabled = "" if slo["enabled"] else " (disabled)"
    return f"{slo['objective']} % of calls {whose}{good}{disabled}"

"""``pilotage budgets``: what may be spent, and how much of it is. A budget holds nothing back."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.keys import name_tenants
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    collect,
    fail_usage,
    run,
    say,
    show_fields,
    show_json,
    show_table,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("budgets", "Budgets: what may be spent in a day or month, against what is.")
EMPTY = "There are no budgets. Set one: pilotage budgets set NAME --usd 500/month"
PERIODS = ("day", "month")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The budget.")]


@command(GROUP, "list")
def list_budgets(*, project: Project = "default", as_json: Json = False) -> None:
    """List budgets, each against what was spent.

    [bold]Example[/bold]: pilotage budgets list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/budgets")

    items = run(work, project)
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item["name"],
            f"{item['amount']}/{item['per']}",
            item["spent_usd"],
            f"{item['used']:.1%}",
            item["expected_usd"] or "",
            ", ".join(f"{mark['percent']} %" for mark in item["marks"]),
        )
        for item in items
    ]
    show_table(("name", "#USD", "#spent", "#used", "#expected", "crossed"), rows, EMPTY)


@command(GROUP, "show")
def show_budget(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a budget against what was spent, and what its period will have cost.

    [bold]Example[/bold]: pilotage budgets show search
    """

    async def work(control: ControlClient) -> tuple[dict[str, Any], dict[str, str]]:
        return await control.get(at("budgets", name)), await name_tenants(control)

    item, names = run(work, project)
    if as_json:
        show_json(item)
        return
    expected = "7 whole days are needed to say"
    if item["expected_usd"] is not None:
        expected = f"USD {item['expected_usd']} ({item['low_usd']} to {item['high_usd']})"
    show_fields(
        {
            "name": item["name"],
            "budget": f"USD {item['amount']}/{item['per']}",
            "of": _say_scope(item, names),
            "period": item["period"],
            "spent": f"USD {item['spent_usd']} ({item['used']:.1%})",
            "expected at its end": expected,
            "thresholds": ", ".join(f"{percent} %" for percent in item["thresholds"]),
            "crossed": ", ".join(f"{m['percent']} % at {m['at'][:19]}" for m in item["marks"]),
        }
    )


@command(GROUP, "set")
def set_budget(  # noqa: PLR0913 - a budget has that many parts
    name: Name,
    *,
    usd: Annotated[str, typer.Option(metavar="USD/PERIOD", help="Per day or month (UTC).")],
    at_percent: Annotated[
        str, typer.Option("--at", metavar="50,90,100", help="Thresholds in percent.")
    ] = "50,90,100",
    tenant: Annotated[str, typer.Option(help="Only its costs.")] = "",
    alias: Annotated[str, typer.Option(help="Only an endpoint's.")] = "",
    model: Annotated[str, typer.Option(help="Only a model's.")] = "",
    feature: Annotated[str, typer.Option(help="Only a feature's.")] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set a budget; one that is there gets the amount and the thresholds.

    [bold]Example[/bold]: pilotage budgets set search --usd 500/month --tenant acme --at 50,90,110
    """
    amount, _, per = usd.partition("/")
    try:
        thresholds = [int(text) for text in at_percent.split(",")]
    except ValueError:
        fail_usage(f"{at_percent!r} are no percents.", "Such as: --at 50,90,100")
    if per not in PERIODS:
        fail_usage(f"{usd!r} says no period.", "Such as: --usd 500/month, --usd 20/day")
    body = {"amount": amount, "per": per, "thresholds": thresholds} | {
        "tenant": tenant,
        "alias": alias,
        "model": model,
        "feature": feature,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("budgets", name)
        now = await control.find(path)
        if now is None:
            return await control.post("/budgets", body | {"name": name})
        return await control.put(path, body, rev=now["rev"])

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name}: USD {made['amount']}/{made['per']}, of which {made['used']:.1%} is spent.")


@command(GROUP)
def delete(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a budget; what was spent stays in the ledger.

    [bold]Example[/bold]: pilotage budgets delete search
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("budgets", name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted.")


def _say_scope(item: dict[str, Any], names: dict[str, str]) -> str:
    parts = {
        "tenant": names.get(item["tenant_id"], item["tenant_id"]),
        "endpoint": item["alias"],
        "model": item["model"],
        "feature": item["feature"],
    }
    return ", ".join(f"{part} {value}" for part, value in parts.items() if value) or "everything"

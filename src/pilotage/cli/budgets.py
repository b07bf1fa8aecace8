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
    usd: Annotated[
        str | None, typer.Option(metavar="USD/PERIOD", help="Per day or month (UTC).")
    ] = None,
    at_percent: Annotated[
        str | None, typer.Option("--at", metavar="50,90,100", help="Thresholds in percent.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only its costs.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only an endpoint's.")] = None,
    model: Annotated[str | None, typer.Option(help="Only a model's.")] = None,
    feature: Annotated[str | None, typer.Option(help="Only a feature's.")] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set a budget; one that is there keeps what is not named.

    [bold]Examples[/bold]: pilotage budgets set search --usd 500/month --tenant acme --at 50,90,110
    |    pilotage budgets set search --usd 600/month
    """
    given = {"tenant": tenant, "alias": endpoint, "model": model, "feature": feature}
    try:
        body = read_amount(usd) | read_thresholds(at_percent)
    except ValueError as wrong:
        fail_usage(f"{wrong}.", "Such as: --usd 500/month, --usd 20/day, --at 50,90,100")
    body |= {name: value for name, value in given.items() if value is not None}

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("budgets", name)
        now = await control.find(path)
        if now is None:
            return await control.post("/budgets", body | {"name": name})
        return await control.put(path, repeat_budget(now) | body, rev=now["rev"])

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


def read_amount(text: str | None) -> dict[str, Any]:
    """Return amount and period of ``500/month``, nothing of nothing; raise ValueError."""
    if text is None:
        return {}
    amount, _, per = text.partition("/")
    if per not in PERIODS:
        raise ValueError(f"usd: {text!r} says no period, write USD/PERIOD ({', '.join(PERIODS)})")
    return {"amount": amount, "per": per}


def read_thresholds(text: str | None) -> dict[str, Any]:
    """Return the thresholds of ``50,90,100``, nothing of nothing; raise ValueError."""
    if text is None:
        return {}
    try:
        return {"thresholds": [int(percent) for percent in text.split(",")]}
    except ValueError:
        raise ValueError(f"{text!r} are no percents") from None


def repeat_budget(shown: dict[str, Any]) -> dict[str, Any]:
    """Return what the API shows of a budget as it takes it."""
    kept = ("amount", "per", "alias", "model", "feature", "thresholds")
    return {name: shown[name] for name in kept} | {"tenant": shown["tenant_id"]}


def _say_scope(item: dict[str, Any], names: dict[str, str]) -> str:
    parts = {
        "tenant": names.get(item["tenant_id"], item["tenant_id"]),
        "endpoint": item["alias"],
        "model": item["model"],
        "feature": item["feature"],
    }
    return ", ".join(f"{part} {value}" for part, value in parts.items() if value) or "everything"

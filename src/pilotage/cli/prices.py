"""``pilotage prices``: what models cost. A model without a price is not served."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    collect,
    fail_usage,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("prices", "Prices: USD per million tokens, from a time on.")
CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning")
EMPTY = "There are no prices. Set one: pilotage prices set MODEL --input 0.05 --output 0.15"
Rate = typer.Option(metavar="USD")


@command(GROUP, "list")
def list_prices(
    *,
    model: Annotated[
        str | None, typer.Option(help="Only those of MODEL, or of MODEL@VERSION.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Past and future prices as well.")
    ] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List the prices in force, in USD per million tokens.

    [bold]Examples[/bold]: pilotage prices list    |    pilotage prices list --model chat --history
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/prices", subject=model, current=not history)

    prices = run(work, project)
    if as_json:
        show_json(prices)
        return
    rows = [
        (
            item["subject"],
            *(["free"] + [""] * 4 if item["is_free"] else [item[name] for name in CLASSES]),
            show_time(item["valid_from"]),
        )
        for item in prices
    ]
    columns = ("model", "#input", "#output", "#cache read", "#cache write", "#reasoning")
    show_table((*columns, "from (UTC)"), rows, EMPTY)


@command(GROUP, "show")
def show_price(
    model: Annotated[
        str, typer.Argument(metavar="MODEL[@VERSION]", help="The model, as its provider names it.")
    ],
    *,
    provider: Annotated[
        str, typer.Option(help="Whose model it is: openai, anthropic or vertex.")
    ] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show what a model costs now, and where that is written.

    A price that was set goes before the one of the offline price list.

    [bold]Example[/bold]: pilotage prices show gpt-4o-mini --provider openai
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/prices:find", model=model, provider=provider)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    if not found["rates"]:
        say(f"{model}: nobody knows what it costs: {found['why']}.")
        say(f"  Set it: pilotage prices set {model} --input USD --output USD")
        return
    place = "set here" if found["source"] == "book" else "from the price list"
    free = ", free" if found["is_free"] else ""
    say(f"{model}: {found['price_id']}, {place}{free}. USD per million tokens:")
    rows = [
        (f"over {rates['over']:,}" if rates["over"] else "any", *(rates[n] for n in CLASSES))
        for rates in found["rates"]
    ]
    columns = ("#input", "#output", "#cache read", "#cache write", "#reasoning")
    show_table(("prompt tokens", *columns), rows, EMPTY)
    if found["apart"]:
        say(f"Charged by the provider besides: {', '.join(found['apart'])}.")


@command(GROUP, "set")
def set_price(  # noqa: PLR0913 - a price has that many parts
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="What it is for.")],
    *,
    input: Annotated[str | None, Rate] = None,  # noqa: A002 - the token class of that name
    output: Annotated[str | None, Rate] = None,
    cache_read: Annotated[str | None, typer.Option(metavar="USD", help="Default: input.")] = None,
    cache_write: Annotated[str | None, typer.Option(metavar="USD", help="Default: input.")] = None,
    reasoning: Annotated[str | None, typer.Option(metavar="USD", help="Default: output.")] = None,
    free: Annotated[
        bool, typer.Option("--free", help="It costs nothing, and that is meant.")
    ] = False,
    valid_from: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Default: now.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set a price from a time on, in USD per million tokens; what was charged before stays.

    [bold]Examples[/bold]: pilotage prices set smollm2 --free
    |    pilotage prices set chat@2.0.0 --input 0.05 --output 0.15 --from 2026-04-01
    """
    if not free and (input is None or output is None):
        fail_usage("A price needs --input and --output.", "Or --free, if it costs nothing.")
    rates = {"cache_read": cache_read, "cache_write": cache_write, "reasoning": reasoning}
    body = rates | {
        "subject": model,
        "input": input or "0",
        "output": output or "0",
        "is_free": free,
        "valid_from": valid_from,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/prices", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        cost = f"USD {made['input']} in, {made['output']} out per million tokens"
        since = show_time(made["valid_from"])
        say(f"{made['subject']}: {'free' if free else cost}, from {since} UTC.")

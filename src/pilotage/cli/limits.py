"""``pilotage limits``: what calls may use together, in money, tokens, requests or at once."""

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

GROUP = make_group("limits", "Limits: what calls may use, in USD, tokens, requests and at once.")
EMPTY = "There are no limits. Set one: pilotage limits set NAME --tenant TENANT --usd 500/month"
MEASURES = ("usd", "tokens", "requests", "concurrency")
PERIODS = ("minute", "day", "month", "total")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The limit.")]


@command(GROUP, "list")
def list_limits(*, project: Project = "default", as_json: Json = False) -> None:
    """List limits by name.

    [bold]Example[/bold]: pilotage limits list
    """

    async def work(control: ControlClient) -> tuple[list[dict[str, Any]], dict[str, str]]:
        return await collect(control, "/limits"), await name_tenants(control)

    limits, names = run(work, project)
    if as_json:
        show_json(limits)
        return
    rows = [
        (item["name"], _say_amount(item), _say_scope(item, names), _say_action(item))
        for item in limits
    ]
    show_table(("name", "at most", "of", "then"), rows, EMPTY)


@command(GROUP, "show")
def show_limit(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a limit.

    [bold]Example[/bold]: pilotage limits show monthly
    """

    async def work(control: ControlClient) -> tuple[dict[str, Any], dict[str, str]]:
        return await control.get(at("limits", name)), await name_tenants(control)

    limit, names = run(work, project)
    if as_json:
        show_json(limit)
    else:
        show_fields(_describe(limit, names))


@command(GROUP, "set")
def set_limit(  # noqa: PLR0913 - a limit has that many parts
    name: Name,
    *,
    usd: Annotated[
        str | None, typer.Option(metavar="USD/PERIOD", help="Per day, month or total.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="N/PERIOD", help="Such as 100k/day; minute, too.")
    ] = None,
    requests: Annotated[
        str | None, typer.Option(metavar="N/PERIOD", help="Such as 60/minute.")
    ] = None,
    concurrency: Annotated[str | None, typer.Option(metavar="N", help="Calls at once.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only its calls; * for each tenant.")] = None,
    key: Annotated[str | None, typer.Option(help="Only its calls; * for each key.")] = None,
    user: Annotated[str | None, typer.Option(help="Only theirs; * for each user.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Only calls of it; * for each endpoint.")
    ] = None,
    block: Annotated[bool, typer.Option("--block", help="Refuse what is over it.")] = False,
    warn: Annotated[bool, typer.Option("--warn", help="Let it through, and mark it.")] = False,
    downgrade_to: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="Have this one answer instead.")
    ] = None,
    on_store_loss: Annotated[
        str | None,
        typer.Option(metavar="closed|open", help="Refuse or admit while nobody can count."),
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set a limit: a budget in USD, a quota in tokens or requests, a rate, or calls at once.

    One that is there keeps what is not named; what it has counted stays counted.

    [bold]Examples[/bold]: pilotage limits set monthly --tenant acme --usd 500/month
    |    pilotage limits set per-user --tokens 100k/day --user '*' --downgrade-to small
    |    pilotage limits set rate --key '*' --requests 60/minute
    """
    given: dict[str, Any] = {
        "tenant": tenant,
        "key": key,
        "user": user,
        "endpoint": endpoint,
        "on_store_loss": on_store_loss,
    } | _read_action(block=block, warn=warn, downgrade_to=downgrade_to)
    amounts = dict(zip(MEASURES, (usd, tokens, requests, concurrency), strict=True))
    try:
        amount = read_amount({name: text for name, text in amounts.items() if text is not None})
    except ValueError as wrong:
        fail_usage(f"{wrong}.", "Such as: --usd 500/month, --requests 60/minute, --concurrency 8")
    body = amount | {name: value for name, value in given.items() if value is not None}

    async def work(control: ControlClient) -> tuple[dict[str, Any], dict[str, str]]:
        path = at("limits", name)
        now = await control.find(path)
        if now is None:
            made = await control.post("/limits", body | {"name": name})
        else:
            made = await control.put(path, repeat_limit(now) | body, rev=now["rev"])
        return made, await name_tenants(control)

    made, names = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        amount_said, scope = _say_amount(made), _say_scope(made, names)
        say(f"{name}: at most {amount_said} of {scope}, then {_say_action(made)}.")


@command(GROUP)
def delete(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a limit: from then on it holds nothing back.

    [bold]Example[/bold]: pilotage limits delete monthly
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("limits", name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted.")


def read_amount(texts: dict[str, str]) -> dict[str, str]:
    """Return measure, amount and period of ``{"usd": "500/month"}``; nothing of nothing.

    Raises ValueError for more than one of them and for what says no period.
    """
    if len(texts) > 1:
        raise ValueError(f"a limit is of one thing, not of {' and '.join(texts)}")
    for measure, text in texts.items():
        amount, _, per = text.partition("/")
        if (measure == "concurrency") != (not per) or (per and per not in PERIODS):
            wanted = "N" if measure == "concurrency" else f"AMOUNT/PERIOD ({', '.join(PERIODS)})"
            raise ValueError(f"{measure}: write {wanted}, not {text!r}")
        return {"measure": measure, "amount": amount, "per": per}
    return {}


def repeat_limit(shown: dict[str, Any]) -> dict[str, Any]:
    """Return what the API shows of a limit as it takes it."""
    kept = ("measure", "amount", "per", "user", "endpoint", "action", "downgrade_to")
    return {name: shown[name] for name in (*kept, "on_store_loss")} | {
        "tenant": shown["tenant_id"],
        "key": shown["key_id"],
    }


def _read_action(*, block: bool, warn: bool, downgrade_to: str | None) -> dict[str, str]:
    if block + warn + (downgrade_to is not None) > 1:
        fail_usage("A limit does one thing: --block, --warn or --downgrade-to.")
    if downgrade_to is not None:
        return {"action": "downgrade", "downgrade_to": downgrade_to}
    if block or warn:
        return {"action": "warn" if warn else "block", "downgrade_to": ""}
    return {}


def _say_amount(limit: dict[str, Any]) -> str:
    if limit["measure"] == "usd":
        return f"USD {limit['amount']}/{limit['per']}"
    number = f"{int(limit['amount']):,}"
    if limit["measure"] == "concurrency":
        return f"{number} calls at once"
    return f"{number} {limit['measure']}/{limit['per']}"


def _say_scope(limit: dict[str, Any], names: dict[str, str]) -> str:
    wanted = {
        "tenant": names.get(limit["tenant_id"], limit["tenant_id"]),
        "key": limit["key_id"],
        "user": limit["user"],
        "endpoint": limit["endpoint"],
    }
    said = [
        f"each {part}" if value == "*" else f"{part} {value}"
        for part, value in wanted.items()
        if value
    ]
    return ", ".join(said) or "all calls together"


def _say_action(limit: dict[str, Any]) -> str:
    if limit["action"] == "downgrade":
        return f"downgrade to {limit['downgrade_to']}"
    return str(limit["action"])


def _describe(limit: dict[str, Any], names: dict[str, str]) -> dict[str, object]:
    closed = limit["on_store_loss"] == "closed"
    return {
        "name": limit["name"],
        "at most": _say_amount(limit),
        "of": _say_scope(limit, names),
        "then": _say_action(limit),
        "while nobody can count": "refuse" if closed else "admit and mark",
        "id": limit["id"],
    }

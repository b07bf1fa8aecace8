"""``pilotage usage``: calls, tokens and cost, summed up from the ledger."""

from typing import Annotated, Any

import typer

from pilotage.cli.keys import name_tenants
from pilotage.cli.session import Json, Project, collect, run, show_json, show_table
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

USERS_AT_ONCE = 100


def usage(
    *,
    by: Annotated[
        str,
        typer.Option(
            help="Any of tenant, project, key, user, feature, alias, model, version, "
            "prompt, upstream, day, outcome."
        ),
    ] = "tenant,model",
    since: Annotated[str | None, typer.Option(help="From this day or time on (UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="To before this day or time (UTC).")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of a tenant.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Sum up calls, tokens and cost.

    [bold]Example[/bold]: pilotage usage --by tenant,model,day --since 2026-03-01
    """
    query = {"since": since, "until": until, "tenant": tenant}

    async def work(
        control: ControlClient,
    ) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
        groups = await collect(control, "/usage", by=by, **query)
        total = await control.get("/usage", **query)
        names = await name_tenants(control) | await _name_users(control, groups)
        return groups, total["items"][0], names

    groups, total, names = run(work, project)
    if as_json:
        show_json({"groups": groups, "total": total})
        return
    keys = list(groups[0]["groups"]) if groups else []
    rows = [
        tuple(_name(key, item["groups"][key], names) for key in keys) + _sums(item)
        for item in groups
    ]
    if rows and keys:
        rows.append(("total", *[""] * (len(keys) - 1), *_sums(total)))
    columns = ("#calls", "#input", "#cached", "#output", "#USD", "#of it estimated")
    empty = "There were no calls. Make one: pilotage up, then pilotage chat"
    show_table((*keys, *columns), rows, empty, has_total=bool(keys))


def _sums(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{item['calls']:,}",
        f"{item['input_tokens'] + item['cache_write_tokens']:,}",
        f"{item['cache_read_tokens']:,}",
        f"{item['output_tokens'] + item['reasoning_tokens']:,}",
        item["cost_usd"],
        item["estimated_usd"] if item["estimated_nano"] else "",
    )


async def _name_users(control: ControlClient, groups: list[dict[str, Any]]) -> dict[str, str]:
    """Return the names of the users in groups, for those who may know them."""
    tokens = sorted({item["groups"].get("user", "") for item in groups} - {""})
    names: dict[str, str] = {}
    for start in range(0, len(tokens), USERS_AT_ONCE):
        some = ",".join(tokens[start : start + USERS_AT_ONCE])
        try:
            found = await collect(control, "/users", tokens=some, limit=USERS_AT_ONCE)
        except PilotageError as refused:
            if refused.code != "permission_denied":
                raise
            return {}
        names |= {user["id"]: user["name"] for user in found}
    return names


def _name(key: str, value: str, names: dict[str, str]) -> str:
    return names.get(value, value or "(none)") if key in ("tenant", "user") else value or "(none)"

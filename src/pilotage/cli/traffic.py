"""``pilotage traffic tail``: the calls, as they end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.keys import name_tenants
from pilotage.cli.session import Json, Project, note, run, say, show_json
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

GROUP = make_group("traffic", "Traffic: what the gateway was asked.")
POLL_S = 0.5
PAGE = 500


@command(GROUP)
def tail(
    *,
    count: Annotated[
        int, typer.Option("-n", min=0, max=500, help="How many of the newest first.")
    ] = 20,
    follow: Annotated[bool, typer.Option(help="Go on with every call that ends.")] = True,
    tenant: Annotated[str | None, typer.Option(help="Only of a tenant.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show the newest calls, one line each, and follow; Ctrl-C ends.

    With --json: an array, or with --follow one object a line.

    [bold]Examples[/bold]: pilotage traffic tail --tenant acme
    |    pilotage traffic tail -n 100 --no-follow --json
    """

    async def work(control: ControlClient) -> None:
        if follow and not control.is_live:
            raise PilotageError(
                "unavailable",
                "No server runs, so there are no calls to follow.",
                hint="Start it: pilotage up. Or see what was: pilotage traffic tail --no-follow",
            )
        page = await control.get("/traffic", limit=max(1, count), tenant=tenant)
        newest = page["items"] if count else []
        names = await name_tenants(control)
        if not follow:
            _show(newest, names, as_json=as_json)
            return
        if not page["items"] and not as_json:
            note("No calls yet. Make one in another terminal: pilotage chat")
        for entry in newest:
            _show_line(entry, names, as_json=as_json)
        place = page["items"][-1]["seq"] if page["items"] else 0
        async for entry in _follow(control, place, tenant):
            _show_line(entry, names, as_json=as_json)

    run(work, project)


async def _follow(
    control: ControlClient, place: int, tenant: str | None
) -> AsyncIterator[dict[str, Any]]:
    while True:
        page = await control.get("/traffic", after=place, limit=PAGE, tenant=tenant)
        for entry in page["items"]:
            place = entry["seq"]
            yield entry
        if page["next"] is None:
            await asyncio.sleep(POLL_S)


def _show_line(entry: dict[str, Any], names: dict[str, str], *, as_json: bool) -> None:
    say(msgspec.json.encode(entry).decode() if as_json else describe(entry, names))


def _show(entries: list[dict[str, Any]], names: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        show_json(entries)
        return
    for entry in entries:
        say(describe(entry, names))
    if not entries:
        say("There were no calls. Make one: pilotage up, then pilotage chat")


def describe(entry: dict[str, Any], names: dict[str, str]) -> str:
    """Return a call as one line."""
    inputs = entry["input_tokens"] + entry["cache_read_tokens"] + entry["cache_write_tokens"]
    output = entry["output_tokens"] + entry["reasoning_tokens"]
    parts = [
        entry["at"][:19].replace("T", " "),
        names.get(entry["tenant_id"], entry["tenant_id"]),
        entry["model"] or entry["alias"],
        "reversal" if entry["kind"] == "reversal" else entry["outcome"],
        str(entry["status"]),
        f"{inputs} in {output} out",
        f"USD {entry['cost_usd']}{'~' if entry['is_estimated'] else ''}",
        show_duration(entry["duration_us"]),
        f"first token {show_duration(entry['ttft_us'])}" if entry["ttft_us"] >= 0 else "",
    ]
    return "  ".join(part for part in parts if part)


def show_duration(microseconds: int) -> str:
    """Return a duration as people read it; "" where it is not known."""
    if microseconds < 0:
        return ""
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.0f} ms"
    return f"{microseconds / 1e6:.1f} s"

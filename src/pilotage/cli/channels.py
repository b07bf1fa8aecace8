"""``pilotage channels``: where people are told of alerts."""

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
    show_fields,
    show_json,
    show_table,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("channels", "Channels: where people are told of alerts.")
EMPTY = (
    "There are no channels. Make one: pilotage channels set on-call --kind webhook "
    "--url https://HOST/PATH --secret env:PILOTAGE_NOTICE_HOOK"
)
KINDS = ("log", "webhook", "email", "slack", "pagerduty")
FIELDS = (
    "kind",
    "url",
    "secret",
    "ca_file",
    "encryption",
    "username",
    "sender",
    "to",
    "tells_end",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The channel.")]


@command(GROUP, "list")
def list_channels(*, project: Project = "default", as_json: Json = False) -> None:
    """List channels by name.

    [bold]Example[/bold]: pilotage channels list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/channels")

    channels = run(work, project)
    if as_json:
        show_json(channels)
        return
    rows = [(item["name"], item["kind"], _say_place(item)) for item in channels]
    show_table(("name", "kind", "to"), rows, EMPTY)


@command(GROUP, "show")
def show_channel(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a channel.

    [bold]Example[/bold]: pilotage channels show on-call
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("channels", name))

    channel = run(work, project)
    if as_json:
        show_json(channel)
        return
    shown = {field: channel[field] for field in FIELDS if channel[field] not in ("", [])}
    show_fields({"name": channel["name"]} | shown | {"id": channel["id"]})


@command(GROUP, "set")
def set_channel(  # noqa: PLR0913 - a channel has that many parts
    name: Name,
    *,
    kind: Annotated[str | None, typer.Option(help=f"One of {', '.join(KINDS)}.")] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="https://HOST/PATH, smtp://HOST:PORT, or env:NAME."),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(metavar="REFERENCE", help="Where the server finds it: env:NAME, file:/PATH."),
    ] = None,
    ca_file: Annotated[
        str | None, typer.Option(metavar="PATH", help="Certificates to trust instead.")
    ] = None,
    encryption: Annotated[
        str | None, typer.Option(metavar="HOW", help="Of mail: starttls, tls or none.")
    ] = None,
    username: Annotated[str | None, typer.Option(help="Who signs in to the mail server.")] = None,
    sender: Annotated[str | None, typer.Option(help="Whom mails are from.")] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="Who gets mails; as often as needed.")
    ] = None,
    tells_end: Annotated[
        bool | None, typer.Option("--tells-end/--no-tells-end", help="Tell what is over, too.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set a channel; one that is there keeps what is not named.

    [bold]Examples[/bold]: pilotage channels set hook --kind webhook --url https://HOST/PATH
    --secret env:PILOTAGE_NOTICE_HOOK
    |    pilotage channels set desk --kind email --url smtp://mail:587
    --sender pilotage@bank.example --to finance@bank.example
    """
    if kind is not None and kind not in KINDS:
        fail_usage(f"There is no kind {kind!r}.", f"There are: {', '.join(KINDS)}.")
    said = (kind, url, secret, ca_file, encryption, username, sender, to, tells_end)
    given = {field: value for field, value in zip(FIELDS, said, strict=True) if value is not None}

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("channels", name)
        now = await control.find(path)
        if now is None:
            if kind is None:
                fail_usage(f"There is no channel {name!r} yet.", "Say what it is with --kind.")
            return await control.post("/channels", given | {"name": name})
        kept = {} if kind not in (None, now["kind"]) else {field: now[field] for field in FIELDS}
        return await control.put(path, kept | given, rev=now["rev"])

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name}: {made['kind']} {_say_place(made)}".rstrip() + ".")
        say(f"Try it: pilotage channels test {name}")


@command(GROUP, "test")
def send_test(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Send a test notice now, and say whether it arrived.

    [bold]Example[/bold]: pilotage channels test on-call
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(f"{at('channels', name)}:test", {})

    arrived = run(work, project)
    if as_json:
        show_json(arrived)
    else:
        say(f"{name} took notice {arrived['notice']} within {arrived['took_ms']} ms.")


@command(GROUP)
def delete(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a channel that no route leads to.

    [bold]Example[/bold]: pilotage channels delete on-call
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("channels", name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted.")


def _say_place(channel: dict[str, Any]) -> str:
    return ", ".join(channel["to"]) or str(channel["url"])

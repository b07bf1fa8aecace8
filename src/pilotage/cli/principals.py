"""``pilotage principals``, ``roles`` and ``credentials``: who may use the control API."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Reason,
    at,
    collect,
    note,
    run,
    say,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

PRINCIPALS = make_group("principals", "Users and service accounts of the control API.")
ROLES = make_group("roles", "Who has which role, and where.")
CREDENTIALS = make_group("credentials", "By what principals are known to the control API.")
Who = Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Its name or id.")]
One = Annotated[str, typer.Argument(metavar="ID", help="The id, from the list.")]
Expires = Annotated[str | None, typer.Option(help="How long it lasts, such as 90d.")]


@command(PRINCIPALS, "list")
def list_principals(*, as_json: Json = False) -> None:
    """List users, service accounts and gateways, disabled ones too.

    [bold]Example[/bold]: pilotage principals list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/principals")

    found = run(work)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["name"],
            item["kind"],
            item["display_name"],
            item["email"],
            "disabled" if item["disabled_at"] else "active",
            show_time(item["last_seen_at"]) or "never",
        )
        for item in found
    ]
    columns = ("name", "kind", "called", "e-mail", "state", "last seen (UTC)")
    show_table(columns, rows, "There are no principals. Make one: pilotage principals create NAME")


@command(PRINCIPALS)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called; never reused.")],
    *,
    service: Annotated[bool, typer.Option("--service", help="A program, not a person.")] = False,
    display_name: Annotated[str, typer.Option(help="A person's name.")] = "",
    email: Annotated[str, typer.Option(help="A person's e-mail address.")] = "",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create a user, or a service account; it has no role and no credential yet.

    [bold]Example[/bold]: pilotage principals create ada --display-name "Ada Lovelace"
    """
    body = {
        "name": name,
        "kind": "service_account" if service else "user",
        "display_name": display_name,
        "email": email,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/principals", body)

    made = run(work, reason=reason)
    if as_json:
        show_json(made)
        return
    say(f"{made['name']} is {made['id']}.")
    note(f"Give it a role: pilotage roles grant {name} viewer")
    note(f"Give it a credential: pilotage credentials create {name}")


@command(PRINCIPALS)
def show(principal: Who, *, as_json: Json = False) -> None:
    """Show a principal.

    [bold]Example[/bold]: pilotage principals show ada
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("principals", principal))

    shown = run(work)
    if as_json:
        show_json(shown)
    else:
        show_fields(shown)


@command(PRINCIPALS)
def disable(principal: Who, *, reason: Reason = "", as_json: Json = False) -> None:
    """Let a principal do nothing any more, until it is enabled.

    [bold]Example[/bold]: pilotage principals disable ada --reason "on leave"
    """
    _switch(principal, "disable", reason, as_json=as_json)


@command(PRINCIPALS)
def enable(principal: Who, *, reason: Reason = "", as_json: Json = False) -> None:
    """Let a disabled principal act again.

    [bold]Example[/bold]: pilotage principals enable ada --reason "back from leave"
    """
    _switch(principal, "enable", reason, as_json=as_json)


@command(PRINCIPALS)
def whoami(*, as_json: Json = False) -> None:
    """Show who you are to the control API, and which roles you have.

    [bold]Example[/bold]: pilotage principals whoami
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/me")

    me = run(work)
    if as_json:
        show_json(me)
        return
    say(f"{me['name']} ({me['kind']}, {me['id']})")
    for role in me["roles"]:
        say(f"  {role['role']} in {role['project_id'] or 'every project'}")


@command(ROLES, "list")
def list_roles(
    *,
    principal: Annotated[str | None, typer.Option(help="Only those of a principal.")] = None,
    as_json: Json = False,
) -> None:
    """List who has which role, and where; ended ones too.

    [bold]Example[/bold]: pilotage roles list --principal ada
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/role-bindings", principal=principal)

    found = run(work)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["id"],
            item["principal_id"],
            item["role"],
            item["project_id"] or "every project",
            item["source"] or item["granted_by"],
            show_time(item["granted_at"]),
            show_time(item["ended_at"] or item["expires_at"]) or "never",
        )
        for item in found
    ]
    columns = ("id", "principal", "role", "where", "granted by", "granted (UTC)", "ends")
    show_table(columns, rows, "Nobody has a role. Give one: pilotage roles grant NAME viewer")


@command(ROLES)
def grant(
    principal: Who,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Such as viewer or approver.")],
    *,
    project: Annotated[
        str | None, typer.Option(help="Only in this project; default: in all.")
    ] = None,
    expires: Expires = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Give a principal a role; nobody gives one to themselves.

    [bold]Example[/bold]: pilotage roles grant ada approver --project risk --expires 90d
    """
    body = {"principal": principal, "role": role, "project": project, "expires_in": expires}

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/role-bindings", body)

    given = run(work, reason=reason)
    if as_json:
        show_json(given)
    else:
        say(f"{principal} is {role} in {project or 'every project'} ({given['id']}).")


@command(ROLES)
def end(binding: One, *, reason: Reason = "", as_json: Json = False) -> None:
    """Take a role away.

    [bold]Example[/bold]: pilotage roles end bnd_06f... --reason "moved to another team"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(at("role-bindings", binding) + ":end")

    ended = run(work, reason=reason)
    if as_json:
        show_json(ended)
    else:
        say(f"{ended['principal_id']} is no longer {ended['role']}.")


@command(CREDENTIALS, "list")
def list_credentials(
    *,
    principal: Annotated[str | None, typer.Option(help="Only those of a principal.")] = None,
    as_json: Json = False,
) -> None:
    """List credentials, oldest first; their texts are kept nowhere.

    [bold]Example[/bold]: pilotage credentials list --principal ada
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/credentials", principal=principal)

    found = run(work)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["id"],
            item["principal_id"],
            f"...{item['hint']}",
            show_time(item["created_at"]),
            show_time(item["last_used_at"]) or "never",
            show_time(item["revoked_at"] or item["expires_at"]) or "never",
        )
        for item in found
    ]
    columns = ("id", "principal", "ends in", "created (UTC)", "last used", "ends")
    show_table(columns, rows, "There are no credentials.")


@command(CREDENTIALS, "create")
def create_credential(
    principal: Who, *, expires: Expires = None, reason: Reason = "", as_json: Json = False
) -> None:
    """Make a credential of a principal and show its text, this once.

    [bold]Example[/bold]: pilotage credentials create ada --expires 90d
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("principals", principal, "credentials")
        return await control.post(path, {"expires_in": expires})

    _show_new(run(work, reason=reason), as_json=as_json)


@command(CREDENTIALS)
def rotate(
    credential: One,
    *,
    overlap: Annotated[
        str, typer.Option(help="How long the old one goes on being accepted; 0 ends it now.")
    ] = "24h",
    own: Annotated[bool, typer.Option("--own", help="It is your own.")] = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make another credential of the same principal; the old one ends after the overlap.

    [bold]Example[/bold]: pilotage credentials rotate crd_06f... --overlap 24h
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at(*(["me"] if own else []), "credentials", credential)
        return await control.post(f"{path}:rotate", {"overlap": overlap})

    _show_new(run(work, reason=reason), as_json=as_json)


@command(CREDENTIALS)
def revoke(credential: One, *, reason: Reason = "", as_json: Json = False) -> None:
    """Refuse a credential for ever.

    [bold]Example[/bold]: pilotage credentials revoke crd_06f... --reason "left in a log"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(at("credentials", credential) + ":revoke")

    revoked = run(work, reason=reason)
    if as_json:
        show_json(revoked)
    else:
        say(f"{revoked['id']} is revoked.")


def _switch(principal: str, verb: str, reason: str, *, as_json: bool) -> None:
    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(f"{at('principals', principal)}:{verb}")

    switched = run(work, reason=reason)
    if as_json:
        show_json(switched)
    else:
        say(f"{switched['name']} is {verb}d.")


def _show_new(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(made)
        return
    say(made["secret"])
    until = f", until {show_time(made['expires_at'])} UTC" if made["expires_at"] else ""
    note(f"{made['id']}{until}. Keep the text: it is shown this once.")

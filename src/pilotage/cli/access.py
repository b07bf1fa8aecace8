"""``pilotage access``: who may do what and where, and taking it away."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import Json, Reason, at, note, run, say, show_json, show_time
from pilotage.sdk.control import ControlClient

GROUP = make_group("access", "Who may do what and where: the review, and taking access away.")


@command(GROUP)
def review(
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write Markdown, for a ticket or a file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show everybody who may act, every key that is accepted, and what to look at.

    [bold]Example[/bold]: pilotage access review --markdown > access.md
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/identity/access-review")

    found = run(work)
    if as_json:
        show_json(found)
        return
    lines = list(_write(found))
    say("\n".join(lines if markdown else [line.replace("**", "") for line in lines]))


@command(GROUP)
def revoke(
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Its name or id.")],
    *,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Take everything away from a principal at once: it, its credentials and its roles.

    [bold]Example[/bold]: pilotage access revoke ada --reason "has left"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(f"{at('principals', principal)}:revoke-access")

    revoked = run(work, reason=reason)
    if as_json:
        show_json(revoked)
    else:
        say(f"{revoked['name']} may do nothing any more.")
        for key in revoked["keys"]:
            note(
                f"{revoked['name']} made the key {key['name']} and knows its text: "
                f"pilotage keys revoke {key['id']}"
            )


def _write(review: dict[str, Any]) -> Iterator[str]:
    yield f"# Access review of {show_time(review['at'])} UTC"
    yield ""
    for item in review["principals"]:
        called = f" ({item['display_name']})" if item["display_name"] else ""
        seen = show_time(item["last_seen_at"]) or "never"
        yield f"- **{item['name']}**{called}, {item['kind']}, last seen {seen}"
        for role in item["roles"]:
            ends = f", until {show_time(role['expires_at'])}" if role["expires_at"] else ""
            yield (
                f"  - {role['role']} in {role['project'] or 'every project'}, "
                f"since {show_time(role['granted_at'])} by {role['granted_by']}{ends}"
            )
        for held in item["credentials"]:
            yield (
                f"  - credential {held['id']}, made {show_time(held['created_at'])} by "
                f"{held['created_by']}, last used {show_time(held['last_used_at']) or 'never'}"
            )
        yield from _list_remarks(item)
    yield ""
    yield "# API keys"
    yield ""
    for key in review["keys"]:
        bounds = ", ".join([*key["aliases"], *key["operations"]]) or "everything"
        yield (
            f"- **{key['name']}** ({key['id']}) of {key['tenant_id']}, for {bounds}, "
            f"made {show_time(key['created_at'])} by {key['created_by']}"
        )
        yield from _list_remarks(key)


def _list_remarks(item: dict[str, Any]) -> Iterator[str]:
    for remark in item["remarks"]:
        yield f"  - **look: {remark.replace('_', ' ')}**"

"""``pilotage gateways``: the gateways that run apart from this control plane."""

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
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("gateways", "Gateways that run apart from the control plane.")
EMPTY = "No gateway runs apart. Make one: pilotage gateways create NAME"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The gateway's name.")]


@command(GROUP, "list")
def list_gateways(*, as_json: Json = False) -> None:
    """List gateways: when each was heard, what it serves, how far its records are here.

    [bold]Example[/bold]: pilotage gateways list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/gateways")

    gateways = run(work)
    if as_json:
        show_json(gateways)
        return
    rows = [row for gateway in gateways for row in _make_rows(gateway)]
    show_table(
        (
            "name",
            "state",
            "slot",
            "last heard (UTC)",
            "#snapshot",
            "#records",
            "#lag (s)",
            "upgrade",
        ),
        rows,
        EMPTY,
    )


@command(GROUP)
def create(name: Name, *, reason: Reason = "", as_json: Json = False) -> None:
    """Create a gateway and show its credential, this once, and the key that it must pin.

    [bold]Example[/bold]: pilotage gateways create paris
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/gateways", {"name": name})

    made = run(work, reason=reason)
    if as_json:
        show_json(made)
        return
    say(made["secret"])
    note(
        f"""The credential of {name}: keep it, it is shown this once. On the gateway's machine:

  PILOTAGE_REMOTE_CONTROL_URL=https://CONTROL-PLANE
  PILOTAGE_REMOTE_CREDENTIAL=file:PATH   # of a file that holds the credential
  PILOTAGE_REMOTE_PUBLIC_KEY={made["public_key"]}
  pilotage gateway"""
    )


@command(GROUP)
def revoke(name: Name, *, reason: Reason = "", as_json: Json = False) -> None:
    """Revoke a gateway's credential for ever: no more Snapshots for it, no more records from it.

    It serves until its Snapshot expires; stop it, too. Its name is not given to another.

    [bold]Example[/bold]: pilotage gateways revoke paris --reason "machine returned"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(at("gateways", name) + ":revoke")

    revoked = run(work, reason=reason)
    if as_json:
        show_json(revoked)
    else:
        say(f"{revoked['name']} is revoked.")


def _make_rows(gateway: dict[str, Any]) -> list[tuple[object, ...]]:
    head = (gateway["name"], gateway["state"])
    rows: list[tuple[object, ...]] = [
        (
            *head,
            slot["slot"],
            show_time(slot["seen_at"]),
            slot["snapshot_n"],
            slot["shipped"],
            f"{slot['lag_s']:.1f}" if slot["is_alive"] else "not heard",
            "too old for rollouts and adapters" if slot["is_outdated"] else "",
        )
        for slot in gateway["slots"]
    ]
    return rows or [(*head, "", "never", "", "", "", "")]

"""``pilotage blobs``: the files behind models and datasets."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import Json, Reason, run, say, show_bytes, show_json
from pilotage.sdk.control import ControlClient

GROUP = make_group("blobs", "The stored files behind models and datasets.")


@command(GROUP)
def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Remove files that nothing has referred to for a day.

    Files of deleted versions, uploads that never became part of anything. What is being registered
    meanwhile stays.

    [bold]Examples[/bold]: pilotage blobs gc --dry-run    |    pilotage blobs gc
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/blobs:collect", {"dry_run": dry_run})

    found = run(work, reason=reason)
    if as_json:
        show_json(found)
        return
    verb = "are removed" if found["deleted"] else "could be removed"
    say(f"{found['blobs']} files ({show_bytes(found['bytes'])}) {verb}.")
    if found["kept_young"]:
        say(f"{found['kept_young']} are younger than a day and were left alone.")

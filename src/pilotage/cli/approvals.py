"""``pilotage approvals``: ask others to agree to a change, and answer them."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Project,
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

GROUP = make_group("approvals", "Approvals: a second pair of eyes before a change.")
EMPTY = "There are no such requests. Ask: pilotage approvals request ACTION SUBJECT --reason ..."
Approval = Annotated[str, typer.Argument(metavar="APPROVAL", help="The request, by id.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept for ever.")]


@command(GROUP)
def request(  # noqa: PLR0913 - a request has that many parts
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="registry.version.promote:production, say.")
    ],
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Such as MODEL@VERSION.")],
    *,
    reason: Why,
    evidence: Annotated[
        list[str] | None, typer.Option(help="A hash or id that it rests on; may be repeated.")
    ] = None,
    needed: Annotated[int, typer.Option(min=1, help="How many must approve.")] = 1,
    role: Annotated[str, typer.Option(help="In which role.")] = "approver",
    expires: Annotated[str, typer.Option(help="How long it may be used.")] = "7d",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Ask that others approve one action on one subject, exactly as it is now.

    [bold]Example[/bold]: pilotage approvals request registry.version.promote:production
    tiny@1.2.0 --reason "passed the June evaluation"
    """
    body = {
        "action": action,
        "subject": subject,
        "reason": reason,
        "evidence": evidence or [],
        "needed": needed,
        "role": role,
        "expires_in": expires,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/approvals", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
        return
    until = show_time(made["expires_at"])
    say(f"{made['id']} waits for {needed} of the role {role}, until {until} UTC.")
    note(f"They answer: pilotage approvals approve {made['id']} --reason ...")


@command(GROUP, "list")
def list_approvals(
    *,
    state: Annotated[str | None, typer.Option(help="Such as pending or approved.")] = None,
    subject: Annotated[str, typer.Option(help="Only those of a subject.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List requests, oldest first.

    [bold]Example[/bold]: pilotage approvals list --state pending
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/approvals", state=state, subject=subject)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["id"],
            item["state"],
            f"{item['given']}/{item['needed']}",
            item["action"],
            item["subject"],
            item["requested_by"],
            show_time(item["expires_at"]),
        )
        for item in found
    ]
    columns = ("id", "state", "given", "action", "subject", "asked by", "until (UTC)")
    show_table(columns, rows, EMPTY)


@command(GROUP)
def show(approval: Approval, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a request, and what was said of it.

    [bold]Example[/bold]: pilotage approvals show apr_01jd8x
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("approvals", approval))

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    show_fields(
        {
            "id": found["id"],
            "state": found["state"],
            "action": found["action"],
            "subject": f"{found['subject']} ({found['subject_id']})",
            "state asked on": found["subject_hash"],
            "evidence": ", ".join(found["evidence"]),
            "asked by": f"{found['requested_by']}, {show_time(found['requested_at'])}",
            "reason": found["reason"],
            "needs": f"{found['needed']} of the role {found['role']}, {found['given']} given",
            "until": show_time(found["expires_at"]),
            "used by": found["decision_id"],
        }
    )
    for vote in found["votes"]:
        say(f"{show_time(vote['at'])}  {vote['verdict']} by {vote['by']}: {vote['reason']}")


@command(GROUP)
def approve(
    approval: Approval, *, reason: Why, project: Project = "default", as_json: Json = False
) -> None:
    """Approve a request that somebody else made.

    [bold]Example[/bold]: pilotage approvals approve apr_01jd8x --reason "read the report"
    """
    _vote(approval, "approve", reason, project, as_json=as_json)


@command(GROUP)
def reject(
    approval: Approval, *, reason: Why, project: Project = "default", as_json: Json = False
) -> None:
    """Reject a request; it cannot be used any more.

    [bold]Example[/bold]: pilotage approvals reject apr_01jd8x --reason "safety suite is missing"
    """
    _vote(approval, "reject", reason, project, as_json=as_json)


@command(GROUP)
def withdraw(
    approval: Approval, *, reason: Why, project: Project = "default", as_json: Json = False
) -> None:
    """Withdraw a request of your own, before it is used.

    [bold]Example[/bold]: pilotage approvals withdraw apr_01jd8x --reason "found a fault"
    """
    _vote(approval, "withdraw", reason, project, as_json=as_json)


@command(GROUP)
def revoke(
    approval: Approval, *, reason: Why, project: Project = "default", as_json: Json = False
) -> None:
    """Take back an approval of yours, before it is used.

    [bold]Example[/bold]: pilotage approvals revoke apr_01jd8x --reason "the data were wrong"
    """
    _vote(approval, "revoke", reason, project, as_json=as_json)


def _vote(approval: str, verdict: str, reason: str, project: str, *, as_json: bool) -> None:
    async def work(control: ControlClient) -> dict[str, Any]:
        body = {"verdict": verdict, "reason": reason}
        return await control.post(at("approvals", approval, "votes"), body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{made['id']} is {made['state']} ({made['given']} of {made['needed']} approvals).")

"""``pilotage rollout``: changes of what serves, watched and decided by evidence."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.rollout_text import (
    ENDED,
    GATE_COLUMNS,
    count,
    describe_look,
    describe_plan,
    list_gates,
    sum_up,
    write_time,
)
from pilotage.cli.rollout_words import GATE_FORM, STEP_FORM, read_gates, read_step
from pilotage.cli.session import (
    Json,
    Project,
    at,
    collect,
    fail_usage,
    run,
    say,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

GROUP = make_group("rollout", "Rollouts: a new version gets traffic in steps, by evidence.")
EMPTY = "There is no rollout. Begin one: pilotage rollout start ENDPOINT CANDIDATE"
PREFIX = "rol_"
MOST_LOOKS = 20
Which = Annotated[
    str, typer.Argument(metavar="ROLLOUT", help="Its id, or an endpoint: then its newest.")
]
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint.")]
Candidate = Annotated[
    str, typer.Argument(metavar="CANDIDATE", help="What is deployed there: MODEL@VERSION, or id.")
]
Why = Annotated[str, typer.Option("--reason", help="Why: kept in the decision record.")]
Strategy = Annotated[str, typer.Option(help="canary, blue_green, direct, shadow or ab_test.")]
Steps = Annotated[
    list[str] | None,
    typer.Option("--step", metavar=STEP_FORM, help="A step; repeatable. Default: 5%, 25%, 50%."),
]
Gates = Annotated[
    list[str] | None,
    typer.Option("--gate", metavar=GATE_FORM, help="Set or add a gate; repeatable."),
]
Without = Annotated[
    list[str] | None, typer.Option("--without", metavar="GATE", help="Leave a usual gate out.")
]
Unit = Annotated[
    str, typer.Option(help="What the coin is tossed for: session, call, user, tenant.")
]
Keep = Annotated[str, typer.Option(help="How long the old one stays warm afterwards, e.g. 1h.")]
Ready = Annotated[str, typer.Option(help="How long the candidate may take to start, e.g. 10m.")]
Goal = Annotated[str, typer.Option(help="The gate that decides an ab_test.")]
Daily = Annotated[str, typer.Option(help="What a shadow's copies may cost a day, in USD.")]


@command(GROUP)
def start(  # noqa: PLR0913 - all that a plan may say
    endpoint: Endpoint,
    candidate: Candidate,
    *,
    strategy: Strategy = "canary",
    steps: Steps = None,
    gates: Gates = None,
    without: Without = None,
    unit: Unit = "session",
    keep_warm: Keep = "",
    ready_within: Ready = "",
    goal: Goal = "",
    daily: Daily = "",
    project: Project = "default",
    reason: Why = "",
    as_json: Json = False,
) -> None:
    """Begin a rollout: traffic moves step by step while evidence says that it may.

    One other deployment must have all the traffic: that is the baseline.

    [bold]Examples[/bold]: pilotage rollout start support smollm2@1.1.0 --reason "release 12"
    |    pilotage rollout start support 1.1.0 --step 5% --without cost --reason "release 12"
    """
    if not reason:
        fail_usage("A rollout needs a reason.", 'Add --reason "...".')
    body: dict[str, Any] = {
        "endpoint": endpoint,
        "candidate": candidate,
        "strategy": strategy,
        "steps": [read_step(word) for word in steps or []],
        "gates": read_gates(gates or [], without or []),
        "unit": unit,
        "keep_warm": keep_warm,
        "ready_within": ready_within,
        "goal": goal,
        "daily": daily,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/rollouts", body | {"reason": reason})

    made = run(work, project, reason)
    if as_json:
        show_json(made)
        return
    say(f"{made['id']} has begun: {sum_up(made)}.")
    say(f"Watch it: pilotage rollout watch {made['id']}")


@command(GROUP)
def plan(  # noqa: PLR0913 - all that a plan may say
    endpoint: Endpoint,
    candidate: Candidate,
    *,
    strategy: Strategy = "canary",
    steps: Steps = None,
    gates: Gates = None,
    without: Without = None,
    unit: Unit = "session",
    keep_warm: Keep = "",
    ready_within: Ready = "",
    goal: Goal = "",
    daily: Daily = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Say what a rollout would be and how long it would take; nothing begins.

    [bold]Example[/bold]: pilotage rollout plan support smollm2@1.1.0 --step 1% --step 10%
    """
    body: dict[str, Any] = {
        "endpoint": endpoint,
        "candidate": candidate,
        "strategy": strategy,
        "steps": [read_step(word) for word in steps or []],
        "gates": read_gates(gates or [], without or []),
        "unit": unit,
        "keep_warm": keep_warm,
        "ready_within": ready_within,
        "goal": goal,
        "daily": daily,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/rollouts:plan", body | {"reason": "plan"})

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    fields: dict[str, object] = {
        "endpoint": found["endpoint"],
        "from": found["baseline"],
        "to": found["candidate"],
    }
    agreed = {"approvals": found["approvals_needed"]} if found["approvals_needed"] else {}
    show_fields(fields | describe_plan(found["plan"]) | agreed)
    if found["forecasts"]:
        rows = [
            (
                f"{item['step'] + 1}",
                item["gate"],
                count(item["units_to_pass"]),
                write_time(item["pass_s"]),
                f"{item['ratio']:g}x",
                count(item["units_to_find"]),
                write_time(item["find_s"]),
            )
            for item in found["forecasts"]
        ]
        columns = ("#step", "gate", "#to pass", "#time", "#if worse", "#to find", "#time")
        show_table(columns, rows, "")
    for line in found["advice"]:
        say(line)


@command(GROUP, "list")
def list_rollouts(
    *,
    endpoint: Annotated[str | None, typer.Option(help="Only of an endpoint.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in a state, e.g. running.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List rollouts, newest first.

    [bold]Example[/bold]: pilotage rollout list --state held
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/rollouts", endpoint=endpoint, state=state)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["id"],
            item["endpoint"],
            item["candidate"],
            item["plan"]["strategy"],
            item["state"],
            f"{item['percent']:g} %",
            show_time(item["since"]),
            item["said"],
        )
        for item in found
    ]
    columns = ("id", "endpoint", "candidate", "strategy", "state", "#share", "since (UTC)", "why")
    show_table(columns, rows, EMPTY)


@command(GROUP)
def show(
    rollout: Which,
    *,
    looks: Annotated[
        bool, typer.Option("--looks", help="Also list the looks that were kept.")
    ] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show a rollout: its plan, where it stands and why, and the last look at it.

    [bold]Example[/bold]: pilotage rollout show support --looks
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        found = await _find(control, rollout)
        if looks:
            place = at("rollouts", found["id"], "looks")
            page = await control.get(place, limit=MOST_LOOKS)
            found["looks"] = page["items"]
        return found

    shown = run(work, project)
    if as_json:
        show_json(shown)
        return
    _show(shown)
    if looks:
        rows = [
            (show_time(look["at"]), f"{look['percent']:g} %", look["verdict"], look["cause"],
             ", ".join(look["decided_by"]))
            for look in shown["looks"]
        ]  # fmt: skip
        show_table(("at (UTC)", "#share", "verdict", "cause", "gates"), rows, "No look yet.")


@command(GROUP)
def watch(
    rollout: Which,
    *,
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.5, max=60)] = 1.0,
    plain: Annotated[
        bool, typer.Option("--plain", help="Lines instead of a screen; ends with the rollout.")
    ] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Watch a rollout: weights, and each gate's evidence, while it happens.

    On a terminal it is a screen (q quits), elsewhere a line for every change. --json looks once.

    [bold]Example[/bold]: pilotage rollout watch support
    """
    if as_json:
        show_json(run(lambda control: _find(control, rollout), project))
        return
    if plain or not sys.stdout.isatty():
        run(lambda control: _follow(control, rollout, every), project)
        return
    try:
        from pilotage.cli.rollout_screen import RolloutScreen
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith("textual"):
            raise
        fail_usage(
            "The screen needs Textual.", "Install it: pip install 'pilotage[tui]', or use --plain."
        )

    async def work(control: ControlClient) -> None:
        rollout_id = (await _find(control, rollout))["id"]
        await RolloutScreen(lambda: _find(control, rollout_id), every_s=every).run_async()

    run(work, project)


@command(GROUP)
def promote(
    rollout: Which,
    *,
    to_end: Annotated[bool, typer.Option("--to-end", help="To all the traffic at once.")] = False,
    step: Annotated[
        int | None, typer.Option(min=1, help="Only if it is still at this step, as shown.")
    ] = None,
    project: Project = "default",
    reason: Why = "",
    as_json: Json = False,
) -> None:
    """Go on to the next step, whatever the gates say.

    [bold]Example[/bold]: pilotage rollout promote support --step 1 --reason "seen enough"
    """
    seen = {} if step is None else {"step": step - 1}
    _steer(rollout, "promote", {"to_end": to_end} | seen, project, reason, as_json=as_json)


@command(GROUP)
def hold(
    rollout: Which, *, project: Project = "default", reason: Why = "", as_json: Json = False
) -> None:
    """Leave the weights where they are until somebody goes on.

    [bold]Example[/bold]: pilotage rollout hold support --reason "the team is away"
    """
    _steer(rollout, "hold", {}, project, reason, as_json=as_json)


@command(GROUP)
def resume(
    rollout: Which, *, project: Project = "default", reason: Why = "", as_json: Json = False
) -> None:
    """Let the gates of a held rollout decide again.

    [bold]Example[/bold]: pilotage rollout resume support --reason "back again"
    """
    _steer(rollout, "resume", {}, project, reason, as_json=as_json)


@command(GROUP)
def rollback(
    rollout: Which, *, project: Project = "default", reason: Why = "", as_json: Json = False
) -> None:
    """Give all the traffic back to the baseline, at once.

    [bold]Example[/bold]: pilotage rollout rollback support --reason "complaints"
    """
    _steer(rollout, "rollback", {}, project, reason, as_json=as_json)


async def _find(control: ControlClient, which: str) -> dict[str, Any]:
    """Return a rollout by its id, or the newest of an endpoint; raise ``not_found``."""
    if which.startswith(PREFIX):
        return await control.get(at("rollouts", which))
    page = await control.get("/rollouts", endpoint=which, limit=1)
    if not page["items"]:
        raise PilotageError(
            "not_found",
            f"There is no rollout of {which!r}.",
            hint="List them: pilotage rollout list",
        )
    return dict(page["items"][0])


def _steer(
    rollout: str, verb: str, more: dict[str, Any], project: str, reason: str, *, as_json: bool
) -> None:
    if not reason:
        fail_usage(f"To {verb} needs a reason.", 'Add --reason "...".')

    async def work(control: ControlClient) -> dict[str, Any]:
        found = await _find(control, rollout)
        seen = {"step": found["step"]} if verb == "promote" else {}
        place = at("rollouts", f"{found['id']}:{verb}")
        return await control.post(place, {"reason": reason} | seen | more)

    moved = run(work, project, reason)
    if as_json:
        show_json(moved)
    else:
        say(f"{sum_up(moved)}.")


async def _follow(control: ControlClient, which: str, every_s: float) -> None:
    """Say where a rollout stands whenever that changes, until it ends."""
    found = await _find(control, which)
    said: tuple[object, ...] = ()
    while True:
        look = found["look"] or {}
        stands = (found["rev"], look.get("verdict"), look.get("cause"), look.get("decided_by"))
        if stands != said:
            said = stands
            say(f"{show_time(found['since'])}  {sum_up(found)}.  {found['said']}".rstrip())
            if found["look"]:
                show_table(GATE_COLUMNS, list_gates(found["look"]), describe_look(found["look"]))
        if found["state"] in ENDED:
            return
        await asyncio.sleep(every_s)
        found = await _find(control, found["id"])


def _show(rollout: dict[str, Any]) -> None:
    fields: dict[str, object] = {
        "id": rollout["id"],
        "endpoint": rollout["endpoint"],
        "from": rollout["baseline"],
        "to": rollout["candidate"],
        "state": rollout["state"],
        "share": f"{rollout['percent']:g} %",
        "because": rollout["said"],
        "since": show_time(rollout["since"]),
        "reason": rollout["reason"],
        "decision": rollout["decision_id"],
    }
    show_fields(fields | describe_plan(rollout["plan"]))
    say(describe_look(rollout["look"]))
    if rollout["look"]:
        show_table(GATE_COLUMNS, list_gates(rollout["look"]), "No gate has counted anything yet.")
    for line in rollout["advice"]:
        say(line)

"""``pilotage endpoints scale``, ``warm`` and ``health``: how many replicas there are, and how."""

from typing import Annotated, Any

import typer

from pilotage.cli.session import (
    Json,
    OperationBar,
    Project,
    Reason,
    at_endpoint,
    fail_usage,
    run,
    say,
    show_bytes,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.duration import format_duration, parse_duration_us
from pilotage.sdk.control import ControlClient

Name = Annotated[str, typer.Argument(metavar="NAME", help="The endpoint.")]
Deployment = Annotated[
    str, typer.Argument(metavar="DEPLOYMENT", help="The deployment: MODEL@VERSION, or id.")
]
_MIB = 1 << 20


def scale(  # noqa: PLR0913 - what a replica gets has that many parts
    name: Name,
    deployment: Deployment,
    *,
    least: Annotated[
        int | None, typer.Option("--min", min=0, help="Fewest replicas; 0: it may fall asleep.")
    ] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="Most replicas.")] = None,
    target: Annotated[
        int | None, typer.Option(min=0, help="Calls at a replica; 0: as many as it has slots.")
    ] = None,
    max_wait: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Longest wait for a first byte; 0s: any."),
    ] = None,
    duty: Annotated[
        int | None, typer.Option(min=0, max=100, help="Percent that a GPU works; 0: any.")
    ] = None,
    down_after: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Quiet time before there are fewer.")
    ] = None,
    idle_after: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Time without a call before it sleeps.")
    ] = None,
    memory_mb: Annotated[
        int | None, typer.Option(min=0, help="Most memory of a replica, MiB; 0: any.")
    ] = None,
    cores: Annotated[
        int | None, typer.Option(min=0, help="Cores of a replica; 0: all there are.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=0, help="Threads of a replica; 0: what the settings say.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=0, help="Calls that a replica answers at once; 0: settings.")
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option(min=0, help="Context of a call; 0: what the settings say.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Say how many replicas a deployment has, and what each of them gets; what is left out stays.

    [bold]Example[/bold]: pilotage endpoints scale chat tiny@1.0.0 --min 0 --max 3 --idle-after 5m
    """
    said: dict[str, int | None] = {
        "min_replicas": least,
        "max_replicas": most,
        "target_in_flight": target,
        "max_wait_ms": _read(max_wait, "--max-wait", 1_000),
        "target_duty_percent": duty,
        "scale_down_delay_s": _read(down_after, "--down-after", 1_000_000),
        "idle_after_s": _read(idle_after, "--idle-after", 1_000_000),
        "memory_bytes": None if memory_mb is None else memory_mb * _MIB,
        "cpu_cores": cores,
        "threads": threads,
        "slots": slots,
        "context_tokens": context_tokens,
    }
    changes = {key: value for key, value in said.items() if value is not None}

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at_endpoint(name, "deployments", deployment, "scaling")
        found = await control.get(path)
        if not changes:
            return found
        return await control.put(path, found["scaling"] | changes, rev=found["rev"])

    shown = run(work, project, reason)
    if as_json:
        show_json(shown)
    else:
        show_fields({"deployment": shown["model"]} | _describe(shown["scaling"]))


def warm(
    name: Name,
    deployment: Deployment,
    *,
    keep: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it shall not sleep after that.")
    ] = "10m",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Wake a deployment up before anybody calls, and wait until it can answer.

    [bold]Example[/bold]: pilotage endpoints warm chat tiny@1.0.0 --keep 1h
    """
    keep_s = _read(keep, "--keep", 1_000_000)

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at_endpoint(name, "deployments", deployment, "warm")
        operation = await control.post(path, {"keep_s": keep_s})
        with OperationBar(f"waking {deployment}") as watch:
            return await control.finish(operation, watch)

    done = run(work, project, reason)
    if as_json:
        show_json(done)
    else:
        say(f"{done['model']} on {name}: {done['state']}.")


def health(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show how an endpoint's replicas are, and what is asked of them now.

    [bold]Example[/bold]: pilotage endpoints health chat
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at_endpoint(name, "health"))

    shown = run(work, project)
    if as_json:
        show_json(shown)
        return
    say(f"{name} is {'healthy' if shown['healthy'] else 'not healthy'}.")
    for item in shown["deployments"]:
        show_fields(
            {
                "deployment": f"{item['model']} {item['percent']:g} %",
                "state": item["state"],
                "problem": item["problem"] or "none",
                "replicas": f"{item['ready_replicas']} of {_or_unknown(item['wanted_replicas'])}",
                "calls": f"{_or_unknown(item['in_flight'])} running, "
                f"{_or_unknown(item['waiting'])} waiting",
            }
        )
    show_table(
        ("replica", "state", "#restarts", "#memory", "ready since (UTC)", "detail"),
        [
            (
                replica["id"],
                replica["state"],
                replica["restarts"],
                show_bytes(replica["memory_bytes"]) if replica["memory_bytes"] else "",
                show_time(replica["ready_at"]),
                replica["detail"],
            )
            for item in shown["deployments"]
            for replica in item["replicas"]
        ],
        "No replica runs.",
    )


def _describe(scaling: dict[str, Any]) -> dict[str, object]:
    """Return the settings as people read them; what the installation decides is left out."""
    least, most = scaling["min_replicas"], scaling["max_replicas"]
    idle = format_duration(scaling["idle_after_s"] * 1_000_000)
    shown: dict[str, object] = {
        "replicas": f"{least} to {most}" if least != most else least,
        "sleeps after": idle if least == 0 else "never",
        "fewer after": format_duration(scaling["scale_down_delay_s"] * 1_000_000),
        "calls at a replica": scaling["target_in_flight"] or "as many as it has slots",
    }
    if scaling["max_wait_ms"]:
        shown["longest wait"] = format_duration(scaling["max_wait_ms"] * 1_000)
    if scaling["target_duty_percent"]:
        shown["GPU at most"] = f"{scaling['target_duty_percent']} %"
    if scaling["memory_bytes"]:
        shown["memory at most"] = show_bytes(scaling["memory_bytes"])
    names = {"cpu_cores": "cores", "threads": "threads", "slots": "slots"}
    names["context_tokens"] = "context"
    return shown | {label: scaling[key] for key, label in names.items() if scaling[key]}


def _or_unknown(number: int | None) -> object:
    return "?" if number is None else number


def _read(text: str | None, option: str, unit_us: int) -> int | None:
    """Return a duration in a unit, rounded up; 0s is 0."""
    if text is None:
        return None
    try:
        return -(-parse_duration_us(text) // unit_us)
    except ValueError as wrong:
        fail_usage(f"{option}: {wrong}.")

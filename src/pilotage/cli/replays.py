"""``pilotage replay``: kept calls asked of a deployment again, before it has any traffic."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.keys import name_tenants
from pilotage.cli.session import (
    Json,
    OperationBar,
    Project,
    Reason,
    at,
    collect,
    run,
    say,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.money import format_usd
from pilotage.sdk.control import ControlClient

GROUP = make_group("replay", "Replays: kept calls are asked of a candidate without traffic.")
_EMPTY = "There is no replay. Make one: pilotage replay start ENDPOINT CANDIDATE"
_NO_SAMPLES = "No calls are kept: pilotage tenants change NAME --sample-percent 5"
_NO_PAIRS = "No copies were compared: pilotage endpoints route NAME --shadow DEPLOYMENT"
_SAID = {
    "not_worse": "not worse than the baseline by the margin or more",
    "worse": "worse than the baseline",
    "undecided": "neither worse nor shown to be good enough",
}
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint.")]
Some = Annotated[str | None, typer.Argument(metavar="ENDPOINT", help="Only of an endpoint.")]


@command(GROUP)
def start(  # noqa: PLR0913 - its options
    endpoint: Endpoint,
    candidate: Annotated[
        str, typer.Argument(help="What is deployed there: MODEL@VERSION, UPSTREAM/MODEL or an id.")
    ],
    *,
    baseline: Annotated[
        str, typer.Option(help="What to compare with; default: what has most traffic.")
    ] = "",
    samples: Annotated[int, typer.Option(help="So many of the newest kept calls.")] = 200,
    since: Annotated[str, typer.Option(help="How old they may be.")] = "30d",
    seed: Annotated[int, typer.Option(help="The seed of every request.")] = 0,
    measure: Annotated[
        str, typer.Option(help="What decides: usable, similarity or exact.")
    ] = "usable",
    margin: Annotated[
        str, typer.Option(help="How much lower, as a part of 1, is still good enough.")
    ] = "0.03",
    max_cost: Annotated[str, typer.Option(help="What both may cost together, in USD.")] = "1.00",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Ask both deployments the kept calls of an endpoint again, and compare them in pairs.

    The report is evidence of the candidate's version, which gates may ask for.

    [bold]Example[/bold]: pilotage replay start chat tiny@1.1.0 --samples 500 --max-cost 0.50
    """
    body = {
        "endpoint": endpoint,
        "candidate": candidate,
        "baseline": baseline,
        "samples": samples,
        "since": since,
        "seed": seed,
        "measure": measure,
        "margin": margin,
        "max_cost": max_cost,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        with OperationBar("replay") as watch:
            ended = await control.finish(await control.post("/replays", body), watch)
        return await control.get(at("replays", ended["replay"]))

    found = run(work, project, reason)
    if as_json:
        show_json(found)
        return
    _show(found)


@command(GROUP, "list")
def list_replays(
    endpoint: Some = None, *, project: Project = "default", as_json: Json = False
) -> None:
    """List replays, oldest first.

    [bold]Example[/bold]: pilotage replay list chat
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/replays", endpoint=endpoint)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            show_time(item["created_at"]),
            item["endpoint"],
            item["report"]["candidate"],
            item["report"]["pairs"],
            item["report"]["verdict"],
            item["hash"][:12],
            item["id"],
        )
        for item in found
    ]
    show_table(("at", "endpoint", "candidate", "#pairs", "verdict", "report", "id"), rows, _EMPTY)


@command(GROUP)
def show(
    replay: Annotated[str, typer.Argument(metavar="REPLAY", help="Its id.")],
    *,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show what a replay found.

    [bold]Example[/bold]: pilotage replay show rpl_06h01a5gcdvula74o2qcqtehqk
    """
    found = run(lambda control: control.get(at("replays", replay)), project)
    if as_json:
        show_json(found)
        return
    _show(found)


@command(GROUP)
def samples(endpoint: Some = None, *, project: Project = "default", as_json: Json = False) -> None:
    """Count the calls that are kept to be replayed; nothing shows what they say.

    [bold]Example[/bold]: pilotage replay samples chat
    """

    async def work(control: ControlClient) -> tuple[list[dict[str, Any]], dict[str, str]]:
        names = await name_tenants(control)
        query = {"endpoint": endpoint} if endpoint else {}
        return (await control.get("/samples", **query))["items"], names

    found, names = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["endpoint"],
            names.get(item["tenant_id"], item["tenant_id"]),
            item["samples"],
            show_time(item["first"]),
            show_time(item["last"]),
        )
        for item in found
    ]
    show_table(("endpoint", "tenant", "#samples", "first", "last"), rows, _NO_SAMPLES)


@command(GROUP)
def shadows(
    endpoint: Some = None,
    *,
    rollout: Annotated[str, typer.Option(help="Only of a rollout, by its id.")] = "",
    window: Annotated[str, typer.Option(help="How far to look back, in whole days.")] = "7d",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Compare the answers to calls with those to their shadow copies.

    [bold]Example[/bold]: pilotage replay shadows chat --window 1d
    """
    query = {"endpoint": endpoint, "rollout": rollout, "window": window}

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        given = {name: value for name, value in query.items() if value}
        found: list[dict[str, Any]] = (await control.get("/comparisons", **given))["items"]
        return found

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["endpoint"],
            item["rollout"],
            item["pairs"],
            _percent(item["exact"]),
            _percent(item["similarity"]),
            _percent(item["schema_kept"]),
            _points(item["mark"], item["low"], item["high"]),
            _ratio(item["candidate_ms"], item["baseline_ms"]),
            _ratio(item["candidate_nano"], item["baseline_nano"]),
            _ratio(item["candidate_letters"], item["baseline_letters"]),
        )
        for item in found
    ]
    columns = ("endpoint", "rollout", "#pairs", "#exact", "#alike", "#schema kept")
    more = ("#usable, points", "#time", "#cost", "#length")
    show_table((*columns, *more), rows, _NO_PAIRS)


def _show(found: dict[str, Any]) -> None:
    report = found["report"]
    say(f"{report['candidate']} is {_SAID[report['verdict']]}.")
    show_fields(
        {
            "endpoint": report["alias"],
            "compared with": report["baseline"],
            "pairs": report["pairs"],
            "left out": ", ".join(f"{n} {why}" for why, n in report["left_out"].items()) or "none",
            "decided by": f"{report['measure']}, margin {report['margin']:g}",
            "failed": f"{report['candidate_failed']}, baseline {report['baseline_failed']}",
            "cost": f"{format_usd(report['candidate_nano'])} USD, "
            f"baseline {format_usd(report['baseline_nano'])} USD",
            "report": found["hash"],
            "evidence": found["evidence_id"] or "none: the candidate is no registered version",
            "id": found["id"],
        }
    )
    rows = [
        (
            name,
            _percent(each["baseline"]),
            _percent(each["candidate"]),
            _points(each["difference"], each["low"], each["high"]),
            each["needed"],
        )
        for name, each in report["measures"].items()
    ]
    columns = ("measure", "#baseline", "#candidate", "#difference, points", "#pairs needed")
    show_table(columns, rows, "")


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part * 100:.1f} %"


def _points(mean: float | None, low: float, high: float) -> str:
    if mean is None:
        return ""
    return f"{mean * 100:+.1f} ({low * 100:+.1f} to {high * 100:+.1f})"


def _ratio(one: float | None, other: float | None) -> str:
    return f"{one / other:.2f} x" if one is not None and other else ""

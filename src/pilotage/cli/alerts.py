"""``pilotage alerts``: what fires, and the rules that say when."""

from typing import Annotated, Any

import typer
import yaml

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Out,
    Project,
    Reason,
    at,
    collect,
    fail_usage,
    note,
    run,
    say,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import ConditionError
from pilotage.sdk.control import ControlClient

GROUP = make_group("alerts", "Alerts: what fires, and the rules that say when.")
NOTHING = "Nothing fires and nothing is pending."
NO_RULES = 'There are no rules. Set one: pilotage alerts set slow "p95_latency > 2s for 5m"'
Name = Annotated[str, typer.Argument(metavar="NAME", help="The rule.")]
ConditionText = Annotated[str, typer.Argument(metavar="CONDITION", help="When it fires.")]
SHOWN = ("condition", "severity", "metric_type", "team", "runbook", "summary", "labels")
SAID = (*SHOWN, "keep_firing_for", "enabled")


@command(GROUP, "list")
def list_alerts(
    *,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="pending, firing or resolved.")
    ] = None,
    rule: Annotated[str, typer.Option(metavar="NAME", help="Only those of one rule.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List alerts, the newest first: those that fire or are pending, unless a state is given.

    [bold]Examples[/bold]: pilotage alerts list | pilotage alerts list --state resolved
    """
    query = {"limit": limit, "rule": rule} | ({} if state is None else {"state": state})

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        page: list[dict[str, Any]] = (await control.get("/alerts", **query))["items"]
        return page

    alerts = run(work, project)
    if as_json:
        show_json(alerts)
        return
    rows = [
        (
            item["state"],
            item["severity"],
            item["rule"],
            say_labels(item["labels"]),
            say_number(item["value"]),
            show_time(item["fired_at"] or item["began_at"]),
            item["id"],
        )
        for item in alerts
    ]
    columns = ("state", "severity", "rule", "of", "#value", "since (UTC)", "id")
    show_table(columns, rows, NOTHING if state is None else f"There are none that are {state}.")


@command(GROUP, "show")
def show_alert(
    alert: Annotated[str, typer.Argument(metavar="ID", help="The alert.")],
    *,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show an alert, a past one too.

    [bold]Example[/bold]: pilotage alerts show alt_01kaj...
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("alerts", alert))

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    times = {name: show_time(found[f"{name}_at"]) for name in ("began", "fired", "resolved")}
    said = {name: found[name] for name in ("rule", "condition", "severity", "team", "runbook")}
    of = {"state": found["state"], "of": say_labels(found["labels"])}
    show_fields(of | {"value": say_number(found["value"])} | said | times)


@command(GROUP, "rules")
def list_rules(*, project: Project = "default", as_json: Json = False) -> None:
    """List rules by name; those of objectives are in: pilotage slos list.

    [bold]Example[/bold]: pilotage alerts rules
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/alert-rules")

    rules = run(work, project)
    if as_json:
        show_json(rules)
        return
    rows = [
        (item["name"], item["condition"], item["severity"], item["team"], _say_look(item))
        for item in rules
    ]
    show_table(("name", "condition", "severity", "team", "now"), rows, NO_RULES)


@command(GROUP, "set")
def set_rule(  # noqa: PLR0913 - a rule has that many parts
    name: Name,
    condition: Annotated[
        str | None, typer.Argument(metavar="[CONDITION]", help="When it fires.")
    ] = None,
    *,
    severity: Annotated[
        str | None, typer.Option(metavar="SEVERITY", help="info, warning, error or critical.")
    ] = None,
    team: Annotated[str | None, typer.Option(metavar="TEAM", help="Whom it concerns.")] = None,
    runbook: Annotated[str | None, typer.Option(metavar="URL", help="What to do then.")] = None,
    summary: Annotated[str | None, typer.Option(metavar="TEXT", help="One line.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Added to its alerts.")
    ] = None,
    keep_firing_for: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Such as 5m, against flapping.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it is looked at.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set a rule; one that is there keeps what is not named.

    [bold]Examples[/bold]: pilotage alerts set slow "p95_latency > 2s for 5m" --severity warning
    |    pilotage alerts set errors 'error_rate{alias="chat"} > 1% for 2m' --team ops
    |    pilotage alerts set overrun "daily_cost > budget * 1.2" --team finance
    """
    if condition is not None:
        check_condition(condition)
    given: dict[str, Any] = {
        "condition": condition,
        "severity": severity,
        "team": team,
        "runbook": runbook,
        "summary": summary,
        "labels": None if label is None else dict(map(_read_label, label)),
        "keep_firing_for": keep_firing_for,
        "enabled": enabled,
    }
    body = {key: value for key, value in given.items() if value is not None}

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("alert-rules", name)
        now = await control.find(path)
        if now is None:
            return await control.post("/alert-rules", body | {"name": name})
        kept = {key: now[key] for key in SAID if key != "metric_type" or condition is None}
        return await control.put(path, kept | body, rev=now["rev"])

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name}: {made['condition']} ({made['severity']})")


@command(GROUP, "rule")
def show_rule(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a rule and what the last look at it came to.

    [bold]Example[/bold]: pilotage alerts rule slow
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("alert-rules", name))

    rule = run(work, project)
    if as_json:
        show_json(rule)
        return
    said = {key.replace("_", " "): rule[key] for key in SAID} | {
        "labels": say_labels(rule["labels"])
    }
    show_fields({"name": rule["name"]} | said | {"now": _say_look(rule)})


@command(GROUP, "delete")
def delete_rule(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a rule: what fires of it is over.

    [bold]Example[/bold]: pilotage alerts delete slow
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("alert-rules", name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted.")


@command(GROUP)
def check(condition: ConditionText, *, project: Project = "default", as_json: Json = False) -> None:
    """Read a condition and look at it once; nothing is kept and nobody is told.

    [bold]Example[/bold]: pilotage alerts check "error_rate > 1% for 2m"
    """
    check_condition(condition)

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/alert-rules:check", {"condition": condition})

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    say(found["condition"])
    if found["problem"]:
        say(f"Nobody can say whether it holds: {found['problem']}.")
        return
    rows = [(say_labels(item["labels"]), say_number(item["value"])) for item in found["holds"]]
    show_table(("it holds now for", "#value"), rows, "It holds for nothing now.")


@command(GROUP)
def export(
    *,
    out: Out = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Write the rules, with those of objectives, as a rule file of Prometheus.

    [bold]Example[/bold]: pilotage alerts export -o rules.yml
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/alert-rules:export")

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        say(f"{out}: {sum(len(group['rules']) for group in found['groups'])} rules")


def check_condition(text: str) -> None:
    """Raise what is wrong with a condition, having pointed at it on stderr."""
    try:
        parse(text)
    except ConditionError as wrong:
        note(wrong.point_at(text))
        raise


def say_labels(labels: dict[str, str]) -> str:
    """Return labels as people read them."""
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items())) or "everything"


def say_number(value: float | None) -> str:
    """Return a value as people read it."""
    return "" if value is None else f"{value:.6g}"


def _read_label(text: str) -> tuple[str, str]:
    name, is_pair, value = text.partition("=")
    if not is_pair:
        fail_usage(f"{text!r} is no label.", "Write NAME=VALUE, such as service=payments.")
    return name, value


def _say_look(rule: dict[str, Any]) -> str:
    look = rule["look"]
    if not rule["enabled"]:
        return "disabled"
    if look is None:
        return "not looked at yet"
    if look["problem"]:
        return f"unknown: {look['problem']}"
    return f"holds for {len(look['holds'])}" if look["holds"] else "does not hold"

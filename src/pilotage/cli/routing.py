"""``pilotage endpoints route``: how an endpoint's calls find their deployment."""

from typing import Annotated, Any

import typer

from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at_endpoint,
    fail_usage,
    run,
    say,
    show_fields,
    show_json,
)
from pilotage.core.duration import format_duration, parse_duration_us
from pilotage.sdk.control import ControlClient

LISTS = {"use": "deployments", "tenant": "tenants", "purpose": "purposes", "data": "data_classes"}
NUMBERS = {"min": "min_input", "max": "max_input"}
RULE_FORM = "Write for example 'data=restricted,confidential use=1.0.0' or 'max=500 use=1.0.0'."

Policy = Annotated[
    str | None, typer.Option(help="Choose by weight, cost or speed: weighted, cheapest, fastest.")
]
Fallback = Annotated[
    list[str] | None,
    typer.Option(metavar="DEPLOYMENT", help="Tried when the chosen one fails; in order."),
]
Retries = Annotated[
    int | None, typer.Option(min=0, help="How often one deployment is asked again.")
]
Wait = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Longest wait of an attempt; 0s: the call's own."),
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="Who may use what; the first that matches counts. Words of data=, tenant=, "
        "purpose=, min= and max= (tokens of the prompt) and use=DEPLOYMENT,...",
    ),
]
Shadow = Annotated[
    str | None, typer.Option(metavar="DEPLOYMENT=PERCENT", help="Send it a copy of some calls.")
]
ShadowDaily = Annotated[
    str | None, typer.Option(metavar="USD", help="What the copies may cost a UTC day.")
]
ShadowConcurrency = Annotated[
    int | None, typer.Option(min=1, help="Copies at once in a gateway process; default: 4.")
]
Regions = Annotated[
    list[str] | None,
    typer.Option(help="Where calls may be answered; !local takes this installation out."),
]


def route(  # noqa: PLR0913 - routing has that many parts
    name: Annotated[str, typer.Argument(metavar="NAME", help="The endpoint.")],
    *,
    policy: Policy = None,
    fallback: Fallback = None,
    no_fallback: Annotated[bool, typer.Option("--no-fallback", help="Try no other.")] = False,
    retries: Retries = None,
    first_byte_timeout: Wait = None,
    rule: Rules = None,
    no_rules: Annotated[bool, typer.Option("--no-rules", help="Take the rules away.")] = False,
    shadow: Shadow = None,
    shadow_daily_usd: ShadowDaily = None,
    shadow_concurrency: ShadowConcurrency = None,
    no_shadow: Annotated[bool, typer.Option("--no-shadow", help="End the shadow.")] = False,
    region: Regions = None,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Answer in any region.")] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Change how calls find their deployment; what is not named stays.

    [bold]Examples[/bold]: pilotage endpoints route support --policy cheapest --retries 1
    |    pilotage endpoints route support --fallback openai/gpt-4o-mini --first-byte-timeout 20s
    |    pilotage endpoints route support --shadow 2.0.0=10 --shadow-daily-usd 5
    |    pilotage endpoints route support --region eu --rule 'data=restricted use=1.0.0'
    """
    given: dict[str, Any] = {
        "policy": policy,
        "fallbacks": [] if no_fallback else fallback,
        "retries": retries,
        "first_byte_timeout_ms": _read_wait(first_byte_timeout),
        "rules": [] if no_rules else rule and [read_rule(text) for text in rule],
        "regions": [] if anywhere else region,
    }
    shadowed = (shadow, shadow_daily_usd, shadow_concurrency)
    is_asked = any(value is not None for value in (*given.values(), *shadowed)) or no_shadow
    if not is_asked:
        fail_usage("Nothing is to be changed.", "See: pilotage endpoints route --help")

    async def work(control: ControlClient) -> dict[str, Any]:
        now = await control.get(at_endpoint(name))
        body = now["routing"] | {"regions": now["regions"]}
        body |= {key: value for key, value in given.items() if value is not None}
        if no_shadow:
            body["shadow"] = None
        elif any(value is not None for value in shadowed):
            body["shadow"] = _make_shadow(body["shadow"], *shadowed)
        return await control.put(at_endpoint(name, "routing"), body, rev=now["rev"])

    changed = run(work, project, reason)
    if as_json:
        show_json(changed)
    else:
        say(f"{name} is routed:")
        show_fields(describe_routing(changed["routing"], changed["regions"]))


def describe_routing(routing: dict[str, Any], regions: list[str]) -> dict[str, object]:
    """Return the fields that show a routing to people; what is not set is left out."""
    wait_ms, shadow = routing["first_byte_timeout_ms"], routing["shadow"]
    fields: dict[str, object] = {"policy": routing["policy"], "retries": routing["retries"]}
    if routing["fallbacks"]:
        fields["fallbacks"] = ", ".join(routing["fallbacks"])
    if wait_ms:
        fields["first byte within"] = format_duration(wait_ms * 1000)
    for number, rule in enumerate(routing["rules"], 1):
        fields[f"rule {number}"] = _describe_rule(rule)
    if shadow:
        fields["shadow"] = (
            f"{shadow['deployment']}, {shadow['percent']:g} % of the calls, "
            f"{shadow['concurrency']} at once, up to USD {shadow['daily_usd']} a day"
        )
    fields["regions"] = ", ".join(regions) or "any"
    return fields


def read_rule(text: str) -> dict[str, Any]:
    """Return a rule from words such as ``data=restricted use=1.0.0``."""
    found: dict[str, Any] = {}
    for word in text.split():
        key, _, value = word.partition("=")
        if key in LISTS and value:
            field = LISTS[key]
            content: object = value.split(",")
        elif key in NUMBERS and value.isascii() and value.isdigit():
            field, content = NUMBERS[key], int(value)
        else:
            fail_usage(f"{word!r} is no part of a rule.", RULE_FORM)
        if field in found:
            fail_usage(f"{key} is there twice in {text!r}.", RULE_FORM)
        found[field] = content
    if "deployments" not in found:
        fail_usage(f"{text!r} does not say which deployments to use.", RULE_FORM)
    return found


def _describe_rule(rule: dict[str, Any]) -> str:
    words = [f"{key}={','.join(rule[field])}" for key, field in LISTS.items() if rule[field]]
    words += [f"{key}={rule[field]}" for key, field in NUMBERS.items() if rule[field]]
    return " ".join([*words[1:], words[0]])  # the deployments last


def _make_shadow(
    now: dict[str, Any] | None, shadow: str | None, daily_usd: str | None, concurrency: int | None
) -> dict[str, Any]:
    body = dict(now or {})
    if shadow is not None:
        deployment, _, percent = shadow.rpartition("=")
        if not deployment or not percent.removesuffix("%").replace(".", "", 1).isdigit():
            fail_usage(f"{shadow!r} is no shadow.", "Write DEPLOYMENT=PERCENT, such as 2.0.0=10.")
        body |= {"deployment": deployment, "percent": percent.removesuffix("%")}
    if daily_usd is not None:
        body["daily_usd"] = daily_usd
    if concurrency is not None:
        body["concurrency"] = concurrency
    if "deployment" not in body:
        fail_usage("There is no shadow.", "Name one: --shadow DEPLOYMENT=PERCENT")
    if "daily_usd" not in body:
        fail_usage("What may the copies cost a day?", "Say it: --shadow-daily-usd USD")
    return body


def _read_wait(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_duration_us(text) // 1000
    except ValueError as wrong:
        fail_usage(f"--first-byte-timeout: {wrong}.")

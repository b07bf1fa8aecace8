"""``pilotage endpoints``: the names that clients send, and which versions answer them."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.routing import describe_routing, route
from pilotage.cli.scaling import health, scale, warm
from pilotage.cli.session import (
    Json,
    OperationBar,
    Project,
    Reason,
    at_endpoint,
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
from pilotage.sdk.control import ControlClient

GROUP = make_group("endpoints", "Endpoints: the model names of clients, and what answers them.")
EMPTY = "There are no endpoints. Make one: pilotage endpoints create NAME"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The endpoint.")]
Deployment = Annotated[
    str,
    typer.Argument(
        metavar="DEPLOYMENT", help="The deployment: MODEL@VERSION, UPSTREAM/MODEL, or id."
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="A label; repeatable."),
]
command(GROUP, "route")(route)
command(GROUP, "scale")(scale)
command(GROUP, "warm")(warm)
command(GROUP, "health")(health)


@command(GROUP, "list")
def list_endpoints(
    *, labels: Labels = None, project: Project = "default", as_json: Json = False
) -> None:
    """List endpoints, what answers them, and why one cannot be called.

    [bold]Examples[/bold]: pilotage endpoints list
    |    pilotage endpoints list --label team=help
    """
    wanted = ",".join(labels or []) or None

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        found = await collect(control, "/endpoints", labels=wanted)
        obstacles = await find_obstacles(control)
        return [item | {"unpublished": obstacles.get(key_of(item), "")} for item in found]

    endpoints = run(work, project)
    if as_json:
        show_json(endpoints)
        return
    rows = [
        (
            item["name"],
            ", ".join(_describe(deployment) for deployment in item["deployments"]),
            f"no: {item['unpublished']}" if item["unpublished"] else "yes",
        )
        for item in endpoints
    ]
    show_table(("name", "deployments", "published"), rows, EMPTY)


@command(GROUP, "show")
def show_endpoint(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show an endpoint and its deployments.

    [bold]Example[/bold]: pilotage endpoints show smollm2
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        found = await control.get(at_endpoint(name))
        obstacles = await find_obstacles(control)
        flaws = await find_flaws(control, found)
        for deployment in found["deployments"]:
            deployment["left_out"] = flaws.get(deployment["model"], "")
        return found | {"unpublished": obstacles.get(key_of(found), "")}

    shown = run(work, project)
    if as_json:
        show_json(shown)
        return
    show_fields(
        {
            "name": shown["name"],
            "description": shown["description"],
            "output limit": shown["max_output_tokens"] or "that of the model's context",
            "labels": ", ".join(f"{name}={value}" for name, value in shown["labels"].items()),
            "replicas run": shown["region"] + (", for it alone" if shown["dedicated"] else ""),
            "published": f"no: {shown['unpublished']}" if shown["unpublished"] else "yes",
            "revision": shown["rev"],
        }
        | ({"rollout": shown["rollout"]} if shown["rollout"] else {})
        | describe_routing(shown["routing"], shown["regions"])
    )
    show_table(
        ("deployment", "#share", "state", "#replicas", "#restarts", "since (UTC)", "id", "detail"),
        [
            (
                item["model"],
                f"{item['percent']:g} %",
                item["state"],
                item["replicas"],
                item["restarts"],
                show_time(item["created_at"]),
                item["id"],
                f"left out: {item['left_out']}" if item["left_out"] else item["detail"],
            )
            for item in shown["deployments"]
        ],
        f"Nothing is deployed. Deploy something: pilotage endpoints deploy {name} MODEL@VERSION",
    )


@command(GROUP)
def create(  # noqa: PLR0913 - an endpoint has that many parts
    name: Name,
    *,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    max_output_tokens: Annotated[
        int, typer.Option(min=0, help="Longest answer; 0: what the model's context allows.")
    ] = 0,
    labels: Labels = None,
    dedicated: Annotated[
        bool, typer.Option("--dedicated", help="Its replicas answer nobody else's calls.")
    ] = False,
    region: Annotated[
        str, typer.Option(help="Where its replicas run, for rules of residency; default: local.")
    ] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create an endpoint: a model name that clients may send.

    [bold]Example[/bold]: pilotage endpoints create support --label team=help --region eu-west4
    """
    body = {
        "name": name,
        "description": description,
        "max_output_tokens": max_output_tokens,
        "labels": read_labels(labels or []),
        "dedicated": dedicated,
        "region": region,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/endpoints", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name} is created. Put a model behind it: pilotage endpoints deploy {name} MODEL")


@command(GROUP)
def deploy(  # noqa: PLR0913 - two kinds of models
    name: Name,
    version: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL[@VERSION]]", help="What to deploy; default: the newest."),
    ] = None,
    *,
    upstream: Annotated[str | None, typer.Option(help="Deploy a model of this upstream.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The upstream's model, as its provider calls it.")
    ] = None,
    context_tokens: Annotated[
        int, typer.Option(min=0, help="What the upstream's model takes; 0: what most do.")
    ] = 0,
    engine: Annotated[
        str, typer.Option(help="llamacpp, or an engine of the server's settings.")
    ] = "",
    wait: Annotated[bool, typer.Option(help="Wait until it is ready.")] = True,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Put a model behind an endpoint: a version of the registry, or a model of an upstream.

    The first one gets all the traffic, later ones none until a split.

    [bold]Examples[/bold]: pilotage endpoints deploy support smollm2@1.0.0
    |    pilotage endpoints deploy support --upstream openai --model gpt-4o-mini
    |    pilotage endpoints deploy support big@1.0.0 --engine vllm
    """
    subject = version or model
    if subject is None or (version and model):
        fail_usage("Name one model.", f"For example: pilotage endpoints deploy {name} MODEL")
    body: dict[str, Any] = {"model": subject, "engine": engine}
    if upstream is not None:
        body |= {"upstream": upstream, "context_tokens": context_tokens}

    async def work(control: ControlClient) -> dict[str, Any]:
        operation = await control.post(at_endpoint(name, "deployments"), body)
        result: dict[str, Any] = {"operation": operation["id"], "state": "starting"}
        if wait:
            with OperationBar(f"deploying {subject}") as watch:
                result |= await control.finish(operation, watch)
        endpoint = await control.get(at_endpoint(name))
        obstacles, flaws = await find_obstacles(control), await find_flaws(control, endpoint)
        return result | {
            "unpublished": obstacles.get(key_of(endpoint), ""),
            "left_out": flaws.get(result.get("model", ""), ""),
        }

    done = run(work, project, reason)
    if as_json:
        show_json(done)
        return
    deployed = done.get("model", subject)
    say(f"{deployed} on {name}: {done['state']}.")
    for what, obstacle in ((name, done["unpublished"]), (deployed, done["left_out"])):
        if obstacle:
            note(f"{what} cannot be called yet: {obstacle}.")
            note(f"  {mend(name, obstacle)}")


@command(GROUP)
def split(
    name: Name,
    shares: Annotated[
        list[str], typer.Argument(metavar="VERSION=PERCENT...", help="Who gets how much.")
    ],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Even while a rollout runs: roll it back first.")
    ] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Move traffic between the deployments of an endpoint: one write, no restart.

    A deployment is named by its version, MODEL@VERSION or id; the shares sum to 100.

    [bold]Example[/bold]: pilotage endpoints split support 1.0.0=90 1.1.0=10 --reason "first look"
    """
    wanted = read_shares(shares)

    async def work(control: ControlClient) -> dict[str, Any]:
        endpoint = await control.get(at_endpoint(name))
        if force and endpoint["rollout"]:
            rollout_id = endpoint["rollout"].partition("/")[0]
            why = {"reason": reason or "somebody splits the traffic otherwise"}
            await control.post(f"/rollouts/{rollout_id}:rollback", why)
            endpoint = await control.get(at_endpoint(name))
        await control.put(at_endpoint(name, "split"), {"split": wanted}, rev=endpoint["rev"])
        return await control.get(at_endpoint(name))

    shown = run(work, project, reason)
    if as_json:
        show_json(shown)
    else:
        say(f"{name}: {', '.join(map(_describe, shown['deployments']))}")


@command(GROUP)
def undeploy(
    name: Name,
    deployment: Deployment,
    *,
    force: Annotated[bool, typer.Option("--force", help="Even if it takes traffic.")] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Remove a deployment that takes no traffic.

    [bold]Example[/bold]: pilotage endpoints undeploy support smollm2@1.0.0
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at_endpoint(name, "deployments", deployment), force=force)

    run(work, project, reason)
    if as_json:
        show_json({"undeployed": deployment, "endpoint": name})
    else:
        say(f"{deployment} is removed from {name}.")


@command(GROUP)
def delete(
    name: Name,
    *,
    force: Annotated[bool, typer.Option("--force", help="With its deployments.")] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Delete an endpoint; refused while it has deployments.

    [bold]Example[/bold]: pilotage endpoints delete support --force
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at_endpoint(name), force=force)

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted.")


async def find_obstacles(control: ControlClient) -> dict[tuple[str, str], str]:
    """Return why endpoints cannot be called, for those of which that is so."""
    snapshot = await control.get("/snapshot")
    return {key_of(item): item["reason"] for item in snapshot["unpublished"]}


async def find_flaws(control: ControlClient, endpoint: dict[str, Any]) -> dict[str, str]:
    """Return why deployments of a published endpoint are left out, for those of which it is so."""
    snapshot = await control.get("/snapshot")
    return {
        item["deployment"]: item["reason"]
        for item in snapshot["left_out"]
        if (item["project_id"], item["endpoint"]) == key_of(endpoint)
    }


def mend(name: str, obstacle: str) -> str:
    """Return the command that helps against what keeps an endpoint, or part of it, unpublished."""
    if obstacle.startswith("no price for "):
        subject = obstacle.removeprefix("no price for ").partition(";")[0].partition(",")[0]
        model, _, version = subject.partition("@")
        subject = model if "." in version else subject  # a price of a model is one of its versions
        return f"Run: pilotage prices set {subject} --input USD --output USD (or --free)"
    if "outside the regions" in obstacle:
        return (
            f"Run: pilotage endpoints route {name} --region REGION, "
            "or say where it runs: pilotage upstreams change NAME --location REGION"
        )
    return f"Run: pilotage endpoints deploy {name} MODEL@VERSION"


def key_of(endpoint: dict[str, Any]) -> tuple[str, str]:
    """Return what makes an endpoint unique in an installation."""
    return endpoint["project_id"], endpoint["name"]


def read_labels(words: list[str]) -> dict[str, str]:
    """Return labels by name from words such as ``team=help``."""
    labels: dict[str, str] = {}
    for word in words:
        name, is_pair, value = word.partition("=")
        if not (name and is_pair) or name in labels:
            fail_usage(f"{word!r} is no label.", "Write NAME=VALUE, each name once.")
        labels[name] = value
    return labels


def read_shares(words: list[str]) -> dict[str, str]:
    """Return percentages by deployment from words such as ``1.0.0=90``."""
    shares: dict[str, str] = {}
    for word in words:
        deployment, is_pair, percent = word.rpartition("=")
        if not is_pair or not percent.removesuffix("%").replace(".", "", 1).isdigit():
            fail_usage(f"{word!r} is no share.", "Write VERSION=PERCENT, for example 1.0.0=90.")
        if deployment in shares:
            fail_usage(f"{deployment!r} is named twice.")
        shares[deployment] = percent.removesuffix("%")
    return shares


def _describe(deployment: dict[str, Any]) -> str:
    return f"{deployment['model']} {deployment['percent']:g} % {deployment['state']}"

"""``pilotage upstreams``: the providers' APIs that endpoints may use."""

from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
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
)
from pilotage.core.errors import PilotageError
from pilotage.kit.config import load_settings
from pilotage.sdk.control import ControlClient


class Preset(NamedTuple):
    """What a kind of provider usually needs; ``base_url`` may have parts to fill in."""

    provider: str
    base_url: str
    secret: str = ""


PRESETS = {
    "openai": Preset("openai", "https://api.openai.com/v1", "env:OPENAI_API_KEY"),
    "anthropic": Preset("anthropic", "https://api.anthropic.com/v1", "env:ANTHROPIC_API_KEY"),
    "vertex-openapi": Preset(
        "vertex",
        "https://{location}-aiplatform.googleapis.com/v1/projects/{gcp_project}"
        "/locations/{location}/endpoints/openapi",
    ),
    "vllm": Preset("openai", "http://127.0.0.1:8000/v1"),
}
GROUP = make_group("upstreams", "Upstreams: the providers' APIs that endpoints may use.")
EMPTY = "There are no upstreams. Make one: pilotage upstreams create openai --preset openai"
FIELDS = (
    "provider",
    "base_url",
    "secret",
    "location",
    "proxy",
    "ca_file",
    "max_connections",
    "accepts",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The upstream.")]
Provider = Annotated[
    str | None, typer.Option(help="Whose API it speaks: openai, anthropic or vertex.")
]
Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="What the API's paths are below.")
]
Secret = Annotated[
    str | None,
    typer.Option(metavar="REFERENCE", help="Where the gateway finds it: env:NAME or file:/PATH."),
]
Accepts = Annotated[
    str | None,
    typer.Option(metavar="CLASS", help="The closest class of data that it may see."),
]
Location = Annotated[
    str | None, typer.Option(metavar="REGION", help="Where it runs; residency rules look at it.")
]
Proxy = Annotated[
    str | None, typer.Option(metavar="URL", help="http://HOST:PORT to connect through.")
]
CaFile = Annotated[
    str | None, typer.Option(metavar="PATH", help="Certificates to trust instead of the system's.")
]
Connections = Annotated[
    int | None, typer.Option("--max-connections", min=1, help="Connections of a gateway process.")
]


@command(GROUP, "list")
def list_upstreams(*, project: Project = "default", as_json: Json = False) -> None:
    """List upstreams by name.

    [bold]Example[/bold]: pilotage upstreams list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/upstreams")

    upstreams = run(work, project)
    if as_json:
        show_json(upstreams)
        return
    rows = [
        (item["name"], item["provider"], item["base_url"], item["secret"], item["location"])
        for item in upstreams
    ]
    show_table(("name", "provider", "address", "secret", "location"), rows, EMPTY)


@command(GROUP, "show")
def show_upstream(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show an upstream.

    [bold]Example[/bold]: pilotage upstreams show openai
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("upstreams", name))

    shown = run(work, project)
    if as_json:
        show_json(shown)
    else:
        show_fields({field: shown[field] for field in ("name", *FIELDS, "id")})


@command(GROUP)
def create(  # noqa: PLR0913 - an upstream has that many parts
    name: Name,
    *,
    preset: Annotated[
        str | None,
        typer.Option(help=f"Fill in provider, address and secret: {', '.join(PRESETS)}."),
    ] = None,
    provider: Provider = None,
    url: Url = None,
    secret: Secret = None,
    location: Location = None,
    gcp_project: Annotated[
        str | None, typer.Option(help="The Google Cloud project, for vertex-openapi.")
    ] = None,
    proxy: Proxy = None,
    ca_file: CaFile = None,
    max_connections: Connections = None,
    accepts: Accepts = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create an upstream. Its secret stays where it is: only the reference is kept.

    [bold]Examples[/bold]: pilotage upstreams create openai --preset openai
    |    pilotage upstreams create gemini --preset vertex-openapi --location europe-west4
    --gcp-project my-project
    |    pilotage upstreams create gpu --preset vllm --url http://10.0.0.5:8000/v1
    """
    filled = _fill_preset(preset, location, gcp_project, url) if preset else {}
    body = filled | _given(
        provider=provider,
        base_url=url,
        secret=secret,
        location=location,
        proxy=proxy,
        ca_file=ca_file,
        max_connections=max_connections,
        accepts=accepts,
    )
    if "provider" not in body or "base_url" not in body:
        fail_usage("An upstream needs --provider and --url.", f"Or --preset: {', '.join(PRESETS)}.")

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/upstreams", {"name": name} | body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(
            f"{name} is created: {made['base_url']}. Use a model of it: "
            f"pilotage endpoints deploy ENDPOINT --upstream {name} --model MODEL"
        )
        _note_egress(made)


@command(GROUP)
def change(  # noqa: PLR0913 - an upstream has that many parts
    name: Name,
    *,
    provider: Provider = None,
    url: Url = None,
    secret: Secret = None,
    location: Location = None,
    proxy: Proxy = None,
    ca_file: CaFile = None,
    max_connections: Connections = None,
    accepts: Accepts = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Change an upstream; what is not named stays, and "" takes something away.

    [bold]Examples[/bold]: pilotage upstreams change openai --secret file:/run/secrets/openai
    |    pilotage upstreams change gpu --location local --proxy ""
    """
    given = _given(
        provider=provider,
        base_url=url,
        secret=secret,
        location=location,
        proxy=proxy,
        ca_file=ca_file,
        max_connections=max_connections,
        accepts=accepts,
    )
    if not given:
        fail_usage("Nothing is to be changed.", "See: pilotage upstreams change --help")

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("upstreams", name)
        now = await control.get(path)
        body = {field: now[field] for field in FIELDS} | given
        return await control.put(path, body, rev=now["rev"])

    changed = run(work, project, reason)
    if as_json:
        show_json(changed)
    else:
        shown = ", ".join(f"{key} {changed[key] or 'none'}" for key in given)
        say(f"{name} is changed: {shown}.")
        _note_egress(changed)


@command(GROUP)
def delete(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete an upstream; refused while a model of it is deployed.

    [bold]Example[/bold]: pilotage upstreams delete openai
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("upstreams", name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted.")


def find_egress(upstream: dict[str, Any], allow: str) -> PilotageError | None:
    """Return why a gateway with these settings could not call an upstream, if that is certain."""
    from pilotage.kit.egress import EgressRules  # loads asyncio's sockets, for few commands

    url = urlsplit(upstream["base_url"])
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        EgressRules.parse(allow).foresee(url.hostname or "", port)
    except PilotageError as denied:
        return denied
    return None


def _note_egress(upstream: dict[str, Any]) -> None:
    denied = find_egress(upstream, load_settings().egress.allow)
    if denied is not None:
        note(f"As this command's settings are, {denied.detail}\n  {denied.hint}")


def _given(**options: object) -> dict[str, Any]:
    """Return the options that were named."""
    return {name: value for name, value in options.items() if value is not None}


def _fill_preset(
    name: str, location: str | None, gcp_project: str | None, url: str | None
) -> dict[str, Any]:
    preset = PRESETS.get(name)
    if preset is None:
        fail_usage(f"There is no preset {name!r}.", f"There are: {', '.join(PRESETS)}.")
    filled: dict[str, Any] = {"provider": preset.provider, "secret": preset.secret}
    if url is not None:
        return filled
    if "{" in preset.base_url and not (location and gcp_project):
        fail_usage(f"{name} needs --location and --gcp-project.", "Or the whole address: --url.")
    return filled | {"base_url": preset.base_url.format(location=location, gcp_project=gcp_project)}

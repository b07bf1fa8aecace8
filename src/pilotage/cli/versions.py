"""``pilotage models``: register, search, describe and deprecate versions."""

from typing import Annotated, Any

import typer

from pilotage.cli.evidence import Version, path_of
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    fail_usage,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

EMPTY = "No version is like that. All of them: pilotage models search"
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag; may be repeated.")
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Metadata of your own; may be repeated."),
]


def register(  # noqa: PLR0913 - a version has that many parts
    ref: Version,
    *,
    uri: Annotated[str, typer.Option(help="Where what it runs is kept.")] = "",
    container: Annotated[str, typer.Option(help="The image that serves it.")] = "",
    base: Annotated[str, typer.Option(help="The model that it was made of, or is.")] = "",
    parent: Annotated[str, typer.Option(metavar="NAME@VERSION", help="What it came of.")] = "",
    source: Annotated[str, typer.Option(help="Where it comes from, such as custom.")] = "manual",
    license: Annotated[str, typer.Option(help="Its licence.")] = "",  # noqa: A002
    description: Annotated[str, typer.Option(help="What is special about it.")] = "",
    tag: Tags = None,
    fields: Fields = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Register a version that others host; "add" is for files.

    The number is MAJOR.MINOR.PATCH: major for another input or output, minor for a tuned or
    re-trained model, patch for another prompt or configuration.

    [bold]Example[/bold]: pilotage models register chat@1.0.0 --base gemini-2.0-flash --tag eu
    """
    name, _, number = ref.partition("@")
    path_of(ref)  # it must name a version
    body = {
        "version": number,
        "artifact_uri": uri,
        "serving_container_uri": container,
        "base_model": base,
        "parent": parent,
        "source": source,
        "license": license,
        "description": description,
        "tags": tag or [],
        "custom_metadata": _parse_fields(fields or []),
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        if await control.find(at("models", name)) is None:
            await control.post("/models", {"name": name})
        return await control.post(at("models", name, "versions"), body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{made['ref']} is registered.")


def search(  # noqa: PLR0913 - a search has that many parts
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORD]...")] = None,
    *,
    stage: Annotated[str, typer.Option(help="Only of this stage.")] = "",
    source: Annotated[str, typer.Option(help="Only from there.")] = "",
    tag: Tags = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME>=NUMBER", help="A condition on a metric; may be repeated."),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="newest, oldest, METRIC (lowest first) or -METRIC.")
    ] = "newest",
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Search the versions of all models by beginnings of words, stage, source, tags and metrics.

    [bold]Example[/bold]: pilotage models search fraud --metric 'accuracy>=0.9' --sort -accuracy
    """
    asked = {
        "q": " ".join(words or []),
        "stage": stage,
        "source": source,
        "tag": ",".join(tag or []),
        "metric": ",".join(metric or []),
        "sort": sort,
        "limit": limit,
    }

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await control.get("/versions", **asked))["items"]
        return found

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    is_sorted = any(item["sorted_by"] is not None for item in found)
    columns = ("version", "stage", "source", "tags", "created (UTC)", "description")
    rows = [(*_row(item), *([item["sorted_by"]] if is_sorted else [])) for item in found]
    show_table((*columns, *([f"#{sort.removeprefix('-')}"] if is_sorted else [])), rows, EMPTY)


def change(  # noqa: PLR0913 - what may be said of a version has that many parts
    ref: Version,
    *,
    description: Annotated[str | None, typer.Option(help="What is special about it.")] = None,
    display_name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    tag: Tags = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="It has no tags.")] = False,
    fields: Fields = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Say anew what a version is; what it runs never changes, and what is not named stays.

    [bold]Example[/bold]: pilotage models change chat@1.0.0 --tag eu --tag routing --set team=fraud
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        old = await control.get(path_of(ref))
        body = {
            "description": old["description"] if description is None else description,
            "display_name": old["display_name"] if display_name is None else display_name,
            "tags": [] if no_tags else old["tags"] if tag is None else tag,
            "custom_metadata": old["custom_metadata"] | _parse_fields(fields or []),
        }
        return await control.put(path_of(ref), body, old["rev"])

    changed = run(work, project, reason)
    if as_json:
        show_json(changed)
    else:
        say(f"{changed['ref']} is changed.")


def deprecate(
    ref: Version,
    why: Annotated[str, typer.Argument(metavar="WHY", help="Why nobody should begin to use it.")],
    *,
    use: Annotated[str, typer.Option(metavar="NAME@VERSION", help="What to use instead.")] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Mark a version as one that nobody should begin to use; who uses it still can.

    [bold]Example[/bold]: pilotage models deprecate chat@1.0.0 "leaks names" --use chat@1.1.0
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(f"{path_of(ref)}:deprecate", {"reason": why, "replacement": use})

    marked = run(work, project, reason)
    if as_json:
        show_json(marked)
    else:
        say(f"{marked['ref']} is deprecated{f': use {use}' if use else ''}.")


async def name_versions(control: ControlClient, by: str) -> dict[str, str]:
    """Return the names of model versions by id, if numbers are told apart by them at all."""
    if "version" not in by:
        return {}
    return {item["id"]: item["ref"] async for item in control.list("/versions")}


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    note = " (deprecated)" if item["deprecated_at"] else ""
    tags = " ".join(item["tags"])
    when = show_time(item["created_at"])
    return (item["ref"] + note, item["stage"], item["source"], tags, when, item["description"])


def _parse_fields(fields: list[str]) -> dict[str, str]:
    parsed = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not key or not equals:
            fail_usage(f"--set: {field!r} says nothing.", "Write KEY=VALUE.")
        parsed[key] = value
    return parsed

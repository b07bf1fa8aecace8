"""``pilotage prompts``: versioned templates that calls name, and the labels that release them."""

from pathlib import Path
from typing import Annotated, Any

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
    show_time,
)
from pilotage.core.prompts import parse_prompt_ref
from pilotage.sdk.control import ControlClient
from pilotage.sdk.prompt_files import import_prompts, read_prompt_files

GROUP = make_group("prompts", "Prompts: versioned templates that calls name, and their labels.")
EMPTY = "There are no prompts. Make one: pilotage prompts create NAME --text 'Hello {{ name }}'"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The prompt.")]
Ref = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A version, or a label.")]
AnyRef = Annotated[
    str, typer.Argument(metavar="NAME[@VERSION]", help="The prompt, a version, or a label.")
]
Label = Annotated[str, typer.Argument(metavar="LABEL", help="Such as production or latest.")]


@command(GROUP, "list")
def list_prompts(*, project: Project = "default", as_json: Json = False) -> None:
    """List prompts, their highest versions and their labels.

    [bold]Example[/bold]: pilotage prompts list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return [await _look(control, item["name"]) for item in await collect(control, "/prompts")]

    prompts = run(work, project)
    if as_json:
        show_json(prompts)
        return
    rows = []
    for item in prompts:
        last = item["versions"][-1]["version"] if item["versions"] else ""
        labels = ", ".join(f"{each['label']} {each['version']}" for each in item["labels"])
        rows.append((item["name"], last, len(item["versions"]), labels, item["description"]))
    show_table(("name", "highest version", "#versions", "labels", "description"), rows, EMPTY)


@command(GROUP, "show")
def show_prompt(ref: AnyRef, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a prompt and its versions, or what a version says.

    [bold]Examples[/bold]: pilotage prompts show greeting
    |    pilotage prompts show greeting@production
    """
    name, is_version, release = ref.partition("@")

    async def work(control: ControlClient) -> dict[str, Any]:
        if is_version:
            return await control.get(at("prompts", name, "versions", release))
        return await _look(control, name)

    shown = run(work, project)
    if as_json:
        show_json(shown)
    elif is_version:
        _show_version(shown)
    else:
        _show_prompt(shown)


@command(GROUP)
def create(
    name: Name,
    *,
    version: Annotated[str, typer.Option(help="Of the text.")] = "1.0.0",
    text: Annotated[
        str, typer.Option(help="A user message; {{ name }} stands for a variable.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A *.prompt.yaml, .json or .md instead.")
    ] = None,
    description: Annotated[str, typer.Option(help="What the prompt is for.")] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create a prompt, or a version of one that is there.

    [bold]Examples[/bold]: pilotage prompts create greeting --text 'Greet {{ name }}.'
    |    pilotage prompts create greeting --file greeting.prompt.md
    """
    if bool(text) == (file is not None):
        fail_usage("A version has either --text or --file.")
    body: dict[str, Any] = {"version": version, "text": text}
    if file is not None:
        body = _read_body(file, name)

    async def work(control: ControlClient) -> dict[str, Any]:
        if await control.find(at("prompts", name)) is None:
            await control.post("/prompts", {"name": name, "description": description})
        return await control.post(at("prompts", name, "versions"), body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{made['ref']} is created. Release it: pilotage prompts tag {made['ref']} production")


@command(GROUP)
def diff(
    ref: Ref,
    other: Annotated[str, typer.Argument(metavar="VERSION", help="Another version or label.")],
    *,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show what is different in another version of a prompt.

    [bold]Example[/bold]: pilotage prompts diff greeting@production 1.2.0
    """
    name, release = parse_prompt_ref(ref)

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("prompts", name, "versions", release, "diff", other))

    found = run(work, project)
    if as_json:
        show_json(found)
    else:
        say("\n".join(found["lines"]) or f"{found['before']} and {found['after']} say the same.")


@command(GROUP)
def tag(
    ref: Ref,
    label: Label,
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make a label point to a version: calls that name the label use it from then on.

    [bold]Example[/bold]: pilotage prompts tag greeting@1.2.0 production --reason "shorter"
    """
    name, release = parse_prompt_ref(ref)

    async def work(control: ControlClient) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        place = at("prompts", name, "labels", label)
        before = await control.find(place)
        version = await control.get(at("prompts", name, "versions", release))
        rev = before["rev"] if before else None
        return before, await control.put(place, {"version": version["version"]}, rev)

    before, moved = run(work, project, reason)
    if as_json:
        show_json(moved)
    else:
        was = f" It was {before['version']}." if before else ""
        say(f"{name}@{label} is {moved['version']} now.{was}")


@command(GROUP)
def untag(
    name: Name,
    label: Label,
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Remove a label: calls that name it are refused from then on.

    [bold]Example[/bold]: pilotage prompts untag greeting candidate
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("prompts", name, "labels", label))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": f"{name}@{label}"})
    else:
        say(f"{name}@{label} is removed.")


@command(GROUP)
def render(
    ref: Ref,
    *,
    variable: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A variable's value.")
    ] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Fill in the variables of a version, and show the messages that a call would get.

    [bold]Example[/bold]: pilotage prompts render greeting@production --set name=Ada
    """
    name, release = parse_prompt_ref(ref)
    given = dict(_read_setting(word) for word in variable or [])

    async def work(control: ControlClient) -> dict[str, Any]:
        place = at("prompts", name, "versions", release)
        kinds = {item["name"]: item["type"] for item in (await control.get(place))["variables"]}
        values = {each: _read_value(text, kinds.get(each, "")) for each, text in given.items()}
        return await control.post(f"{place}:render", {"variables": values})

    rendered = run(work, project)
    if as_json:
        show_json(rendered)
        return
    note(rendered["ref"])
    for message in rendered["messages"]:
        say(f"[{message['role']}]\n{message['content']}")


@command(GROUP, "import")
def import_files(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, or one file.")],
    *,
    ref: Annotated[
        str, typer.Option(help="Read this commit of the checkout, not the files as they lie there.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made.")] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make versions of the *.prompt.yaml, .json and .md files of a folder.

    What is there already is left alone; a version that is there and says something else is an
    error, and nothing is made then. Commit and path are kept with each version.

    [bold]Examples[/bold]: pilotage prompts import prompts/ --dry-run
    |    pilotage prompts import . --ref main
    """
    files = read_prompt_files(path, ref)

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        done = await import_prompts(control, files, is_dry=dry_run)
        would = "would be made" if dry_run else "made"
        return [
            {
                "ref": file.ref,
                "path": file.path,
                "commit": file.commit,
                "result": would if is_new else "there already",
            }
            for file, is_new in done
        ]

    results = run(work, project, reason)
    if as_json:
        show_json(results)
        return
    rows = [
        (item["ref"], item["result"], item["path"], item["commit"][:12] or "not committed")
        for item in results
    ]
    show_table(("prompt", "result", "file", "commit"), rows, "")


@command(GROUP)
def delete(
    ref: AnyRef, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a version, or a prompt with all its versions; refused while a label points there.

    [bold]Example[/bold]: pilotage prompts delete greeting@1.0.0
    """
    name, is_version, version = ref.partition("@")
    place = at("prompts", name, "versions", version) if is_version else at("prompts", name)

    async def work(control: ControlClient) -> None:
        await control.delete(place)

    run(work, project, reason)
    if as_json:
        show_json({"deleted": ref})
    else:
        say(f"{ref} is deleted.")


async def _look(control: ControlClient, name: str) -> dict[str, Any]:
    prompt = await control.get(at("prompts", name))
    versions = await collect(control, at("prompts", name, "versions"))
    labels = await collect(control, at("prompts", name, "labels"))
    return prompt | {"versions": versions, "labels": labels}


def _read_body(file: Path, name: str) -> dict[str, Any]:
    """Return the request that makes a version of a file."""
    (found,) = read_prompt_files(file)
    if found.name != name:
        fail_usage(f"{file} is the prompt {found.name!r}, not {name!r}.")
    return found.make_body()


def _read_setting(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        fail_usage(f"--set {word}: write NAME=VALUE.")
    return name, value


def _read_value(text: str, kind: str) -> str | int | float | bool:
    """Return a value of the kind that its variable has; a wrong one is left for the server."""
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if kind == "number":
        for read in (int, float):
            try:
                return read(text)
            except ValueError:
                continue
    return text


def _show_prompt(shown: dict[str, Any]) -> None:
    show_fields({"name": shown["name"], "description": shown["description"], "id": shown["id"]})
    labels: dict[str, list[str]] = {}
    for each in shown["labels"]:
        labels.setdefault(each["version"], []).append(each["label"])
    rows = [
        (
            item["ref"],
            ", ".join(labels.get(item["version"], [])),
            show_time(item["created_at"]),
            item["provenance"]["path"],
            item["provenance"]["commit"][:12],
            item["description"],
        )
        for item in shown["versions"]
    ]
    columns = ("version", "labels", "created (UTC)", "file", "commit", "description")
    show_table(
        columns, rows, f"It has no versions. Add one: pilotage prompts create {shown['name']}"
    )


def _show_version(shown: dict[str, Any]) -> None:
    source = shown["provenance"]
    fields = {
        "version": shown["ref"],
        "description": shown["description"],
        "sha256": shown["sha256"],
        "created": f"{show_time(shown['created_at'])} UTC by {shown['created_by']}",
        "file": source["path"],
        "commit": " of ".join(filter(None, (source["commit"], source["repository"]))),
    }
    for variable in shown["variables"]:
        fields[f"variable {variable['name']}"] = _describe(variable)
    given = {name: value for name, value in shown["parameters"].items() if value not in (None, [])}
    fields["parameters"] = ", ".join(f"{name} {value}" for name, value in given.items())
    fields["response schema"] = "yes" if shown["response_schema"] else ""
    show_fields({name: value for name, value in fields.items() if value})
    for message in shown["messages"] or [{"role": "text", "content": shown["text"]}]:
        say(f"[{message['role']}]\n{message['content']}")


def _describe(variable: dict[str, Any]) -> str:
    parts = [variable["type"], "required" if variable["required"] else "optional"]
    if variable["values"]:
        parts.append("one of " + ", ".join(variable["values"]))
    if variable["default"] is not None:
        parts.append(f"default {variable['default']}")
    if variable["max_length"]:
        parts.append(f"at most {variable['max_length']} letters")
    return ", ".join(parts)

"""``pilotage doctor``: what is missing, and the command that mends it."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import typer

from pilotage.cli.endpoints import find_flaws, find_obstacles, key_of, mend
from pilotage.cli.session import ERR, FAILURE, OUT, Json, Project, collect, show_json
from pilotage.cli.upstreams import find_egress
from pilotage.core.errors import PilotageError
from pilotage.kit.config import LoadedSettings, Settings, read_settings
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.sdk.control import ControlClient, open_control

if TYPE_CHECKING:  # imported when it runs: it brings the database and the engines along
    from pilotage.runtime.diagnosis import Finding

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
ANSWER_S = 5.0


def doctor(*, project: Project = "default", as_json: Json = False) -> None:
    """Check everything, one line each, with the command that mends it; exit code 1 for a problem.

    [bold]Example[/bold]: pilotage doctor
    """
    found: list[Finding] = []

    async def examine() -> None:
        async for finding in _examine(project):
            found.append(finding)
            if not as_json:
                _show(finding)

    asyncio.run(examine())
    if as_json:
        show_json(found)
    problems = sum(finding.state == "problem" for finding in found)
    warnings = sum(finding.state == "warning" for finding in found)
    if problems or warnings:
        ERR.print(f"{problems} problems, {warnings} warnings.", markup=False)
    if problems:
        raise typer.Exit(FAILURE)


async def _examine(project: str) -> AsyncIterator["Finding"]:
    from pilotage.runtime import diagnosis

    for finding in diagnosis.check_program():
        yield finding
    try:
        loaded = read_settings()
    except PilotageError as wrong:
        yield _make("settings", "problem", wrong.detail, wrong.hint)
        return
    yield _make("settings", "ok", _describe(loaded))
    for finding in diagnosis.check_engines(loaded.settings):
        yield finding
    folder = DataFolder(loaded.settings.data_path)
    is_usable = True
    for finding in diagnosis.check_folder(folder):
        is_usable = is_usable and (finding.check, finding.state) != ("data folder", "problem")
        yield finding
    if is_usable:
        async for finding in _examine_installation(loaded.settings, folder, project):
            yield finding


async def _examine_installation(
    settings: Settings, folder: DataFolder, project: str
) -> AsyncIterator["Finding"]:
    from pilotage.runtime import diagnosis
    from pilotage.runtime.vault import find_root_keys

    server = folder.find_server()
    if folder.audit.exists():
        yield diagnosis.check_checkpoints(settings, folder)
    for finding in diagnosis.check_ports(settings, server):
        yield finding
    yield diagnosis.check_root_keys(find_root_keys(settings, folder))
    database = await diagnosis.check_database(settings, folder)
    yield database
    if server is not None:
        async for finding in _ask_server(server):
            yield finding
    elif database.state != "ok" or not folder.credentials.exists() or folder.find_holder():
        return  # looking further would make what is missing, or wait for who has the folder
    try:
        async with open_control(settings, project) as control:
            async for finding in _examine_endpoints(control):
                yield finding
            for upstream in await collect(control, "/upstreams"):
                denied = find_egress(upstream, settings.egress.allow)
                if denied is not None:
                    check = f"upstream {upstream['name']}"
                    yield _make(check, "warning", denied.detail, denied.hint)
    except PilotageError as refused:
        yield _make("control plane", "problem", refused.detail, refused.hint)


async def _ask_server(server: ServerInfo) -> AsyncIterator["Finding"]:
    import httpx

    async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as http:
        for check, url in (
            ("gateway", f"{server.gateway_url}/readyz"),
            ("control plane", f"{server.control_url}/healthz"),
        ):
            try:
                reply = await http.get(url)
            except httpx.HTTPError as failed:
                reason = str(failed) or type(failed).__name__
                hint = f"Process {server.pid} serves it; start it again: pilotage up"
                yield _make(check, "problem", f"{url} does not answer: {reason}.", hint)
                continue
            if reply.is_success:
                yield _make(check, "ok", f"{url} answers")
            else:
                reason = _read_reason(reply)
                yield _make(
                    check, "problem", f"{url}: {reason}", "Look into the logs in the data folder."
                )


async def _examine_endpoints(control: ControlClient) -> AsyncIterator["Finding"]:
    endpoints = await collect(control, "/endpoints")
    if not endpoints:
        yield _make("endpoints", "warning", "There are none.", "Run: pilotage init")
    obstacles = await find_obstacles(control)
    for endpoint in endpoints:
        name = endpoint["name"]
        obstacle = obstacles.get(key_of(endpoint))
        if obstacle:
            yield _make(
                f"endpoint {name}", "problem", f"not published: {obstacle}", mend(name, obstacle)
            )
        else:
            yield _make(f"endpoint {name}", "ok", "published")
        for flaw in (await find_flaws(control, endpoint)).values():
            detail = f"a deployment is left out: {flaw}"
            yield _make(f"endpoint {name}", "warning", detail, mend(name, flaw))
        if control.is_live:
            for deployment in endpoint["deployments"]:
                if deployment["state"] not in {"ready", "asleep"}:
                    yield _describe_replica(name, deployment)


def _describe_replica(name: str, deployment: dict[str, Any]) -> "Finding":
    is_down = deployment["state"] in {"failed", "crash loop"}
    state = "problem" if is_down else "warning"
    detail = f"{deployment['model']} is {deployment['state']}"
    if deployment["detail"]:
        detail += f": {deployment['detail']}"
    return _make(f"endpoint {name}", state, detail, f"Look: pilotage endpoints show {name}")


def _describe(loaded: LoadedSettings) -> str:
    where = "no file" if loaded.file is None else str(loaded.file)
    return f"valid ({where}, {len(loaded.origins)} set)"


def _read_reason(reply: Any) -> str:  # noqa: ANN401 - httpx is imported when it is needed
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}"


def _make(check: str, state: str, detail: str, hint: str = "") -> "Finding":
    from pilotage.runtime.diagnosis import Finding, State

    return Finding(check=check, state=State(state), detail=detail, hint=hint)


def _show(finding: "Finding") -> None:
    OUT.print(f"{finding.state:<8}", style=COLOURS[finding.state], end=" ")
    hint = f"  -> {finding.hint}" if finding.hint else ""
    OUT.print(f"{finding.check}: {finding.detail}{hint}", markup=False)

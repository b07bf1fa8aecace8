"""What applying documents would change: read and checked first, then done step by step."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pilotage.cli.models import hash_file, upload
from pilotage.cli.objects import (
    CLASSES,
    Document,
    EndpointObject,
    KeyObject,
    ModelObject,
    PriceObject,
    ProjectObject,
    TenantObject,
    VersionObject,
)
from pilotage.cli.session import OperationBar, at, at_endpoint, collect
from pilotage.kit.clock import parse_rfc3339, parse_time
from pilotage.sdk.control import ControlClient

CREATED = "created"
CHANGED = "changed"
UNCHANGED = "unchanged"


async def _nothing() -> None:
    """Do nothing."""


@dataclass(slots=True, kw_only=True)
class Step:
    """What becomes of one document: ``prepare`` brings its file in, ``act`` does the rest."""

    document: Document
    result: str
    prepare: Callable[[], Awaitable[None]] = _nothing
    act: Callable[[], Awaitable[None]] = _nothing
    secret: str = ""


async def make_plan(control: ControlClient, documents: Sequence[Document]) -> list[Step]:
    """Return a step for each document, in order; raise ``invalid_request`` if one cannot be done.

    Only reads.
    """
    there = There(
        control=control,
        projects={item["name"] for item in await collect(control, "/projects")},
        packages={item["model"]: item["version"] for item in await collect(control, "/packages")},
        planned={(item.kind, item.project, item.content.title) for item in documents},
    )
    return [await _plan(there, document) for document in documents]


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    """What documents are compared with: the API, and what other documents will make."""

    control: ControlClient
    projects: set[str]
    packages: dict[str, str]
    planned: set[tuple[str, str, str]]

    async def find(self, document: Document, path: str) -> dict[str, Any] | None:
        """Read an object in a document's project; None if it is not there."""
        if document.project not in self.projects:
            return None
        return await self.control.find(path, project=document.project)

    async def list(self, document: Document, path: str, **query: object) -> list[dict[str, Any]]:
        """Read a list in a document's project; it is empty in one that is still to be made."""
        if document.project not in self.projects:
            return []
        return await collect(self.control, path, project=document.project, **query)

    def will_make(self, kind: str, document: Document, title: str) -> bool:
        """Say whether another document makes an object in the same project."""
        return (kind, document.project, title) in self.planned


async def _plan(there: There, document: Document) -> Step:
    content = document.content
    if isinstance(content, ProjectObject):
        return _plan_project(there, document, content)
    makes_project = any(
        (kind, title) == ("Project", document.project) for kind, _, title in there.planned
    )
    if document.project not in there.projects and not makes_project:
        raise document.refuse(
            f"there is no project {document.project!r}",
            "Add a document of kind Project, or: pilotage projects create NAME",
        )
    match content:
        case TenantObject():
            return await _plan_tenant(there, document, content)
        case ModelObject():
            return await _plan_model(there, document, content)
        case VersionObject():
            return await _plan_version(there, document, content)
        case PriceObject():
            return await _plan_price(there, document, content)
        case EndpointObject():
            return await _plan_endpoint(there, document, content)
        case KeyObject():
            return await _plan_key(there, document, content)
    raise TypeError(document.kind)


def _plan_project(there: There, document: Document, project: ProjectObject) -> Step:
    if project.name in there.projects:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        await there.control.post("/projects", {"name": project.name})

    return Step(document=document, result=CREATED, act=act)


async def _plan_tenant(there: There, document: Document, tenant: TenantObject) -> Step:
    if await there.find(document, at("tenants", tenant.name)) is not None:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        await there.control.post("/tenants", {"name": tenant.name}, project=document.project)

    return Step(document=document, result=CREATED, act=act)


async def _plan_model(there: There, document: Document, model: ModelObject) -> Step:
    path = at("models", model.name)
    found = await there.find(document, path)
    if found is not None and model.description in {None, found["description"]}:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        now = await there.control.find(path, project=document.project)  # a package may bring it
        if now is None:
            body = {"name": model.name, "description": model.description or ""}
            await there.control.post("/models", body, project=document.project)
        elif model.description is not None:
            body = {"description": model.description}
            await there.control.put(path, body, rev=now["rev"], project=document.project)

    return Step(document=document, result=CREATED if found is None else CHANGED, act=act)


async def _plan_version(there: There, document: Document, version: VersionObject) -> Step:
    found = await there.find(document, at("models", version.model, "versions", version.version))
    if version.package is not None:
        return _plan_package(there, document, version, found)
    file = document.folder / (version.file or "")
    if not file.is_file():
        raise document.refuse(f"file: {file} is not a file")
    if found is not None:
        if found["artifact_sha256"] != hash_file(file):
            problem = "it is there already, made of another file"
            raise document.refuse(problem, "Choose a higher version: versions never change.")
        for name in ("license", "description"):
            if getattr(version, name) not in {None, found[name]}:
                problem = f"{name}: it is there already, with {found[name]!r}"
                raise document.refuse(problem, "Versions never change: take it out.")
        return Step(document=document, result=UNCHANGED)
    if not there.will_make("Model", document, version.model) and not await there.find(
        document, at("models", version.model)
    ):
        raise document.refuse(
            f"there is no model {version.model!r}", "Add a document of kind Model."
        )
    artifact: dict[str, Any] = {}

    async def prepare() -> None:
        artifact.update(await upload(there.control, file, project=document.project))

    async def act() -> None:
        body = {
            "version": version.version,
            "artifact_sha256": artifact["sha256"],
            "license": version.license,
            "description": version.description or "",
        }
        path = at("models", version.model, "versions")
        await there.control.post(path, body, project=document.project)

    return Step(document=document, result=CREATED, prepare=prepare, act=act)


def _plan_package(
    there: There, document: Document, version: VersionObject, found: dict[str, Any] | None
) -> Step:
    package = version.package or ""
    offered = there.packages.get(package)
    if offered is None:
        known = ", ".join(sorted(there.packages))
        raise document.refuse(f"package: there is no {package!r}", f"There are: {known}.")
    if version.title != f"{package}@{offered}":
        raise document.refuse(f"package: {package} is {package}@{offered}")
    if found is not None:
        if found["source"] != "package":
            raise document.refuse("it is there already, and not from the package")
        return Step(document=document, result=UNCHANGED)

    async def prepare() -> None:
        with OperationBar(f"fetching {package}", is_bytes=True) as watch:
            started = await there.control.post(
                "/models:pull", {"name": package}, project=document.project
            )
            await there.control.finish(started, watch)

    return Step(document=document, result=CREATED, prepare=prepare)


async def _plan_price(there: There, document: Document, price: PriceObject) -> Step:
    is_dated = price.valid_from is not None
    prices = await there.list(document, "/prices", subject=price.model, current=not is_dated)
    if is_dated:
        since_us = parse_time(price.valid_from or "")
        prices = [item for item in prices if parse_rfc3339(item["valid_from"]) == since_us]
    found = prices[0] if prices else None
    if found is not None:
        is_same = price.rates == {name: Decimal(found[name]) for name in CLASSES}
        if is_same and found["is_free"] == price.free:
            return Step(document=document, result=UNCHANGED)
        if is_dated:
            problem = f"from: there is another price from {price.valid_from} on already"
            raise document.refuse(problem, "Prices are only added: choose a later time.")

    async def act() -> None:
        body = {name: getattr(price, name) for name in CLASSES} | {
            "subject": price.model,
            "input": price.input or "0",
            "output": price.output or "0",
            "is_free": price.free,
            "valid_from": price.valid_from,
        }
        await there.control.post("/prices", body, project=document.project)

    return Step(document=document, result=CREATED if found is None else CHANGED, act=act)


async def _plan_endpoint(there: There, document: Document, endpoint: EndpointObject) -> Step:
    found = await there.find(document, at_endpoint(endpoint.name))
    deployed = _read_shares(found)
    for ref in endpoint.shares:
        model, _, version = ref.partition("@")
        if (
            ref not in deployed
            and not there.will_make("ModelVersion", document, ref)
            and await there.find(document, at("models", model, "versions", version)) is None
        ):
            raise document.refuse(
                f"deployments: there is no version {ref!r}", "Add a document of kind ModelVersion."
            )
    act = _make_endpoint_act(there, document, endpoint)
    if found is None:
        return Step(document=document, result=CREATED, act=act)
    is_same = _is_described(endpoint, found) and _is_split(endpoint, deployed)
    if is_same:
        return Step(document=document, result=UNCHANGED)
    return Step(document=document, result=CHANGED, act=act)


def _make_endpoint_act(
    there: There, document: Document, endpoint: EndpointObject
) -> Callable[[], Awaitable[None]]:
    control, path, scope = there.control, at_endpoint(endpoint.name), document.project

    async def act() -> None:
        now = await control.find(path, project=scope)
        if now is None:
            body: dict[str, Any] = {"name": endpoint.name} | _describe(endpoint, {})
            now = await control.post("/endpoints", body, project=scope)
        elif not _is_described(endpoint, now):
            now = await control.put(path, _describe(endpoint, now), rev=now["rev"], project=scope)
        missing = [ref for ref in endpoint.shares if ref not in _read_shares(now)]
        for ref in missing:
            with OperationBar(f"deploying {ref}") as watch:
                started = await control.post(f"{path}/deployments", {"model": ref}, project=scope)
                await control.finish(started, watch)
        if missing:
            now = await control.get(path, project=scope)
        if not _is_split(endpoint, _read_shares(now)):
            split = {"split": {ref: str(share) for ref, share in endpoint.shares.items()}}
            await control.put(f"{path}/split", split, rev=now["rev"], project=scope)

    return act


async def _plan_key(there: There, document: Document, key: KeyObject) -> Step:
    tenant = await there.find(document, at("tenants", key.tenant))
    if tenant is None and not there.will_make("Tenant", document, key.tenant):
        raise document.refuse(
            f"there is no tenant {key.tenant!r}", "Add a document of kind Tenant."
        )
    keys = [] if tenant is None else await there.list(document, "/keys", tenant=key.tenant)
    if any(item["name"] == key.name and item["state"] == "active" for item in keys):
        return Step(document=document, result=UNCHANGED)
    step = Step(document=document, result=CREATED)

    async def act() -> None:
        body = {"tenant": key.tenant, "name": key.name, "expires_in": key.expires}
        made = await there.control.post("/keys", body, project=document.project)
        step.secret = made["secret"]

    step.act = act
    return step


def _describe(endpoint: EndpointObject, now: dict[str, Any]) -> dict[str, Any]:
    """Return what an endpoint shall say of itself: what is left out stays as it is now."""
    described = {
        "description": endpoint.description,
        "max_output_tokens": endpoint.max_output_tokens,
    }
    defaults: dict[str, Any] = {"description": "", "max_output_tokens": 0}
    return {
        name: now.get(name, defaults[name]) if value is None else value
        for name, value in described.items()
    }


def _is_described(endpoint: EndpointObject, now: dict[str, Any]) -> bool:
    return all(now[name] == value for name, value in _describe(endpoint, now).items())


def _read_shares(now: dict[str, Any] | None) -> dict[str, Decimal]:
    """Return percentages by MODEL@VERSION, as they are."""
    deployments = [] if now is None else now["deployments"]
    return {item["model"]: Decimal(str(item["percent"])) for item in deployments}


def _is_split(endpoint: EndpointObject, deployed: dict[str, Decimal]) -> bool:
    """Say whether everything wanted is deployed and has the share it shall have."""
    if not endpoint.shares:
        return True
    is_deployed = all(ref in deployed for ref in endpoint.shares)
    wanted = {ref: share for ref, share in endpoint.shares.items() if share}
    return is_deployed and wanted == {ref: share for ref, share in deployed.items() if share}

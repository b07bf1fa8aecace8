"""What applying documents would change: read and checked first, then done step by step."""

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

from pilotage.cli.models import hash_file, upload
from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.endpoint import plan_endpoint
from pilotage.cli.objects.identity import plan_binding, plan_principal
from pilotage.cli.objects.kinds import (
    CLASSES,
    EndpointObject,
    FreezeObject,
    GatePolicyObject,
    KeyObject,
    LimitObject,
    ModelObject,
    PriceObject,
    PrincipalObject,
    ProjectObject,
    ReleasePolicyObject,
    RoleBindingObject,
    TenantObject,
    UpstreamObject,
    VersionObject,
)
from pilotage.cli.objects.limit import plan_limit
from pilotage.cli.objects.release import plan_freeze, plan_gate_policy, plan_release_policy
from pilotage.cli.objects.step import CHANGED, CREATED, UNCHANGED, Step, There, compare
from pilotage.cli.session import OperationBar, at, collect
from pilotage.cli.upstreams import FIELDS as UPSTREAM_FIELDS
from pilotage.kit.clock import parse_rfc3339, parse_time
from pilotage.sdk.control import ControlClient

TENANT_FIELDS = ("time_zone", "regions", "features", "data_class", "shows", "log_percent")


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
    return await _PLANS[type(content)](there, document, content)


def _plan_project(there: There, document: Document, project: ProjectObject) -> Step:
    if project.name in there.projects:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        await there.control.post("/projects", {"name": project.name})

    return Step(document=document, result=CREATED, act=act)


async def _plan_tenant(there: There, document: Document, tenant: TenantObject) -> Step:
    path = at("tenants", tenant.name)
    found = await there.find(document, path)
    if found is None:
        body = {"name": tenant.name} | tenant.settings
        return Step(document=document, result=CREATED, act=_post(there, document, "/tenants", body))
    return _plan_settings(there, document, path, found, tenant.settings, TENANT_FIELDS)


async def _plan_upstream(there: There, document: Document, upstream: UpstreamObject) -> Step:
    path = at("upstreams", upstream.name)
    found = await there.find(document, path)
    if found is not None:
        settings = upstream.settings
        return _plan_settings(there, document, path, found, settings, UPSTREAM_FIELDS)
    if upstream.provider is None or upstream.base_url is None:
        raise document.refuse("a new upstream needs provider and base_url")
    body = {"name": upstream.name} | upstream.settings
    return Step(document=document, result=CREATED, act=_post(there, document, "/upstreams", body))


def _plan_settings(
    there: There,
    document: Document,
    path: str,
    found: dict[str, Any],
    wanted: dict[str, Any],
    fields: Sequence[str],
) -> Step:
    """Plan to replace the settings of what is there, if any that are wanted differ."""
    differences = compare(found, wanted)
    if not differences:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        now = await there.control.get(path, project=document.project)
        body = {name: now[name] for name in fields} | wanted
        await there.control.put(path, body, rev=now["rev"], project=document.project)

    return Step(document=document, result=CHANGED, differences=differences, act=act)


def _post(
    there: There, document: Document, path: str, body: dict[str, Any]
) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        await there.control.post(path, body, project=document.project)

    return act


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

    if found is None:
        return Step(document=document, result=CREATED, act=act)
    differences = compare(found, {"description": model.description})
    return Step(document=document, result=CHANGED, differences=differences, act=act)


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

    if found is None:
        return Step(document=document, result=CREATED, act=act)
    now = {name: Decimal(found[name]) for name in CLASSES} | {"free": found["is_free"]}
    differences = compare(now, price.rates | {"free": price.free})
    return Step(document=document, result=CHANGED, differences=differences, act=act)


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
        body = {
            "tenant": key.tenant,
            "name": key.name,
            "expires_in": key.expires,
            "may_name_users": key.may_name_users,
        }
        made = await there.control.post("/keys", body, project=document.project)
        step.secret = made["secret"]

    step.act = act
    return step


_PLANS: dict[type, Callable[[There, Document, Any], Awaitable[Step]]] = {
    TenantObject: _plan_tenant,
    ModelObject: _plan_model,
    VersionObject: _plan_version,
    UpstreamObject: _plan_upstream,
    PriceObject: _plan_price,
    EndpointObject: plan_endpoint,
    KeyObject: _plan_key,
    LimitObject: plan_limit,
    PrincipalObject: plan_principal,
    RoleBindingObject: plan_binding,
    GatePolicyObject: plan_gate_policy,
    ReleasePolicyObject: plan_release_policy,
    FreezeObject: plan_freeze,
}

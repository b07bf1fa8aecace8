"""What applying an endpoint would change: its texts, its deployments, its split, its routing."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import EndpointObject, Share
from pilotage.cli.objects.kinds.base import list_given
from pilotage.cli.objects.step import CHANGED, CREATED, UNCHANGED, Difference, Step, There, compare
from pilotage.cli.session import OperationBar, at, at_endpoint
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

IN_THE_WAY = {"conflict", "invalid_request"}  # what a split or a routing is refused with


async def plan_endpoint(there: There, document: Document, endpoint: EndpointObject) -> Step:
    """Return the step of an endpoint; raise ``invalid_request`` if it cannot be done."""
    found = await there.find(document, at_endpoint(endpoint.name))
    deployed = _read_shares(found)
    for item in endpoint.deployments or []:
        if item.ref not in deployed:
            await _check_deployable(there, document, item)
    for name, place in (endpoint.routing.named if endpoint.routing else {}).items():
        if name not in {*deployed, *endpoint.shares}:
            known = ", ".join({**deployed, **endpoint.shares}) or "none"
            raise document.refuse(
                f"{place}: there is no deployment {name!r}",
                f"Write it as MODEL@VERSION or UPSTREAM/MODEL. There are: {known}.",
            )
    await _check_tenants(there, document, endpoint)
    work = _Work(
        control=there.control,
        path=at_endpoint(endpoint.name),
        project=document.project,
        endpoint=endpoint,
        is_rolled_out=found is not None and there.will_make("Rollout", document, endpoint.name),
    )
    if found is None:
        return Step(document=document, result=CREATED, act=work.act)
    _check_place(document, endpoint, found)
    differences = (
        *compare(found, _describe(endpoint, found)),
        *(
            _list_missing(endpoint, deployed)
            if work.is_rolled_out
            else _compare_split(endpoint, deployed)
        ),
        *compare(_routing_of(found), endpoint.route),
    )
    return Step(
        document=document,
        result=CHANGED if differences else UNCHANGED,
        differences=differences,
        act=work.act,
    )


async def _check_deployable(there: There, document: Document, item: Share) -> None:
    if item.upstream is not None:
        is_planned = there.will_make("Upstream", document, item.upstream)
        if not is_planned and not await there.find(document, at("upstreams", item.upstream)):
            raise document.refuse(
                f"deployments: there is no upstream {item.upstream!r}",
                "Add a document of kind Upstream.",
            )
        return
    model, _, version = item.model.partition("@")
    is_planned = there.will_make("ModelVersion", document, item.model)
    if not is_planned and not await there.find(document, at("models", model, "versions", version)):
        raise document.refuse(
            f"deployments: there is no version {item.model!r}",
            "Add a document of kind ModelVersion.",
        )


async def _check_tenants(there: There, document: Document, endpoint: EndpointObject) -> None:
    rules = (endpoint.routing.rules or []) if endpoint.routing else []
    for name in sorted({tenant for rule in rules for tenant in rule.tenants}):
        is_planned = there.will_make("Tenant", document, name)
        if not is_planned and not await there.find(document, at("tenants", name)):
            raise document.refuse(
                f"routing.rules: there is no tenant {name!r}", "Add a document of kind Tenant."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """Make one endpoint what a document says, from whatever it is by then."""

    control: ControlClient
    path: str
    project: str
    endpoint: EndpointObject
    is_rolled_out: bool = False

    async def act(self) -> None:
        """Do all of it; the traffic moves when everything is deployed."""
        await self._deploy_missing(await self._write_texts())
        if self.is_rolled_out:
            await self._route()
            return
        try:
            await self._split()
        except PilotageError as refused:
            if refused.code not in IN_THE_WAY:
                raise
            await self._route()  # the routing of now may be in the way
            await self._split()
        await self._route()

    async def _write_texts(self) -> dict[str, Any]:
        control, endpoint = self.control, self.endpoint
        now = await control.find(self.path, project=self.project)
        if now is None:
            body: dict[str, Any] = {"name": endpoint.name} | _describe(endpoint, {})
            body |= {name: value for name, value in _place_of(endpoint).items() if value}
            return await control.post("/endpoints", body, project=self.project)
        body = _describe(endpoint, now)
        if not compare(now, body):
            return now
        return await control.put(self.path, body, rev=now["rev"], project=self.project)

    async def _deploy_missing(self, now: dict[str, Any]) -> None:
        deployed = _read_shares(now)
        for item in self.endpoint.deployments or []:
            if item.ref not in deployed:
                with OperationBar(f"deploying {item.ref}") as watch:
                    started = await self.control.post(
                        f"{self.path}/deployments", item.body, project=self.project
                    )
                    await self.control.finish(started, watch)

    async def _split(self) -> None:
        now = await self.control.get(self.path, project=self.project)
        if _compare_split(self.endpoint, _read_shares(now)):
            split = {ref: str(share) for ref, share in self.endpoint.shares.items()}
            await self._put("split", {"split": split}, now["rev"])

    async def _route(self) -> None:
        now = await self.control.get(self.path, project=self.project)
        if compare(_routing_of(now), self.endpoint.route):
            body = _routing_of(now) | self.endpoint.route
            await self._put("routing", body, now["rev"])

    async def _put(self, what: str, body: dict[str, Any], rev: int) -> None:
        await self.control.put(f"{self.path}/{what}", body, rev=rev, project=self.project)


def _describe(endpoint: EndpointObject, now: dict[str, Any]) -> dict[str, Any]:
    """Return what an endpoint shall say of itself: what is left out stays as it is now."""
    described = {
        "description": endpoint.description,
        "max_output_tokens": endpoint.max_output_tokens,
        "display_name": endpoint.display_name,
        "labels": endpoint.labels,
    }
    defaults: dict[str, Any] = {
        "description": "",
        "max_output_tokens": 0,
        "display_name": "",
        "labels": {},
    }
    found = {
        name: now.get(name, defaults[name]) if value is None else value
        for name, value in described.items()
    }
    if endpoint.scaling is not None:
        found["scaling"] = now.get("scaling", {}) | list_given(endpoint.scaling)
    return found


def _place_of(endpoint: EndpointObject) -> dict[str, Any]:
    """Return what never changes of an endpoint, where a document says it."""
    return {"dedicated": endpoint.dedicated, "region": endpoint.region}


def _check_place(document: Document, endpoint: EndpointObject, found: dict[str, Any]) -> None:
    for name, value in _place_of(endpoint).items():
        if value is not None and value != found[name]:
            problem = f"{name}: it is there already, with {found[name]!r}"
            raise document.refuse(problem, "Make another endpoint and move its traffic there.")


def _read_shares(now: dict[str, Any] | None) -> dict[str, Decimal]:
    """Return percentages by MODEL@VERSION, as they are."""
    deployments = [] if now is None else now["deployments"]
    return {item["model"]: Decimal(str(item["percent"])) for item in deployments}


def _compare_split(
    endpoint: EndpointObject, deployed: dict[str, Decimal]
) -> tuple[Difference, ...]:
    """Return whose share is not what it shall be; what is not deployed has none at all."""
    if not endpoint.shares:
        return ()
    wanted = {ref: Decimal(0) for ref, share in deployed.items() if share} | endpoint.shares
    return tuple(
        difference._replace(field=f"share of {difference.field}")
        for difference in compare(deployed, wanted)
    )


def _list_missing(endpoint: EndpointObject, deployed: dict[str, Decimal]) -> tuple[Difference, ...]:
    """Return what is not deployed yet; shares are the rollout's."""
    missing = [ref for ref in endpoint.shares if ref not in deployed]
    return tuple(Difference(f"deployment {ref}", None, "deployed") for ref in missing)


def _routing_of(now: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = now["routing"] | {"regions": now["regions"]}
    return found

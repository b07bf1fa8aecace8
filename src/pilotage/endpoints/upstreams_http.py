"""Control-plane routes of upstreams."""

from datetime import datetime

from pydantic import Field

from pilotage.core.data_classes import INTERNAL
from pilotage.endpoints.rules import check_upstream, widens_trust
from pilotage.endpoints.types import MAX_CONNECTIONS, Provider, UpstreamSpec
from pilotage.endpoints.upstreams import UpstreamService
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, make_page

ONE = "/upstreams/{upstream}"
TRUST = "endpoints.upstream.trust"


class UpstreamChange(Body):
    """What is said of an upstream; all of it is replaced. ``secret`` is a reference, no secret.

    ``accepts`` is the closest class of data that it may see: public, internal or confidential;
    restricted where its location is local.
    """

    provider: Provider
    base_url: str
    secret: str = ""
    location: str = ""
    proxy: str = ""
    ca_file: str = ""
    max_connections: int = Field(256, ge=1, le=MAX_CONNECTIONS)
    accepts: str = INTERNAL

    def to_spec(self) -> UpstreamSpec:
        """Return it in its one written form; raise ``invalid_request``."""
        said = {name: getattr(self, name) for name in UpstreamSpec.__dataclass_fields__}
        return check_upstream(UpstreamSpec(**said))


class UpstreamBody(UpstreamChange):
    """An upstream to create."""

    name: str


class UpstreamView(RevisedView):
    """An upstream; its secret is shown as the reference that it is."""

    project_id: str
    name: str
    provider: Provider
    base_url: str
    secret: str
    location: str
    proxy: str
    ca_file: str
    max_connections: int
    accepts: str
    created_at: datetime


def upstream_routes(service: UpstreamService) -> list[Route]:
    """List the routes of upstreams."""

    async def create_upstream(call: ApiCall, body: UpstreamBody) -> UpstreamView:
        """Create an upstream: a provider's API that deployments may name."""
        spec = body.to_spec()
        if widens_trust(spec):
            await call.require(TRUST)
        async with call.write() as tx:
            return UpstreamView.of(await service.create_upstream(tx, body.name, spec))

    async def list_upstreams(call: ApiCall, limit: int = 50, after: str = "") -> Page[UpstreamView]:
        """List upstreams by name."""
        async with call.read() as tx:
            return make_page(
                await service.list_upstreams(tx, after, limit + 1), limit, UpstreamView.of, "name"
            )

    async def get_upstream(call: ApiCall, upstream: str) -> UpstreamView:
        """Show an upstream."""
        async with call.read() as tx:
            return UpstreamView.of(await service.get_upstream(tx, upstream))

    async def replace_upstream(call: ApiCall, upstream: str, body: UpstreamChange) -> UpstreamView:
        """Replace what is said of an upstream."""
        spec, expected = body.to_spec(), call.expected_rev
        async with call.read() as tx:
            before = await service.get_upstream(tx, upstream)
        if widens_trust(spec, before):
            await call.require(TRUST)
        async with call.write() as tx:
            rev = before.rev if expected is None else expected  # what was looked at is replaced
            return UpstreamView.of(await service.replace_upstream(tx, upstream, spec, rev))

    async def delete_upstream(call: ApiCall, upstream: str) -> None:
        """Delete an upstream; refused while a model of it is deployed."""
        async with call.write() as tx:
            await service.delete_upstream(tx, upstream)

    return [
        Route(
            method="POST",
            path="/upstreams",
            permission="endpoints.upstream.create",
            handler=create_upstream,
            status=201,
        ),
        Route(
            method="GET",
            path="/upstreams",
            permission="endpoints.upstream.read",
            handler=list_upstreams,
        ),
        Route(method="GET", path=ONE, permission="endpoints.upstream.read", handler=get_upstream),
        Route(
            method="PUT", path=ONE, permission="endpoints.upstream.change", handler=replace_upstream
        ),
        Route(
            method="DELETE",
            path=ONE,
            permission="endpoints.upstream.delete",
            handler=delete_upstream,
            status=204,
        ),
    ]

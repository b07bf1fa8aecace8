"""Control-plane routes of issuers of tokens."""

from datetime import datetime

from pydantic import Field

from pilotage.identity.principals_http import make_route, read_ttl
from pilotage.identity.service import IdentityService
from pilotage.identity.types import EVERYWHERE, GroupRole, IssuerSpec, Role, TokenIssuer
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.kit.db import Tx

ONE = "/issuers/{issuer}"


class GroupRoleBody(Body):
    """A role that a group gives its members: in a project, or (absent) in all."""

    group: str
    role: Role
    project: str | None = None


class IssuerChange(Body):
    """What is said of an issuer; all of it is replaced. ``url`` is what its tokens call it."""

    url: str
    audience: str
    parties: list[str] = Field(default_factory=list)
    algorithms: list[str] = Field(default_factory=lambda: ["RS256", "ES256"])
    subject_claim: str = "sub"
    groups_claim: str = "groups"
    roles: list[GroupRoleBody] = Field(default_factory=list)
    skew: str = "60s"
    max_age: str = "24h"


class IssuerBody(IssuerChange):
    """An issuer to accept tokens of."""

    name: str


class GroupRoleView(View):
    """A role that a group gives; without a project it holds in all."""

    group: str
    role: Role
    project_id: str | None


class IssuerView(RevisedView):
    """An issuer whose tokens are accepted."""

    name: str
    url: str
    audience: str
    parties: list[str]
    algorithms: list[str]
    subject_claim: str
    groups_claim: str
    roles: list[GroupRoleView]
    skew_s: float
    max_age_s: float
    created_at: datetime


def issuer_routes(service: IdentityService) -> list[Route]:
    """List the routes of issuers."""
    issuers = service.issuers

    async def read_spec(tx: Tx, body: IssuerChange) -> IssuerSpec:
        roles = []
        for item in body.roles:
            scope = EVERYWHERE
            if item.project is not None:
                scope = (await service.get_project(tx, item.project)).id
            roles.append(GroupRole(group=item.group, role=item.role, scope=scope))
        return IssuerSpec(
            url=body.url,
            audience=body.audience,
            parties=tuple(body.parties),
            algorithms=tuple(body.algorithms),
            subject_claim=body.subject_claim,
            groups_claim=body.groups_claim,
            roles=tuple(roles),
            skew_us=read_ttl(body.skew, "skew") or 0,
            max_age_us=read_ttl(body.max_age, "max_age") or 0,
        )

    async def create_issuer(call: ApiCall, body: IssuerBody) -> IssuerView:
        """Accept the tokens of an OpenID Connect issuer."""
        async with call.write() as tx:
            return _show(await issuers.create(tx, body.name, await read_spec(tx, body)))

    async def list_issuers(call: ApiCall, limit: int = 50, after: str = "") -> Page[IssuerView]:
        """List issuers by name."""
        async with call.read() as tx:
            return make_page(await issuers.list(tx, after, limit + 1), limit, _show, "name")

    async def get_issuer(call: ApiCall, issuer: str) -> IssuerView:
        """Show an issuer."""
        async with call.read() as tx:
            return _show(await issuers.get(tx, issuer))

    async def replace_issuer(call: ApiCall, issuer: str, body: IssuerChange) -> IssuerView:
        """Replace what is said of an issuer."""
        async with call.write() as tx:
            spec = await read_spec(tx, body)
            return _show(await issuers.replace(tx, issuer, spec, call.expected_rev))

    async def delete_issuer(call: ApiCall, issuer: str) -> None:
        """Accept an issuer's tokens no more, and end the roles that its groups gave."""
        async with call.write() as tx:
            await issuers.delete(tx, issuer)

    read = "identity.issuers.read"
    return [
        make_route("POST", "/issuers", "identity.issuers.create", create_issuer, 201),
        make_route("GET", "/issuers", read, list_issuers),
        make_route("GET", ONE, read, get_issuer),
        make_route("PUT", ONE, "identity.issuers.change", replace_issuer),
        make_route("DELETE", ONE, "identity.issuers.delete", delete_issuer, 204),
    ]


def _show(issuer: TokenIssuer) -> IssuerView:
    roles = [
        GroupRoleView(group=item.group, role=item.role, project_id=item.scope or None)
        for item in issuer.roles
    ]
    return IssuerView.of(
        issuer,
        parties=list(issuer.parties),
        algorithms=list(issuer.algorithms),
        roles=roles,
        skew_s=issuer.skew_us / 1e6,
        max_age_s=issuer.max_age_us / 1e6,
    )

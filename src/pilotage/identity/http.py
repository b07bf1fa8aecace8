"""Control-plane routes of identity."""

from datetime import datetime
from decimal import Decimal

from pydantic import Field

from pilotage.core.key_scopes import KeyScope
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.identity.access_http import access_routes
from pilotage.identity.issuers_http import issuer_routes
from pilotage.identity.principals_http import principal_routes, read_overlap, read_ttl
from pilotage.identity.rules import assess_key
from pilotage.identity.service import IdentityService, NewKey
from pilotage.identity.types import ApiKey, DataClass, KeyState, Tenant, TenantSettings
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, make_page
from pilotage.kit.clock import Clock


class ProjectBody(Body):
    """A project to create."""

    name: str


class ProjectView(RevisedView):
    """A project."""

    name: str
    created_at: datetime


class TenantChange(Body):
    """What holds for a tenant's calls; all of it is replaced. Percentages have two decimals."""

    time_zone: str = "UTC"
    regions: list[str] = Field(default_factory=list)
    features: list[str] = Field(default_factory=list)
    data_class: DataClass = DataClass.INTERNAL
    shows: bool = True
    log_percent: Decimal = Field(Decimal(0), ge=0, le=100, decimal_places=2)
    measure_percent: Decimal = Field(Decimal(0), ge=0, le=100, decimal_places=2)
    sample_percent: Decimal = Field(Decimal(0), ge=0, le=100, decimal_places=2)
    keeps_comments: bool = False

    def to_settings(self) -> TenantSettings:
        """Return it as the service takes it."""
        return TenantSettings(
            time_zone=self.time_zone,
            regions=tuple(self.regions),
            features=tuple(self.features),
            data_class=self.data_class,
            shows=self.shows,
            log_share=int(self.log_percent * (FULL_WEIGHT // 100)),
            measure_share=int(self.measure_percent * (FULL_WEIGHT // 100)),
            sample_share=int(self.sample_percent * (FULL_WEIGHT // 100)),
            keeps_comments=self.keeps_comments,
        )


class TenantBody(TenantChange):
    """A tenant to create."""

    name: str


class TenantView(RevisedView):
    """A tenant."""

    name: str
    project_id: str
    time_zone: str
    regions: list[str]
    features: list[str]
    data_class: DataClass
    shows: bool
    log_percent: float
    measure_percent: float
    sample_percent: float
    keeps_comments: bool
    created_at: datetime


class KeyBody(Body):
    """A key to create: whose, its name, and how long it lives (``30d``; absent: until revoked).

    ``may_name_users`` trusts its holder to say on whose behalf a call is made. ``aliases`` and
    ``operations`` say what it is for; without them it is for all.
    """

    tenant: str = "default"
    name: str = "key"
    expires_in: str | None = None
    may_name_users: bool = False
    aliases: list[str] = Field(default_factory=list)
    operations: list[str] = Field(default_factory=list)


class KeyRotation(Body):
    """How long the old key goes on being accepted, and how long the new one lives."""

    overlap: str = "24h"
    expires_in: str | None = None


class KeyView(RevisedView):
    """A key, without its text."""

    tenant_id: str
    name: str
    hint: str
    state: KeyState
    may_name_users: bool
    aliases: list[str]
    operations: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKeyView(KeyView):
    """A key just made; ``secret`` is its text and is never shown again."""

    secret: str | None


def identity_routes(service: IdentityService, clock: Clock) -> list[Route]:
    """List the routes of identity."""
    return [
        *_project_routes(service),
        *_tenant_routes(service),
        *_key_routes(service, clock),
        *principal_routes(service),
        *issuer_routes(service),
        *access_routes(service),
    ]


def _project_routes(service: IdentityService) -> list[Route]:
    async def create_project(call: ApiCall, body: ProjectBody) -> ProjectView:
        """Create a project."""
        async with call.write() as tx:
            return ProjectView.of(await service.create_project(tx, body.name))

    async def list_projects(call: ApiCall, limit: int = 50, after: str = "") -> Page[ProjectView]:
        """List the projects in which the caller has a role, by name."""
        async with call.read() as tx:
            return make_page(
                await service.list_own_projects(tx, call.actor.principal_id, after, limit + 1),
                limit,
                ProjectView.of,
                "name",
            )

    async def get_project(call: ApiCall, project_name: str) -> ProjectView:
        """Show a project."""
        async with call.read() as tx:
            return ProjectView.of(
                await service.find_own_project(tx, call.actor.principal_id, project_name)
            )

    return [
        Route(
            method="POST",
            path="/projects",
            permission="identity.projects.create",
            handler=create_project,
            status=201,
            is_global=True,
        ),
        Route(
            method="GET",
            path="/projects",
            permission="identity.projects.read",
            handler=list_projects,
            is_global=True,
        ),
        Route(
            method="GET",
            path="/projects/{project_name}",
            permission="identity.projects.read",
            handler=get_project,
            is_global=True,
        ),
    ]


def _tenant_routes(service: IdentityService) -> list[Route]:
    def show(tenant: Tenant) -> TenantView:
        return TenantView.of(
            tenant,
            log_percent=tenant.log_share * 100 / FULL_WEIGHT,
            measure_percent=tenant.measure_share * 100 / FULL_WEIGHT,
            sample_percent=tenant.sample_share * 100 / FULL_WEIGHT,
        )

    async def create_tenant(call: ApiCall, body: TenantBody) -> TenantView:
        """Create a tenant."""
        async with call.write() as tx:
            return show(await service.create_tenant(tx, body.name, body.to_settings()))

    async def list_tenants(call: ApiCall, limit: int = 50, after: str = "") -> Page[TenantView]:
        """List tenants by name."""
        async with call.read() as tx:
            return make_page(await service.list_tenants(tx, after, limit + 1), limit, show, "name")

    async def get_tenant(call: ApiCall, tenant: str) -> TenantView:
        """Show a tenant."""
        async with call.read() as tx:
            return show(await service.get_tenant(tx, tenant))

    async def change_tenant(call: ApiCall, tenant: str, body: TenantChange) -> TenantView:
        """Replace a tenant's settings."""
        async with call.write() as tx:
            return show(
                await service.change_tenant(tx, tenant, body.to_settings(), call.expected_rev)
            )

    async def delete_tenant(call: ApiCall, tenant: str) -> None:
        """Delete a tenant and revoke its keys."""
        async with call.write() as tx:
            await service.delete_tenant(tx, tenant)

    return [
        Route(
            method="POST",
            path="/tenants",
            permission="identity.tenants.create",
            handler=create_tenant,
            status=201,
        ),
        Route(
            method="GET", path="/tenants", permission="identity.tenants.read", handler=list_tenants
        ),
        Route(
            method="GET",
            path="/tenants/{tenant}",
            permission="identity.tenants.read",
            handler=get_tenant,
        ),
        Route(
            method="PUT",
            path="/tenants/{tenant}",
            permission="identity.tenants.change",
            handler=change_tenant,
        ),
        Route(
            method="DELETE",
            path="/tenants/{tenant}",
            permission="identity.tenants.delete",
            handler=delete_tenant,
            status=204,
        ),
    ]


def _key_routes(service: IdentityService, clock: Clock) -> list[Route]:
    def show(key: ApiKey) -> KeyView:
        return KeyView.of(key, state=assess_key(key, clock.now_us()), **_bounds(key))

    def show_new(made: NewKey) -> NewKeyView:
        bounds = _bounds(made.key)
        return NewKeyView.of(made.key, state=KeyState.ACTIVE, secret=made.secret, **bounds)

    async def create_key(call: ApiCall, body: KeyBody) -> NewKeyView:
        """Create an API key; its text is in this reply only."""
        scope = KeyScope(tuple(body.aliases), tuple(body.operations))
        async with call.write() as tx:
            made = await service.create_key(
                tx,
                body.tenant,
                body.name,
                read_ttl(body.expires_in, "expires_in"),
                may_name_users=body.may_name_users,
                scope=scope,
            )
        return show_new(made)

    async def rotate_key(call: ApiCall, key: str, body: KeyRotation) -> NewKeyView:
        """Make another key like this one, which ends when the overlap is over."""
        overlap_us = read_overlap(body.overlap)
        async with call.write() as tx:
            made = await service.rotate_key(
                tx, key, overlap_us, read_ttl(body.expires_in, "expires_in")
            )
        return show_new(made)

    async def list_keys(
        call: ApiCall, tenant: str | None = None, limit: int = 50, after: str = ""
    ) -> Page[KeyView]:
        """List keys, oldest first."""
        async with call.read() as tx:
            return make_page(
                await service.list_keys(tx, tenant, after, limit + 1), limit, show, "id"
            )

    async def get_key(call: ApiCall, key: str) -> KeyView:
        """Show a key."""
        async with call.read() as tx:
            return show(await service.get_key(tx, key))

    async def revoke_key(call: ApiCall, key: str) -> KeyView:
        """Revoke a key for ever."""
        async with call.write() as tx:
            return show(await service.revoke_key(tx, key))

    return [
        Route(
            method="POST",
            path="/keys",
            permission="identity.keys.create",
            handler=create_key,
            status=201,
            secrets=("secret",),
        ),
        Route(
            method="POST",
            path="/keys/{key}:rotate",
            permission="identity.keys.rotate",
            handler=rotate_key,
            status=201,
            secrets=("secret",),
        ),
        Route(method="GET", path="/keys", permission="identity.keys.read", handler=list_keys),
        Route(method="GET", path="/keys/{key}", permission="identity.keys.read", handler=get_key),
        Route(
            method="POST",
            path="/keys/{key}:revoke",
            permission="identity.keys.revoke",
            handler=revoke_key,
        ),
    ]


def _bounds(key: ApiKey) -> dict[str, list[str]]:
    return {"aliases": list(key.scope.aliases), "operations": list(key.scope.operations)}

"""Control-plane routes of principals, their roles and their credentials."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from pydantic import Field

from pilotage.core.duration import parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.identity.principals import NewCredential, Principals
from pilotage.identity.service import IdentityService
from pilotage.identity.types import (
    EVERYWHERE,
    Binding,
    Credential,
    Principal,
    PrincipalKind,
    Profile,
    Role,
)
from pilotage.kit.api import ApiCall, Body, Method, Page, RevisedView, Route, View, make_page
from pilotage.kit.db import Tx

ONE = "/principals/{principal}"
CREDENTIAL = "/credentials/{credential}"


class PrincipalChange(Body):
    """What is known of a person; all of it is replaced."""

    display_name: str = ""
    email: str = ""


class PrincipalBody(PrincipalChange):
    """A user or a service account to create; gateways have routes of their own."""

    name: str
    kind: PrincipalKind = PrincipalKind.USER


class PrincipalView(RevisedView):
    """A principal."""

    kind: PrincipalKind
    name: str
    display_name: str
    email: str
    subject: str | None
    created_at: datetime
    disabled_at: datetime | None
    last_seen_at: datetime | None


class BindingBody(Body):
    """A role to give: to whom, in which project (absent: in all), for how long (``90d``)."""

    principal: str
    role: Role
    project: str | None = None
    expires_in: str | None = None


class BindingView(RevisedView):
    """A role of a principal; without a project it holds in all. ``source`` is an issuer's name."""

    principal_id: str
    role: Role
    project_id: str | None
    source: str
    granted_by: str
    granted_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None


class CredentialBody(Body):
    """A credential to make: how long it lives (``90d``; absent: until revoked)."""

    expires_in: str | None = None


class RotationBody(CredentialBody):
    """How long the old one goes on being accepted beside the new one."""

    overlap: str = "24h"


class CredentialView(RevisedView):
    """A credential, without its text."""

    principal_id: str
    hint: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewCredentialView(CredentialView):
    """A credential just made; ``secret`` is its text and is never shown again."""

    secret: str | None


class RoleView(View):
    """A role of the caller; without a project it holds in all."""

    role: Role
    project_id: str | None


class SelfView(RevisedView):
    """Who the caller is, and what for."""

    kind: PrincipalKind
    name: str
    roles: list[RoleView] = Field(default_factory=list)


def principal_routes(service: IdentityService) -> list[Route]:
    """List the routes of principals."""
    return [
        *_principal_routes(service.principals),
        *_binding_routes(service),
        *_credential_routes(service.principals),
        *_self_routes(service.principals),
    ]


def _principal_routes(service: Principals) -> list[Route]:
    async def show(tx: Tx, principal: Principal) -> PrincipalView:
        profile = await service.get_profile(tx, principal.id)
        return PrincipalView.of(principal, display_name=profile.display_name, email=profile.email)

    async def create_principal(call: ApiCall, body: PrincipalBody) -> PrincipalView:
        """Create a user or a service account, without roles and credentials."""
        if body.kind is PrincipalKind.GATEWAY:
            raise PilotageError(
                "invalid_request",
                "A gateway is created with its credential.",
                hint="Run: pilotage gateways create NAME",
                param="kind",
            )
        profile = Profile(display_name=body.display_name, email=body.email)
        async with call.write() as tx:
            return await show(tx, await service.create(tx, body.kind, body.name, profile))

    async def list_principals(
        call: ApiCall, limit: int = 50, after: str = ""
    ) -> Page[PrincipalView]:
        """List principals by name, disabled ones too."""
        async with call.read() as tx:
            shown = [await show(tx, item) for item in await service.list(tx, after, limit + 1)]
        return make_page(shown, limit, lambda item: item, "name")

    async def get_principal(call: ApiCall, principal: str) -> PrincipalView:
        """Show a principal."""
        async with call.read() as tx:
            return await show(tx, await service.get(tx, principal))

    async def change_principal(
        call: ApiCall, principal: str, body: PrincipalChange
    ) -> PrincipalView:
        """Replace what is known of a person: name and e-mail; empty ones erase them."""
        profile = Profile(display_name=body.display_name, email=body.email)
        async with call.write() as tx:
            changed = await service.put_profile(tx, principal, profile, call.expected_rev)
            return await show(tx, changed)

    async def disable_principal(call: ApiCall, principal: str) -> PrincipalView:
        """Let a principal do nothing any more, until it is enabled."""
        async with call.write() as tx:
            return await show(tx, await service.disable(tx, principal))

    async def enable_principal(call: ApiCall, principal: str) -> PrincipalView:
        """Let a disabled principal act again."""
        async with call.write() as tx:
            return await show(tx, await service.enable(tx, principal))

    read, change = "identity.principals.read", "identity.principals.change"
    return [
        make_route("POST", "/principals", "identity.principals.create", create_principal, 201),
        make_route("GET", "/principals", read, list_principals),
        make_route("GET", ONE, read, get_principal),
        make_route("PUT", ONE, change, change_principal),
        make_route("POST", f"{ONE}:disable", "identity.principals.disable", disable_principal),
        make_route("POST", f"{ONE}:enable", "identity.principals.enable", enable_principal),
    ]


def _binding_routes(service: IdentityService) -> list[Route]:
    def show(binding: Binding) -> BindingView:
        return BindingView.of(binding, project_id=binding.scope or None)

    async def grant_role(call: ApiCall, body: BindingBody) -> BindingView:
        """Give a principal a role; nobody may give one to themselves."""
        async with call.write() as tx:
            scope = EVERYWHERE
            if body.project is not None:
                scope = (await service.get_project(tx, body.project)).id
            ttl_us = read_ttl(body.expires_in, "expires_in")
            given = await service.principals.grant(
                tx, body.principal, body.role, scope=scope, ttl_us=ttl_us
            )
            return show(given)

    async def list_role_bindings(
        call: ApiCall, principal: str | None = None, limit: int = 50, after: str = ""
    ) -> Page[BindingView]:
        """List roles of principals, oldest first, ended ones too."""
        async with call.read() as tx:
            found = await service.principals.list_bindings(tx, principal, after, limit + 1)
            return make_page(found, limit, show, "id")

    async def end_role_binding(call: ApiCall, binding: str) -> BindingView:
        """Take a role away."""
        async with call.write() as tx:
            return show(await service.principals.end_binding(tx, binding))

    end = "/role-bindings/{binding}:end"
    return [
        make_route("POST", "/role-bindings", "identity.roles.grant", grant_role, 201),
        make_route("GET", "/role-bindings", "identity.roles.read", list_role_bindings),
        make_route("POST", end, "identity.roles.end", end_role_binding),
    ]


def _credential_routes(service: Principals) -> list[Route]:
    async def create_credential(
        call: ApiCall, principal: str, body: CredentialBody
    ) -> NewCredentialView:
        """Make a credential of a principal; its text is in this reply only."""
        ttl_us = read_ttl(body.expires_in, "expires_in")
        async with call.write() as tx:
            return _show_new(await service.issue(tx, principal, ttl_us))

    async def list_credentials(
        call: ApiCall, principal: str | None = None, limit: int = 50, after: str = ""
    ) -> Page[CredentialView]:
        """List credentials, oldest first; their texts are kept nowhere."""
        async with call.read() as tx:
            found = await service.list_credentials(tx, principal, after, limit + 1)
            return make_page(found, limit, _show_credential, "id")

    async def rotate_credential(
        call: ApiCall, credential: str, body: RotationBody
    ) -> NewCredentialView:
        """Make another credential of the same principal; this one ends after the overlap."""
        overlap_us, ttl_us = _read_overlap(body), read_ttl(body.expires_in, "expires_in")
        async with call.write() as tx:
            return _show_new(await service.rotate(tx, credential, overlap_us, ttl_us))

    async def revoke_credential(call: ApiCall, credential: str) -> CredentialView:
        """Refuse a credential for ever."""
        async with call.write() as tx:
            return _show_credential(await service.revoke_credential(tx, credential))

    create, rotate = "identity.credentials.create", "identity.credentials.rotate"
    return [
        make_route("POST", f"{ONE}/credentials", create, create_credential, 201, ("secret",)),
        make_route("GET", "/credentials", "identity.credentials.read", list_credentials),
        make_route("POST", f"{CREDENTIAL}:rotate", rotate, rotate_credential, 201, ("secret",)),
        make_route(
            "POST", f"{CREDENTIAL}:revoke", "identity.credentials.revoke", revoke_credential
        ),
    ]


def _self_routes(service: Principals) -> list[Route]:
    async def get_self(call: ApiCall) -> SelfView:
        """Show who the caller is, and the roles the caller has now."""
        async with call.read() as tx:
            me = await service.get(tx, call.actor.principal_id)
            scopes = await service.scopes_of(tx, me.id)
        roles = [
            RoleView(role=role, project_id=scope or None)
            for scope in sorted(scopes)
            for role in sorted(scopes[scope])
        ]
        return SelfView.of(me, roles=roles)

    async def rotate_own_credential(
        call: ApiCall, own: str, body: RotationBody
    ) -> NewCredentialView:
        """Make another credential of the caller's own; this one ends after the overlap.

        It cannot live longer than this one was made for.
        """
        overlap_us, ttl_us = _read_overlap(body), read_ttl(body.expires_in, "expires_in")
        async with call.write() as tx:
            return _show_new(await service.rotate_own(tx, own, overlap_us, ttl_us))

    rotate = "/me/credentials/{own}:rotate"
    return [
        make_route("GET", "/me", "identity.self.read", get_self),
        make_route("POST", rotate, "identity.self.rotate", rotate_own_credential, 201, ("secret",)),
    ]


def make_route(
    method: Method,
    path: str,
    permission: str,
    handler: Callable[..., Awaitable[object]],
    status: int = 200,
    secrets: tuple[str, ...] = (),
) -> Route:
    """Return a route on the whole installation, which principals belong to."""
    return Route(
        method=method,
        path=path,
        permission=permission,
        handler=handler,
        status=status,
        is_global=True,
        secrets=secrets,
    )


def _show_credential(credential: Credential) -> CredentialView:
    return CredentialView.of(credential)


def _show_new(made: NewCredential) -> NewCredentialView:
    return NewCredentialView.of(made.credential, secret=made.secret)


def _read_overlap(body: RotationBody) -> int:
    return read_overlap(body.overlap)


def read_overlap(text: str) -> int:
    """Return an overlap in microseconds; ``0`` is none."""
    return 0 if text == "0" else read_ttl(text, "overlap") or 0


def read_ttl(text: str | None, param: str) -> int | None:
    """Return a duration in microseconds, None for none; raise ``invalid_request``."""
    if text is None:
        return None
    try:
        return parse_duration_us(text)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"{param}: {wrong}.", param=param) from None

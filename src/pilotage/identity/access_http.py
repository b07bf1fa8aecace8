"""Control-plane routes of the access review."""

from datetime import datetime

from pilotage.identity.access import Access, KeyAccess, Remark
from pilotage.identity.service import IdentityService
from pilotage.identity.types import EVERYWHERE, PrincipalKind, Role
from pilotage.kit.api import ApiCall, RevisedView, Route, View


class HeldRoleView(View):
    """A role somebody has: where, since when, from whom and until when."""

    id: str
    role: Role
    project: str | None
    granted_by: str
    granted_at: datetime
    expires_at: datetime | None


class HeldCredentialView(View):
    """A credential that is accepted."""

    id: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


class AccessView(View):
    """One principal that may act, and what should be looked at of it."""

    id: str
    name: str
    display_name: str
    kind: PrincipalKind
    last_seen_at: datetime | None
    roles: list[HeldRoleView]
    credentials: list[HeldCredentialView]
    remarks: list[Remark]


class KeyAccessView(View):
    """One API key that is accepted, and what should be looked at of it."""

    id: str
    name: str
    tenant_id: str
    project_id: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    aliases: list[str]
    operations: list[str]
    remarks: list[Remark]


class ReviewView(View):
    """Everything that is open at a moment."""

    at: datetime
    principals: list[AccessView]
    keys: list[KeyAccessView]


class MadeKeyView(View):
    """An API key that somebody made, and so knows the text of."""

    id: str
    name: str
    tenant_id: str
    project_id: str


class RevokedView(RevisedView):
    """A principal that may do nothing any more, and the keys made by it that are still accepted."""

    name: str
    disabled_at: datetime | None
    keys: list[MadeKeyView]


def access_routes(service: IdentityService) -> list[Route]:
    """List the routes of the access review."""

    async def review_access(call: ApiCall) -> ReviewView:
        """Show who may do what and where, which keys are accepted, and what to look at."""
        async with call.read() as tx:
            review = await service.access.review(tx)
            names = {item.id: item.name for item in await service.list_projects(tx)}
            people = {item.id: item.name for item in await service.principals.list(tx)}
            profiles = {
                item.principal.id: await service.principals.get_profile(tx, item.principal.id)
                for item in review.principals
            }
        shown = [
            _show(item, profiles[item.principal.id].display_name, names, people)
            for item in review.principals
        ]
        keys = [_show_key(item, people) for item in review.keys]
        return ReviewView.of(review, principals=shown, keys=keys)

    async def revoke_access(call: ApiCall, principal: str) -> RevokedView:
        """Take everything away from a principal at once: it, its credentials and its roles.

        The API keys that it made stay, and are named.
        """
        async with call.write() as tx:
            revoked = await service.access.revoke(tx, principal)
        keys = [MadeKeyView.of(key) for key in revoked.keys]
        return RevokedView.of(revoked.principal, keys=keys)

    return [
        Route(
            method="GET",
            path="/identity/access-review",
            permission="identity.access.read",
            handler=review_access,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/principals/{principal}:revoke-access",
            permission="identity.access.revoke",
            handler=revoke_access,
            is_global=True,
        ),
    ]


def _show(
    item: Access, display_name: str, projects: dict[str, str], people: dict[str, str]
) -> AccessView:
    roles = [
        HeldRoleView.of(
            role,
            project=None if role.scope == EVERYWHERE else projects.get(role.scope, role.scope),
            granted_by=role.source or people.get(role.granted_by, role.granted_by),
        )
        for role in item.roles
    ]
    credentials = [
        HeldCredentialView.of(held, created_by=people.get(held.created_by, held.created_by))
        for held in item.credentials
    ]
    return AccessView.of(
        item.principal,
        display_name=display_name,
        roles=roles,
        credentials=credentials,
        remarks=list(item.remarks),
    )


def _show_key(item: KeyAccess, people: dict[str, str]) -> KeyAccessView:
    key = item.key
    return KeyAccessView.of(
        key,
        created_by=people.get(item.created_by, item.created_by),
        aliases=list(key.scope.aliases),
        operations=list(key.scope.operations),
        remarks=list(item.remarks),
    )

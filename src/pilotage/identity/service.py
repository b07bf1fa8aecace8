"""The verbs of identity. Never commits: whoever opened the transaction does."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pilotage.core.errors import PilotageError
from pilotage.core.key_scopes import UNBOUNDED, KeyScope
from pilotage.core.names import NO_TENANT, SHADOW_TENANT, check_name
from pilotage.identity import store
from pilotage.identity.access import AccessReview
from pilotage.identity.issuers import Issuers
from pilotage.identity.matrix import ANYWHERE
from pilotage.identity.principals import Principals
from pilotage.identity.rules import assess_key, check_scope, check_tenant, is_allowed
from pilotage.identity.signing_keys import Fetch
from pilotage.identity.tokens import Tokens, is_token
from pilotage.identity.types import (
    API_KEY_PREFIX,
    DEFAULT,
    EVERYWHERE,
    ApiKey,
    KeyState,
    Principal,
    PrincipalKind,
    Project,
    Role,
    Tenant,
    TenantSettings,
)
from pilotage.kit.clock import Clock
from pilotage.kit.crypto import digest_secret, make_secret
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import append_revision

FOREVER_PAGE = 1_000_000


async def nobody_asks(url: str) -> Any:  # noqa: ANN401 - JSON of any kind
    """Fetch nothing: an identity without a way out accepts no tokens."""
    raise PilotageError("unavailable", f"{url} cannot be asked from here.")


class NewKey(NamedTuple):
    """A key and its text, which is shown this once."""

    key: ApiKey
    secret: str


class NewGateway(NamedTuple):
    """The principal of a gateway and its credential, which is shown this once."""

    gateway: Principal
    secret: str


class Bootstrap(NamedTuple):
    """What the first start makes: an administrator's credential and a default tenant's key."""

    admin_credential: str
    api_key: str


class IdentityService:
    """Projects, tenants, keys and principals."""

    def __init__(self, clock: Clock, fetch: Fetch = nobody_asks) -> None:
        self._clock = clock
        self.principals = Principals(clock)
        self.issuers = Issuers(clock, self.principals)
        self.access = AccessReview(self.principals)
        self._tokens = Tokens(clock, self.principals, fetch)

    # projects

    async def create_project(self, tx: Tx, name: str) -> Project:
        """Create a project; raise ``already_exists`` if the name is taken."""
        check_name(name)
        if await store.find_project(tx, name):
            raise PilotageError(
                "already_exists", f"There is a project {name!r} already.", param="name"
            )
        project = Project(id=self._clock.new_id("prj"), rev=1, name=name, created_at_us=tx.now_us)
        await store.insert_project(tx, project)
        await append_revision(tx, "identity.project.created", project.id, 1, project)
        return project

    async def get_project(self, tx: Tx, name_or_id: str) -> Project:
        """Return a project by name or id; raise ``not_found``."""
        project = await store.find_project(tx, name_or_id)
        if project is None:
            raise _no_project(name_or_id)
        return project

    async def find_own_project(self, tx: Tx, principal_id: str, name_or_id: str) -> Project:
        """Return a project in which somebody has a role.

        Raise ``not_found`` for any other, whether or not there is one of that name.
        """
        scopes = await self.principals.scopes_of(tx, principal_id)
        project = await store.find_project(tx, name_or_id)
        if project is None or not (EVERYWHERE in scopes or project.id in scopes):
            raise _no_project(name_or_id)
        return project

    async def list_own_projects(
        self, tx: Tx, principal_id: str, after: str = "", limit: int = FOREVER_PAGE
    ) -> Sequence[Project]:
        """Return the projects in which somebody has a role, in order of their names."""
        scopes = await self.principals.scopes_of(tx, principal_id)
        only = None if EVERYWHERE in scopes else list(scopes)
        return await store.list_projects(tx, after, limit, only)

    async def list_projects(
        self, tx: Tx, after: str = "", limit: int = FOREVER_PAGE
    ) -> Sequence[Project]:
        """Return projects in order of their names."""
        return await store.list_projects(tx, after, limit)

    # tenants

    async def create_tenant(
        self, tx: Tx, name: str, settings: TenantSettings | None = None
    ) -> Tenant:
        """Create a tenant in the transaction's project.

        Raise ``already_exists`` if the name is taken, ``invalid_request`` for settings that cannot
        be and for a name that says something else.
        """
        if check_name(name) in {NO_TENANT, SHADOW_TENANT}:
            raise PilotageError(
                "invalid_request",
                f"{name!r} is how costs are asked for that belong to no tenant.",
                hint="Choose another name.",
                param="name",
            )
        checked = _check_settings(settings or TenantSettings())
        if await store.find_tenant(tx, name):
            raise PilotageError(
                "already_exists", f"There is a tenant {name!r} already.", param="name"
            )
        tenant = Tenant(
            id=self._clock.new_id("ten"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            created_at_us=tx.now_us,
            deleted_at_us=None,
            **_settings(checked),
        )
        await store.insert_tenant(tx, tenant)
        await append_revision(tx, "identity.tenant.created", tenant.id, 1, tenant)
        return tenant

    async def get_tenant(self, tx: Tx, name_or_id: str) -> Tenant:
        """Return a living tenant by name or id; raise ``not_found``."""
        tenant = await store.find_tenant(tx, name_or_id)
        if tenant is None or tenant.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no tenant {name_or_id!r}.",
                hint="List them: pilotage tenants list",
                param="tenant",
            )
        return tenant

    async def find_payer_id(self, tx: Tx, tenant: str) -> str:
        """Return the tenant's id that calls and costs have; raise ``not_found``.

        ``tenant`` is a name, the id of a tenant that may be deleted, ``shadow`` for copies of
        calls, or ``none`` for what belongs to no tenant, whose id is "".
        """
        if tenant == NO_TENANT:
            return ""
        if tenant == SHADOW_TENANT or tenant.startswith("ten_"):
            return tenant
        return (await self.get_tenant(tx, tenant)).id

    async def list_tenants(
        self, tx: Tx, after: str = "", limit: int = FOREVER_PAGE
    ) -> Sequence[Tenant]:
        """Return living tenants in order of their names."""
        return await store.list_tenants(tx, after, limit)

    async def change_tenant(
        self, tx: Tx, name_or_id: str, settings: TenantSettings, expected_rev: int | None = None
    ) -> Tenant:
        """Replace a tenant's settings."""
        tenant = await self.get_tenant(tx, name_or_id)
        if expected_rev is not None and expected_rev != tenant.rev:
            raise _changed(tenant)
        after, before = _settings(_check_settings(settings)), _settings(tenant)
        if after == before:
            return tenant
        if not await store.change_tenant(tx, tenant, TenantSettings(**after)):
            raise _changed(tenant)
        await append_revision(
            tx, "identity.tenant.changed", tenant.id, tenant.rev + 1, after, before
        )
        return await self.get_tenant(tx, tenant.id)

    async def delete_tenant(self, tx: Tx, name_or_id: str) -> None:
        """Delete a tenant and revoke its keys; its id lives on in the ledger."""
        tenant = await self.get_tenant(tx, name_or_id)
        for key in await store.list_keys(tx, tenant.id, "", FOREVER_PAGE):
            if key.revoked_at_us is None:
                await self.revoke_key(tx, key.id)
        if not await store.mark_tenant_deleted(tx, tenant, f"{tenant.name}~{tenant.id}"):
            raise _changed(tenant)
        await append_revision(
            tx,
            "identity.tenant.deleted",
            tenant.id,
            tenant.rev + 1,
            {"id": tenant.id, "name": tenant.name},
        )

    # keys

    async def create_key(
        self,
        tx: Tx,
        tenant: str,
        name: str,
        ttl_us: int | None = None,
        *,
        may_name_users: bool = False,
        scope: KeyScope = UNBOUNDED,
    ) -> NewKey:
        """Create an API key of a tenant, living ``ttl_us`` microseconds (None: until revoked)."""
        check_scope(scope)
        owner = await self.get_tenant(tx, tenant)
        if ttl_us is not None and ttl_us <= 0:
            raise PilotageError(
                "invalid_request", "A key must live for some time.", param="expires_in"
            )
        secret = make_secret(API_KEY_PREFIX)
        key = ApiKey(
            id=self._clock.new_id("key"),
            rev=1,
            project_id=owner.project_id,
            tenant_id=owner.id,
            name=check_name(name),
            digest=digest_secret(secret),
            hint=secret[-4:],
            created_at_us=tx.now_us,
            expires_at_us=None if ttl_us is None else tx.now_us + ttl_us,
            revoked_at_us=None,
            may_name_users=may_name_users,
            scope=scope,
            scope_number=await store.number_scope(tx, scope),
        )
        seq = await append_revision(tx, "identity.key.created", key.id, 1, _public(key))
        await store.insert_key(tx, key, seq)
        return NewKey(key, secret)

    async def get_key(self, tx: Tx, key_id: str) -> ApiKey:
        """Return a key by id; raise ``not_found``."""
        key = await store.find_key(tx, key_id)
        if key is None:
            raise PilotageError(
                "not_found", f"There is no key {key_id!r}.", hint="List them: pilotage keys list"
            )
        return key

    async def list_keys(
        self, tx: Tx, tenant: str | None = None, after: str = "", limit: int = FOREVER_PAGE
    ) -> Sequence[ApiKey]:
        """Return the keys of a tenant, or of the whole project, oldest first."""
        owner = await self.get_tenant(tx, tenant) if tenant else None
        return await store.list_keys(tx, owner.id if owner else None, after, limit)

    async def revoke_key(self, tx: Tx, key_id: str) -> ApiKey:
        """Revoke a key for ever; revoking a revoked key changes nothing."""
        key = await self.get_key(tx, key_id)
        if key.revoked_at_us is not None:
            return key
        seq = await append_revision(
            tx, "identity.key.revoked", key.id, key.rev + 1, _public(key) | {"revoked": True}
        )
        if not await store.mark_key_revoked(tx, key, seq):
            raise PilotageError("precondition_failed", f"Key {key_id} has changed meanwhile.")
        return await self.get_key(tx, key_id)

    async def rotate_key(
        self, tx: Tx, key_id: str, overlap_us: int, ttl_us: int | None = None
    ) -> NewKey:
        """Make another key with the settings of this one, which ends when the overlap is over.

        The other lives as long as this one was made for, unless ``ttl_us`` says how long.
        """
        key = await self.get_key(tx, key_id)
        if assess_key(key, tx.now_us) is not KeyState.ACTIVE:
            raise PilotageError("conflict", f"The key {key_id} has ended already.")
        if ttl_us is None and key.expires_at_us is not None:
            ttl_us = key.expires_at_us - key.created_at_us
        made = await self.create_key(
            tx,
            key.tenant_id,
            key.name,
            ttl_us,
            may_name_users=key.may_name_users,
            scope=key.scope,
        )
        ends_us = tx.now_us + overlap_us
        if key.expires_at_us is None or ends_us < key.expires_at_us:
            after = _public(key) | {"rev": key.rev + 1, "expires_at_us": ends_us}
            seq = await append_revision(
                tx, "identity.key.rotated", key.id, key.rev + 1, after, _public(key)
            )
            if not await store.end_key(tx, key, ends_us, seq):
                raise PilotageError("precondition_failed", f"Key {key_id} has changed meanwhile.")
        return made

    async def list_scopes(self, tx: Tx) -> dict[int, KeyScope]:
        """Return every scope of keys by its number, for the Snapshot."""
        return await store.list_scopes(tx)

    async def list_changed_keys(self, tx: Tx, after_seq: int) -> Sequence[ApiKey]:
        """Return every key made or revoked after a revision, for the Snapshot."""
        return await store.list_changed_keys(tx, after_seq)

    # principals

    async def authenticate(self, tx: Tx, credential: str) -> Principal:
        """Return whose credential it is; raise ``invalid_credential``."""
        principal, _ = await self.principals.authenticate(tx, credential)
        return principal

    async def admit(self, db: Database, secret: str) -> Principal:
        """Return whose credential or token it is; raise ``invalid_credential``."""
        if is_token(secret):
            principal = await self._tokens.authenticate(db, secret)
            self.principals.note_seen(principal)
            return principal
        async with db.read(SYSTEM) as tx:
            principal, credential = await self.principals.authenticate(tx, secret)
        self.principals.note_seen(principal, credential)
        return principal

    async def check_credential(self, tx: Tx, secret: str) -> None:
        """Raise ``invalid_credential`` unless what was admitted would be accepted now.

        A token was true when the request came; whose it is may be disabled since.
        """
        if not is_token(secret):
            await self.principals.authenticate(tx, secret)

    async def get_principal(self, tx: Tx, name_or_id: str) -> Principal:
        """Return a principal by name or id, a disabled one too; raise ``not_found``."""
        return await self.principals.get(tx, name_or_id)

    async def roles_of(self, tx: Tx, principal_id: str, project_id: str | None) -> frozenset[str]:
        """Return the roles somebody has now in a project (None: in the whole installation).

        A role in the whole installation counts in every project; the disabled have none.
        """
        scopes = await self.principals.scopes_of(tx, principal_id)
        here = scopes.get(project_id, frozenset()) if project_id else frozenset()
        return scopes.get(EVERYWHERE, frozenset()) | here

    async def authorise(
        self, tx: Tx, principal_id: str, permission: str, project_id: str | None = None
    ) -> None:
        """Raise ``permission_denied`` unless somebody holds a permission now.

        ``project_id`` None asks for it in the whole installation.
        """
        roles = await self.roles_of(tx, principal_id, project_id)
        if project_id is None and permission in ANYWHERE:
            scopes = await self.principals.scopes_of(tx, principal_id)
            roles = roles.union(*scopes.values())
        if not is_allowed(roles, permission):
            held = ", ".join(sorted(roles)) or "no role"
            raise PilotageError(
                "permission_denied",
                f"{permission} is not allowed with {held}.",
                hint="Who may do what: docs/reference/permissions.md",
            )

    # gateways that run apart

    async def create_gateway(self, tx: Tx, name: str) -> NewGateway:
        """Create the principal of a gateway; raise ``already_exists``: names are never reused."""
        gateway = await self.principals.create(tx, PrincipalKind.GATEWAY, name)
        await self.principals.grant(tx, gateway.id, Role.GATEWAY)
        return NewGateway(gateway, (await self.principals.issue(tx, gateway.id)).secret)

    async def get_gateway(self, tx: Tx, name_or_id: str) -> Principal:
        """Return the principal of a gateway, a revoked one too; raise ``not_found``."""
        try:
            gateway = await self.principals.get(tx, name_or_id)
        except PilotageError:
            gateway = None
        if gateway is None or gateway.kind is not PrincipalKind.GATEWAY:
            raise PilotageError(
                "not_found",
                f"There is no gateway {name_or_id!r}.",
                hint="List them: pilotage gateways list",
                param="gateway",
            )
        return gateway

    def is_gateway(self, principal: Principal) -> bool:
        """Say whether a principal is a gateway that has not been revoked."""
        return principal.kind is PrincipalKind.GATEWAY and principal.disabled_at_us is None

    async def list_gateways(
        self, tx: Tx, after: str = "", limit: int = FOREVER_PAGE
    ) -> Sequence[Principal]:
        """Return gateways in order of their names, revoked ones too."""
        return await self.principals.list(tx, after, limit, kinds=[PrincipalKind.GATEWAY])

    async def revoke_gateway(self, tx: Tx, name_or_id: str) -> Principal:
        """Take a gateway's credential away for ever; a second time changes nothing."""
        return await self.principals.disable(tx, (await self.get_gateway(tx, name_or_id)).id)

    # the first start

    async def bootstrap(self, tx: Tx) -> Bootstrap:
        """Make administrator, default project and tenant, or fresh credentials for them."""
        credential = await self.principals.bootstrap(tx)
        project = await store.find_project(tx, DEFAULT) or await self.create_project(tx, DEFAULT)
        scoped = _within(tx, project.id)
        if await store.find_tenant(scoped, DEFAULT) is None:
            await self.create_tenant(scoped, DEFAULT)
        key = await self.create_key(scoped, DEFAULT, "first")
        return Bootstrap(credential, key.secret)


def _no_project(name: str) -> PilotageError:
    return PilotageError("not_found", f"There is no project {name!r}.", param="project")


def _within(tx: Tx, project_id: str) -> Tx:
    return replace(tx, actor=replace(tx.actor, project_id=project_id))


def _check_settings(settings: TenantSettings) -> TenantSettings:
    try:
        ZoneInfo(settings.time_zone)
    except (ValueError, OSError, ZoneInfoNotFoundError):  # a folder of zones is an OSError
        raise PilotageError(
            "invalid_request",
            f"{settings.time_zone[:80]!r} is no time zone.",
            hint="Use a name of the IANA database such as UTC, Europe/Berlin or Asia/Singapore.",
            param="time_zone",
        ) from None
    return check_tenant(settings)


def _settings(settings: TenantSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in TenantSettings.__dataclass_fields__}


def _changed(tenant: Tenant) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"Tenant {tenant.name!r} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )


def _public(key: ApiKey) -> dict[str, object]:
    return {name: getattr(key, name) for name in key.__dataclass_fields__ if name != "digest"}

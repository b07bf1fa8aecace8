"""Control-plane routes of keys at rest and of erasure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import ConfigDict

from pilotage.identity.service import IdentityService
from pilotage.identity.types import DEFAULT
from pilotage.kit.api import ApiCall, Body, Page, Route, View, make_page
from pilotage.kit.operations import OperationKind, Operations
from pilotage.kit.operations_http import OperationView
from pilotage.kit.secrets import DataKey, Vault
from pilotage.runtime.erasure import Erasure, ErasureReport
from pilotage.runtime.rotation import Rotation

KIND_ROOT = OperationKind("root-key", "kit.root_keys.rotate", is_global=True)
KIND_TENANT = OperationKind("data-key", "kit.data_keys.rotate")


class DataKeyView(View):
    """A data key: whose, which root key wraps it; a destroyed one opens nothing any more."""

    id: str
    owner_id: str
    number: int
    root: int
    created_at: datetime
    destroyed_at: datetime | None


class EraseBody(Body):
    """Whether to erase, or only to say what that would remove."""

    dry_run: bool = False


class RemnantView(View):
    """Where something of the tenant is left, what, and when it goes."""

    where: str
    what: str
    until: str


class ErasureView(View):
    """What erasing a tenant removes, or has removed (``is_done``), and what is left."""

    model_config = ConfigDict(from_attributes=True)

    tenant_id: str
    tenant: str
    is_done: bool
    api_keys: int
    data_keys: int
    users: int
    limits: int
    remnants: Sequence[RemnantView]


def secret_routes(
    vault: Vault, rotation: Rotation, operations: Operations, identity: IdentityService
) -> list[Route]:
    """List the routes of keys at rest."""

    async def list_data_keys(call: ApiCall, limit: int = 50, after: str = "") -> Page[DataKeyView]:
        """List data keys by owner; their secrets are shown to nobody."""
        async with call.read() as tx:
            found = await vault.list_keys(tx, after, limit + 1)
        return make_page(found, limit, _show_key, "id")

    async def rotate_root(call: ApiCall) -> OperationView:
        """Make a new root key and wrap every data key with it."""
        async with call.read() as tx:
            project = await identity.get_project(tx, DEFAULT)
        actor = replace(call.actor, project_id=project.id)
        return OperationView.of(
            await operations.start(
                actor,
                KIND_ROOT,
                "installation",
                lambda progress: rotation.rotate_root(actor, progress),
            )
        )

    async def rotate_tenant(call: ApiCall, tenant: str) -> OperationView:
        """Make a new data key for a tenant and seal with it what the old ones sealed."""
        async with call.read() as tx:
            found = await identity.get_tenant(tx, tenant)
        return OperationView.of(
            await operations.start(
                call.actor,
                KIND_TENANT,
                found.name,
                lambda progress: rotation.rotate_tenant(call.actor, found.id, progress),
            )
        )

    return [
        Route(
            method="GET",
            path="/data-keys",
            permission="kit.data_keys.read",
            handler=list_data_keys,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/root-keys",
            permission=KIND_ROOT.permission,
            handler=rotate_root,
            status=202,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/tenants/{tenant}/data-keys",
            permission=KIND_TENANT.permission,
            handler=rotate_tenant,
            status=202,
        ),
    ]


def erasure_routes(erasure: Erasure) -> list[Route]:
    """List the routes of erasure."""

    async def erase_tenant(call: ApiCall, tenant: str, body: EraseBody) -> ErasureView:
        """Erase a tenant for ever: its keys, its users' names; ``dry_run`` only says what."""
        if body.dry_run:
            async with call.read() as tx:
                return _show_report(await erasure.assess(tx, tenant))
        async with call.write() as tx:
            report = await erasure.erase(tx, tenant)
        left = await erasure.clean_up()
        return _show_report(replace(report, remnants=[*report.remnants, *left]))

    return [
        Route(
            method="POST",
            path="/tenants/{tenant}:erase",
            permission="identity.tenants.erase",
            handler=erase_tenant,
        )
    ]


def _show_key(key: DataKey) -> DataKeyView:
    return DataKeyView.of(key)


def _show_report(report: ErasureReport) -> ErasureView:
    return ErasureView.of(report, remnants=[RemnantView.of(item) for item in report.remnants])

"""The control-plane route of backups."""

from dataclasses import replace

from pydantic import SecretStr

from pilotage.identity.service import IdentityService
from pilotage.identity.types import DEFAULT
from pilotage.kit.api import ApiCall, Body, Route
from pilotage.kit.operations import OperationKind, Operations
from pilotage.kit.operations_http import OperationView
from pilotage.runtime.backup.service import Backups, BackupWish

KIND = OperationKind("backup", "kit.backups.create", is_global=True)


class BackupBody(Body):
    """What is to be in a backup.

    Keys and credentials are in it only with a ``passphrase``, and encrypted with that.
    """

    exclude_models: bool = False
    passphrase: SecretStr = SecretStr("")


def backup_routes(
    backups: Backups, operations: Operations, identity: IdentityService
) -> list[Route]:
    """List the routes of backups."""

    async def create_backup(call: ApiCall, body: BackupBody) -> OperationView:
        """Make a backup in the folder of backups; the operation is one of the default project."""
        async with call.read() as tx:
            project = await identity.get_project(tx, DEFAULT)
        actor = replace(call.actor, project_id=project.id)
        wish = BackupWish(
            with_models=not body.exclude_models, passphrase=body.passphrase.get_secret_value()
        )
        started = await operations.start(
            actor, KIND, "installation", lambda progress: backups.make(actor, wish, progress)
        )
        return OperationView.of(started)

    return [
        Route(
            method="POST",
            path="/backups",
            permission=KIND.permission,
            handler=create_backup,
            status=202,
            is_global=True,
        )
    ]

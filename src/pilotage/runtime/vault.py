"""The vault of an installation: its root keys, found or made, and checked against its database."""

import logging
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.finops.users import Users
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.outbox import append_revision, has_revision
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.secrets import Vault, has_data_keys

_FILE = "file:"
_LOG = logging.getLogger("pilotage.secrets")


def find_root_keys(settings: Settings, folder: DataFolder) -> Path:
    """Return where the root keys are; raise ``invalid_config`` for a place that is no file."""
    given = settings.secrets.root_keys
    if not given:
        return folder.root_keys
    if not given.startswith(_FILE):
        raise PilotageError(
            "invalid_config",
            f"secrets.root_keys is {given!r}, and root keys are kept in a file.",
            hint="Write file:PATH.",
        )
    return Path(given.removeprefix(_FILE)).expanduser()


async def open_vault(db: Database, settings: Settings, folder: DataFolder) -> Vault:
    """Open the vault, and end a change of root keys that was interrupted.

    Root keys are made where there is no data key yet. Raises ``invalid_config`` if those at hand
    are not those of the database, or may be read by others.
    """
    path = find_root_keys(settings, folder)
    async with db.read(SYSTEM) as tx:
        if not path.exists() and await has_data_keys(tx):
            raise PilotageError(
                "invalid_config",
                f"The root keys are missing: {path}.",
                hint="Put the file back from your backup of the keys, or set secrets.root_keys.",
            )
        vault = Vault(open_root_keys(path))
        await vault.check(tx)
    if vault.root.newest > 1:  # a database from before the newest key has not heard of it
        await announce_root(db, SYSTEM, vault.root.newest)
    while await rewrap(db, vault):
        pass
    return vault


async def announce_root(db: Database, actor: Actor, number: int) -> None:
    """Say that there is a root key of this number, unless that was said."""
    async with db.read(SYSTEM) as tx:
        is_said = await has_revision(tx, "root", number)
    if not is_said:
        async with db.write(actor) as tx:
            await append_revision(tx, "kit.root_key.created", "root", number, {"root": number})


async def label_plain_users(db: Database, users: Users) -> None:
    """Put tokens where earlier versions wrote users' names; each step stands by itself."""
    done = 0
    while True:
        async with db.write(SYSTEM) as tx:
            labelled = await users.label_next_plain(tx)
        if not labelled:
            break
        done += labelled
    if done:
        _LOG.info("the users of %d ledger entries have tokens now, their names are sealed", done)


async def rewrap(db: Database, vault: Vault) -> int:
    """Wrap the next data keys with the newest root key; return how many."""
    async with db.write(SYSTEM) as tx:
        return await vault.rewrap_next(tx)

"""``pilotage migrate``: bring the database to this program's schema."""

import asyncio

from pilotage.cli.session import Json, say, show_json
from pilotage.kit.config import Settings, load_settings


def migrate(*, as_json: Json = False) -> None:
    """Bring the database to this program's schema; stop every server that uses it first.

    SQLite migrates itself at each start as well, after a copy of the file; Postgres only here.

    [bold]Example[/bold]: pilotage migrate
    """
    before, after = asyncio.run(_migrate(load_settings()))
    if as_json:
        show_json({"before": before, "after": after})
    elif before == after:
        say(f"The database has schema {after} already.")
    else:
        say(f"The database has gone from schema {before or 'none'} to {after}.")


async def _migrate(settings: Settings) -> tuple[str | None, str]:
    from pilotage.runtime.schema import migrate_database

    return await migrate_database(settings)

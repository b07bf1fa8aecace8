"""A database whose process dies when told: between any two statements, or before a commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from pilotage.kit.db import Database


class DeathError(BaseException):
    """The process dies here."""


@dataclass
class Fate:
    """After how many statements from now the process dies; 0 for never."""

    dies_at: int = 0


@contextmanager
def mortal(database: Database) -> Iterator[Fate]:
    """Die before a statement of the database, or before its commit, when told."""
    fate = Fate()

    def count(*_: object) -> None:
        if fate.dies_at:
            fate.dies_at -= 1
            if not fate.dies_at:
                raise DeathError

    engine = database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", count)
    sa.event.listen(engine, "commit", count)
    try:
        yield fate
    finally:
        sa.event.remove(engine, "before_cursor_execute", count)
        sa.event.remove(engine, "commit", count)

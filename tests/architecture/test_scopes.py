"""What belongs to a project or a tenant cannot be read without its project."""

import pytest
import sqlalchemy as sa

from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Actor, Tx
from pilotage.migrations.tables import get_metadata

# Tables of the whole installation; nobody reaches them by a role in one project alone.
INSTALLATION = {
    "audit_block",
    "audit_former",
    "audit_hold",
    "call_sample_place",
    "counter_total",
    "credential",
    "data_key",
    "kept_reply",
    "key_scope",
    "outbox_cursor",
    "principal",
    "profile",
    "project",
    "role_binding",
    "rollup_cursor",
    "rollup_mark",
    "snapshot_line",
    "spool_cursor",
    "token_issuer",
}


def test_every_table_names_its_project_or_belongs_to_the_installation() -> None:
    tables = get_metadata().tables
    without = {name for name, table in tables.items() if "project_id" not in table.c}
    assert without == INSTALLATION
    assert not [name for name in without if "tenant_id" in tables[name].c]


@pytest.mark.parametrize("name", sorted(set(get_metadata().tables) - INSTALLATION))
def test_statements_on_what_belongs_to_a_project_are_scoped(name: str) -> None:
    table = get_metadata().tables[name]
    actor = Actor(principal_id="usr_1", project_id="prj_1")
    tx = Tx(conn=None, actor=actor, now_us=ManualClock().now_us(), dialect="sqlite")  # type: ignore[arg-type]
    some = next(iter(table.c))
    for statement in (tx.select(table), tx.select(table, some), tx.update(table), tx.delete(table)):
        where = statement.whereclause
        assert where is not None
        assert where.compare(table.c.project_id == sa.bindparam("project_id", "prj_1", unique=True))

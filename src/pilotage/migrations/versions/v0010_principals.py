"""Principals with kinds, roles bound to scopes, and several credentials each."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

REVOKED = "revoked"  # the role that gateways had which were no more
KINDS = {"gateway": "gateway", REVOKED: "gateway"}


def upgrade() -> None:
    """Move the one role and the one credential of each principal to tables of their own.

    The tables come last: SQLite makes a changed table anew, which none may refer to then.
    """
    old = op.get_bind().execute(sa.text("SELECT id, role, digest FROM principal")).all()
    with op.batch_alter_table("principal") as table:
        table.drop_constraint(op.f("uq_principal_digest"), type_="unique")
        table.drop_column("digest")
        table.drop_column("role")
        table.add_column(sa.Column("rev", sa.Integer(), nullable=False, server_default="1"))
        table.add_column(sa.Column("kind", sa.Text(), nullable=False, server_default="user"))
        table.add_column(
            sa.Column("created_at_us", sa.BigInteger(), nullable=False, server_default="0")
        )
        table.add_column(sa.Column("disabled_at_us", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("subject", sa.Text(), nullable=True))
        table.create_unique_constraint(op.f("uq_principal_subject"), ["subject"])
    with op.batch_alter_table("principal") as table:
        table.alter_column("rev", existing_type=sa.Integer(), server_default=None)
        table.alter_column("kind", existing_type=sa.Text(), server_default=None)
        table.alter_column("created_at_us", existing_type=sa.BigInteger(), server_default=None)
    _make_tables()
    _move(old)


def _make_tables() -> None:
    op.create_table(
        "profile",
        *map(_text, ("principal_id", "display_name", "email")),
        _of_principal("profile"),
        sa.PrimaryKeyConstraint("principal_id", name=op.f("pk_profile")),
    )
    op.create_table(
        "role_binding",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        *map(_text, ("principal_id", "role", "scope", "source", "granted_by")),
        sa.Column("granted_at_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=True),
        _of_principal("role_binding"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role_binding")),
        sa.UniqueConstraint(
            "principal_id",
            "role",
            "scope",
            "source",
            name=op.f("uq_role_binding_principal_id_role_scope_source"),
        ),
    )
    op.create_table(
        "credential",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        _text("principal_id"),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        _text("hint"),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        _text("created_by"),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_used_us", sa.BigInteger(), nullable=True),
        _of_principal("credential"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credential")),
        sa.UniqueConstraint("digest", name=op.f("uq_credential_digest")),
    )
    op.create_index(op.f("ix_credential_principal_id"), "credential", ["principal_id"])


def _move(old: Sequence[sa.Row[Any]]) -> None:
    connection = op.get_bind()
    for principal in old:
        made = _find_moment(connection, principal.id, "created")
        is_gone = principal.role == REVOKED
        ended = _find_moment(connection, principal.id, "revoked") if is_gone else None
        row = {
            "id": principal.id,
            "kind": KINDS.get(principal.role, "user"),
            "rev": 2 if is_gone else 1,
            "made": made,
            "ended": ended,
            "number": principal.id.partition("_")[2],
            "role": principal.role,
            "digest": principal.digest,
        }
        connection.execute(
            sa.text(
                "UPDATE principal SET kind = :kind, rev = :rev, created_at_us = :made,"
                " disabled_at_us = :ended WHERE id = :id"
            ),
            row,
        )
        if is_gone:
            continue
        connection.execute(
            sa.text(
                "INSERT INTO role_binding (id, rev, principal_id, role, scope, source, granted_by,"
                " granted_at_us) VALUES ('bnd_' || :number, 1, :id, :role, '', '', 'system', :made)"
            ),
            row,
        )
        connection.execute(
            sa.text(
                "INSERT INTO credential (id, rev, principal_id, digest, hint, created_at_us,"
                " created_by) VALUES ('crd_' || :number, 1, :id, :digest, '', :made, 'system')"
            ),
            row,
        )


def _find_moment(connection: sa.Connection, principal_id: str, verb: str) -> int:
    """Return when a revision says that something happened to a principal; 0 if none does."""
    found = connection.execute(
        sa.text(
            "SELECT min(at_us) FROM revision WHERE object_id = :id"
            " AND event IN ('identity.principal.' || :verb, 'identity.gateway.' || :verb)"
        ),
        {"id": principal_id, "verb": verb},
    ).scalar()
    return int(found or 0)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _of_principal(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["principal_id"], ["principal.id"], name=op.f(f"fk_{table}_principal_id")
    )

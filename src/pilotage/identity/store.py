"""The tables of identity, and all SQL on them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from pilotage.core.key_scopes import UNBOUNDED, KeyScope, decode_scope, encode_scope
from pilotage.identity.types import (
    ApiKey,
    DataClass,
    Project,
    Tenant,
    TenantSettings,
)
from pilotage.kit.db import METADATA, Row, Tx

PROJECT = sa.Table(
    "project",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)
TENANT = sa.Table(
    "tenant",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.Column("time_zone", sa.Text, nullable=False, server_default="UTC"),
    sa.Column("regions", sa.Text, nullable=False, server_default="[]"),
    sa.Column("features", sa.Text, nullable=False, server_default="[]"),
    sa.Column("data_class", sa.Text, nullable=False, server_default="internal"),
    sa.Column("shows", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("log_share", sa.Integer, nullable=False, server_default="0"),
    sa.Column("measure_share", sa.Integer, nullable=False, server_default="0"),
    sa.Column("sample_share", sa.Integer, nullable=False, server_default="0"),
    sa.Column("keeps_comments", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("project_id", "name"),
)
API_KEY = sa.Table(
    "api_key",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenant.id"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger),
    sa.Column("revoked_at_us", sa.BigInteger),
    sa.Column("changed_seq", sa.BigInteger, nullable=False, index=True),
    sa.Column("may_name_users", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("scope_number", sa.BigInteger, nullable=False, server_default="0"),
)
KEY_SCOPE = sa.Table(
    "key_scope",
    METADATA,
    sa.Column(
        "number",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    sa.Column("content", sa.Text, nullable=False, unique=True),
)
_IN_JSON = ("regions", "features")


async def insert_project(tx: Tx, project: Project) -> None:
    """Add a project."""
    await tx.insert(PROJECT, **_values(project))


async def find_project(tx: Tx, name_or_id: str) -> Project | None:
    """Return a project by name or id."""
    row = await tx.find(
        tx.select(PROJECT).where((PROJECT.c.name == name_or_id) | (PROJECT.c.id == name_or_id))
    )
    return Project(**row) if row else None


async def list_projects(
    tx: Tx, after: str, limit: int, only: Sequence[str] | None = None
) -> Sequence[Project]:
    """Return projects by name: all, or only those of some ids."""
    wanted = tx.select(PROJECT).where(PROJECT.c.name > after)
    if only is not None:
        wanted = wanted.where(PROJECT.c.id.in_(only))
    return [Project(**row) for row in await tx.all(wanted.order_by(PROJECT.c.name).limit(limit))]


async def insert_tenant(tx: Tx, tenant: Tenant) -> None:
    """Add a tenant."""
    await tx.insert(TENANT, **_in_json(_values(tenant)))


async def find_tenant(tx: Tx, name_or_id: str) -> Tenant | None:
    """Return a tenant by name or id, deleted ones too."""
    row = await tx.find(
        tx.select(TENANT).where((TENANT.c.name == name_or_id) | (TENANT.c.id == name_or_id))
    )
    return _tenant(row) if row else None


async def list_tenants(tx: Tx, after: str, limit: int) -> Sequence[Tenant]:
    """Return living tenants by name."""
    living = tx.select(TENANT).where(TENANT.c.deleted_at_us.is_(None), TENANT.c.name > after)
    rows = await tx.all(living.order_by(TENANT.c.name).limit(limit))
    return [_tenant(row) for row in rows]


async def change_tenant(tx: Tx, tenant: Tenant, settings: TenantSettings) -> bool:
    """Replace a tenant's settings; False if it has changed meanwhile."""
    values = {name: getattr(settings, name) for name in TenantSettings.__dataclass_fields__}
    guarded = tx.update(TENANT).where(TENANT.c.id == tenant.id, TENANT.c.rev == tenant.rev)
    return await tx.change(guarded.values(rev=tenant.rev + 1, **_in_json(values))) == 1


async def mark_tenant_deleted(tx: Tx, tenant: Tenant, name: str) -> bool:
    """Turn a tenant into a tombstone and free its name; False if it has changed meanwhile."""
    guarded = tx.update(TENANT).where(TENANT.c.id == tenant.id, TENANT.c.rev == tenant.rev)
    return (
        await tx.change(guarded.values(rev=tenant.rev + 1, name=name, deleted_at_us=tx.now_us)) == 1
    )


async def insert_key(tx: Tx, key: ApiKey, seq: int) -> None:
    """Add a key, changed in revision ``seq``."""
    values = _values(key)
    del values["scope"]  # it is kept once for all keys of it, by its number
    await tx.insert(API_KEY, **values, changed_seq=seq)


async def find_key(tx: Tx, key_id: str) -> ApiKey | None:
    """Return a key by id."""
    row = await tx.find(_select_keys(tx).where(API_KEY.c.id == key_id))
    return _key(row) if row else None


async def list_keys(tx: Tx, tenant_id: str | None, after: str, limit: int) -> Sequence[ApiKey]:
    """Return keys by id (which is by age)."""
    statement = _select_keys(tx).where(API_KEY.c.id > after)
    if tenant_id is not None:
        statement = statement.where(API_KEY.c.tenant_id == tenant_id)
    return [_key(row) for row in await tx.all(statement.order_by(API_KEY.c.id).limit(limit))]


async def mark_key_revoked(tx: Tx, key: ApiKey, seq: int) -> bool:
    """Revoke a key in revision ``seq``; False if it has changed meanwhile."""
    guarded = tx.update(API_KEY).where(API_KEY.c.id == key.id, API_KEY.c.rev == key.rev)
    return (
        await tx.change(guarded.values(rev=key.rev + 1, revoked_at_us=tx.now_us, changed_seq=seq))
        == 1
    )


async def list_changed_keys(tx: Tx, after_seq: int) -> Sequence[ApiKey]:
    """Return the keys made or revoked after a revision."""
    changed = _select_keys(tx).where(API_KEY.c.changed_seq > after_seq)
    return [_key(row) for row in await tx.all(changed)]


async def end_key(tx: Tx, key: ApiKey, expires_at_us: int, seq: int) -> bool:
    """Let a key end at a moment, in revision ``seq``; False if it has changed meanwhile."""
    guarded = tx.update(API_KEY).where(API_KEY.c.id == key.id, API_KEY.c.rev == key.rev)
    values = {"rev": key.rev + 1, "expires_at_us": expires_at_us, "changed_seq": seq}
    return await tx.change(guarded.values(**values)) == 1


async def number_scope(tx: Tx, scope: KeyScope) -> int:
    """Return the number of a scope, giving it one if it is new; 0 is without bounds."""
    if scope == UNBOUNDED:
        return 0
    content = encode_scope(scope)
    same = tx.select(KEY_SCOPE).where(KEY_SCOPE.c.content == content)
    if await tx.find(same) is None:
        await tx.insert(KEY_SCOPE, content=content)
    row = await tx.find(same)
    return int(row["number"]) if row else 0


async def list_scopes(tx: Tx) -> dict[int, KeyScope]:
    """Return every scope that a key was ever made for, by number."""
    return {
        row["number"]: decode_scope(row["content"])
        for row in await tx.all(tx.select(KEY_SCOPE).order_by(KEY_SCOPE.c.number))
    }


def _tenant(row: Row) -> Tenant:
    return Tenant(
        **dict(row)
        | {name: msgspec.json.decode(row[name], type=tuple[str, ...]) for name in _IN_JSON}
        | {"data_class": DataClass(row["data_class"])}
    )


def _in_json(values: dict[str, object]) -> dict[str, object]:
    return values | {name: msgspec.json.encode(values[name]).decode() for name in _IN_JSON}


def _select_keys(tx: Tx) -> sa.Select[Any]:
    """Begin a SELECT of keys with what they are for, within the scope of the transaction."""
    selected = tx.select(API_KEY, *API_KEY.c, KEY_SCOPE.c.content)
    return selected.outerjoin(KEY_SCOPE, API_KEY.c.scope_number == KEY_SCOPE.c.number)


def _key(row: Row) -> ApiKey:
    scope = decode_scope(row["content"]) if row["content"] else UNBOUNDED
    names = ApiKey.__dataclass_fields__.keys() - {"scope"}
    return ApiKey(**{name: row[name] for name in names}, scope=scope)


def _values(item: Project | Tenant | ApiKey) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}

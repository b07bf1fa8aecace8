"""The tables of endpoints, and all SQL on them."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from pilotage.core.snapshot import Routing
from pilotage.endpoints.types import (
    Deployment,
    Endpoint,
    Provider,
    ReleasePolicy,
    Scaling,
    Traits,
    Upstream,
    UpstreamSpec,
)
from pilotage.kit.db import METADATA, Row, Tx
from pilotage.registry.types import Stage

ENDPOINT = sa.Table(
    "endpoint",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("max_output_tokens", sa.Integer, nullable=False),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("split", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.Column("routing", sa.Text, nullable=False, server_default="{}"),
    sa.Column("regions", sa.Text, nullable=False, server_default="[]"),
    sa.Column("rollout", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("unit", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("traits", sa.Text, nullable=False, server_default="{}"),
    sa.UniqueConstraint("project_id", "name"),
)
DEPLOYMENT = sa.Table(
    "deployment",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoint.id"), nullable=False, index=True),
    sa.Column("version_id", sa.Text, nullable=False, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("artifact_sha256", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("context_tokens", sa.Integer, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.Column("upstream_id", sa.Text, nullable=False, server_default=sa.text("''"), index=True),
    sa.Column("upstream_model", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("scaling", sa.Text, nullable=False, server_default="{}"),
    sa.Column("awake_until_us", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("adapter_sha256", sa.Text, nullable=False, server_default=sa.text("''")),
)
UPSTREAM = sa.Table(
    "upstream",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("base_url", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("proxy", sa.Text, nullable=False),
    sa.Column("ca_file", sa.Text, nullable=False),
    sa.Column("max_connections", sa.Integer, nullable=False),
    sa.Column("accepts", sa.Text, nullable=False, server_default="internal"),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("project_id", "name"),
)
RELEASE_POLICY = sa.Table(
    "release_policy",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False, unique=True),
    sa.Column("serve_from_stage", sa.Text, nullable=False),
    sa.Column("approvals", sa.Integer, nullable=False),
    sa.Column("changed_at_us", sa.BigInteger, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
)
_SETTINGS = tuple(UpstreamSpec.__dataclass_fields__)
_IN_JSON = ("split", "routing", "regions", "scaling", "traits")


async def insert_endpoint(tx: Tx, endpoint: Endpoint) -> None:
    """Add an endpoint."""
    values = {name: getattr(endpoint, name) for name in Endpoint.__dataclass_fields__}
    await tx.insert(ENDPOINT, **_in_json(values))


async def find_endpoint(tx: Tx, name_or_id: str) -> Endpoint | None:
    """Return an endpoint by name or id, deleted ones too."""
    named = (ENDPOINT.c.name == name_or_id) | (ENDPOINT.c.id == name_or_id)
    row = await tx.find(tx.select(ENDPOINT).where(named))
    return _endpoint(row) if row else None


async def hold_endpoint(tx: Tx, endpoint_id: str) -> None:
    """Let nobody else change an endpoint before this transaction ends, wait for who does.

    SQLite has one writer at a time anyhow.
    """
    row = tx.select(ENDPOINT, ENDPOINT.c.id).where(ENDPOINT.c.id == endpoint_id)
    await tx.all(row.with_for_update())


async def list_endpoints(tx: Tx, after: str, limit: int) -> Sequence[Endpoint]:
    """Return living endpoints by name."""
    living = tx.select(ENDPOINT).where(ENDPOINT.c.deleted_at_us.is_(None), ENDPOINT.c.name > after)
    return [_endpoint(row) for row in await tx.all(living.order_by(ENDPOINT.c.name).limit(limit))]


async def change_endpoint(tx: Tx, endpoint: Endpoint, **values: object) -> bool:
    """Change columns of an endpoint and count its revision up.

    False if it has changed meanwhile.
    """
    guarded = tx.update(ENDPOINT).where(
        ENDPOINT.c.id == endpoint.id, ENDPOINT.c.rev == endpoint.rev
    )
    return await tx.change(guarded.values(rev=endpoint.rev + 1, **_in_json(values))) == 1


async def insert_deployment(tx: Tx, deployment: Deployment) -> None:
    """Add a deployment."""
    values = {name: getattr(deployment, name) for name in Deployment.__dataclass_fields__}
    await tx.insert(DEPLOYMENT, **_in_json(values))


async def list_deployments(tx: Tx, endpoint_id: str | None = None) -> Sequence[Deployment]:
    """Return the living deployments of an endpoint, or all, oldest first."""
    statement = tx.select(DEPLOYMENT).where(DEPLOYMENT.c.deleted_at_us.is_(None))
    if endpoint_id is not None:
        statement = statement.where(DEPLOYMENT.c.endpoint_id == endpoint_id)
    return [_deployment(row) for row in await tx.all(statement.order_by(DEPLOYMENT.c.id))]


async def change_deployment(tx: Tx, deployment: Deployment, **values: object) -> bool:
    """Change columns of a deployment and count its revision up.

    False if it has changed meanwhile.
    """
    guarded = tx.update(DEPLOYMENT).where(
        DEPLOYMENT.c.id == deployment.id, DEPLOYMENT.c.rev == deployment.rev
    )
    return await tx.change(guarded.values(rev=deployment.rev + 1, **_in_json(values))) == 1


async def mark_deployment_deleted(tx: Tx, deployment: Deployment) -> bool:
    """Turn a deployment into a tombstone; False if it has changed meanwhile."""
    return await change_deployment(tx, deployment, deleted_at_us=tx.now_us)


async def has_deployment(tx: Tx, version_id: str) -> bool:
    """Say whether a model version is deployed anywhere."""
    living = tx.select(DEPLOYMENT).where(
        DEPLOYMENT.c.version_id == version_id, DEPLOYMENT.c.deleted_at_us.is_(None)
    )
    return await tx.find(living.limit(1)) is not None


async def list_deployments_of_version(tx: Tx, version_id: str) -> Sequence[Deployment]:
    """Return the living deployments of a version, oldest first."""
    living = tx.select(DEPLOYMENT).where(
        DEPLOYMENT.c.version_id == version_id, DEPLOYMENT.c.deleted_at_us.is_(None)
    )
    return [_deployment(row) for row in await tx.all(living.order_by(DEPLOYMENT.c.id))]


async def find_policy(tx: Tx) -> ReleasePolicy | None:
    """Return what the project has said of its releases."""
    row = await tx.find(tx.select(RELEASE_POLICY))
    if row is None:
        return None
    return ReleasePolicy(**dict(row) | {"serve_from_stage": Stage(row["serve_from_stage"])})


async def put_policy(tx: Tx, before: ReleasePolicy, after: ReleasePolicy) -> bool:
    """Write a release policy; False if it has changed meanwhile."""
    values = {name: getattr(after, name) for name in ReleasePolicy.__dataclass_fields__}
    if before.rev == 0:
        await tx.insert(RELEASE_POLICY, **values)
        return True
    guarded = tx.update(RELEASE_POLICY).where(
        RELEASE_POLICY.c.id == before.id, RELEASE_POLICY.c.rev == before.rev
    )
    return await tx.change(guarded.values(**values)) == 1


async def insert_upstream(tx: Tx, upstream: Upstream) -> None:
    """Add an upstream."""
    await tx.insert(
        UPSTREAM, **{name: getattr(upstream, name) for name in Upstream.__dataclass_fields__}
    )


async def find_upstream(tx: Tx, name_or_id: str) -> Upstream | None:
    """Return an upstream by name or id, deleted ones too."""
    named = (UPSTREAM.c.name == name_or_id) | (UPSTREAM.c.id == name_or_id)
    row = await tx.find(tx.select(UPSTREAM).where(named))
    return _upstream(row) if row else None


async def hold_upstreams(tx: Tx, ids: Sequence[str], *, to_change: bool = False) -> None:
    """Let nobody else change some upstreams before this transaction ends, wait for who does."""
    rows = tx.select(UPSTREAM, UPSTREAM.c.id).where(UPSTREAM.c.id.in_(ids))
    await tx.all(rows.order_by(UPSTREAM.c.id).with_for_update(read=not to_change))


async def list_upstreams(tx: Tx, after: str, limit: int) -> Sequence[Upstream]:
    """Return living upstreams by name."""
    living = tx.select(UPSTREAM).where(UPSTREAM.c.deleted_at_us.is_(None), UPSTREAM.c.name > after)
    return [_upstream(row) for row in await tx.all(living.order_by(UPSTREAM.c.name).limit(limit))]


async def name_upstreams(tx: Tx) -> dict[str, tuple[str, str]]:
    """Return the name and the provider of upstreams by id, deleted ones too."""
    columns = (UPSTREAM.c.id, UPSTREAM.c.name, UPSTREAM.c.provider)
    rows = await tx.all(tx.select(UPSTREAM, *columns))
    return {row["id"]: (row["name"].partition("~")[0], row["provider"]) for row in rows}


async def replace_upstream(tx: Tx, upstream: Upstream, spec: UpstreamSpec) -> bool:
    """Change what is said of an upstream; False if it has changed meanwhile."""
    values = {name: getattr(spec, name) for name in _SETTINGS}
    guarded = _guard_upstream(tx, upstream).values(rev=upstream.rev + 1, **values)
    return await tx.change(guarded) == 1


async def mark_upstream_deleted(tx: Tx, upstream: Upstream, name: str) -> bool:
    """Turn an upstream into a tombstone and free its name; False if it has changed meanwhile."""
    guarded = _guard_upstream(tx, upstream)
    values = {"rev": upstream.rev + 1, "name": name, "deleted_at_us": tx.now_us}
    return await tx.change(guarded.values(**values)) == 1


async def list_deployments_of(tx: Tx, upstream_id: str) -> Sequence[Deployment]:
    """Return the living deployments of an upstream's models, oldest first."""
    living = tx.select(DEPLOYMENT).where(
        DEPLOYMENT.c.upstream_id == upstream_id, DEPLOYMENT.c.deleted_at_us.is_(None)
    )
    return [_deployment(row) for row in await tx.all(living.order_by(DEPLOYMENT.c.id))]


def _guard_upstream(tx: Tx, upstream: Upstream) -> sa.Update:
    return tx.update(UPSTREAM).where(UPSTREAM.c.id == upstream.id, UPSTREAM.c.rev == upstream.rev)


def _upstream(row: Row) -> Upstream:
    return Upstream(**dict(row) | {"provider": Provider(row["provider"])})


def _endpoint(row: Row) -> Endpoint:
    return Endpoint(
        **dict(row)
        | {
            "split": msgspec.json.decode(row["split"], type=dict[str, int]),
            "routing": msgspec.json.decode(row["routing"], type=Routing),
            "regions": msgspec.json.decode(row["regions"], type=tuple[str, ...]),
            "traits": msgspec.json.decode(row["traits"], type=Traits),
        }
    )


def _deployment(row: Row) -> Deployment:
    return Deployment(**dict(row) | {"scaling": msgspec.json.decode(row["scaling"], type=Scaling)})


def _in_json(values: dict[str, object]) -> dict[str, object]:
    return values | {name: _text(values[name]) for name in _IN_JSON if name in values}


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()

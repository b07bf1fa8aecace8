"""The tables of endpoints, and all SQL on them."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from pilotage.endpoints.types import Deployment, Endpoint
from pilotage.kit.db import METADATA, Row, Tx

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
)


async def insert_endpoint(tx: Tx, endpoint: Endpoint) -> None:
    """Add an endpoint."""
    values = {name: getattr(endpoint, name) for name in Endpoint.__dataclass_fields__}
    await tx.insert(ENDPOINT, **values | {"split": _text(endpoint.split)})


async def find_endpoint(tx: Tx, name_or_id: str) -> Endpoint | None:
    """Return an endpoint by name or id, deleted ones too."""
    named = (ENDPOINT.c.name == name_or_id) | (ENDPOINT.c.id == name_or_id)
    row = await tx.find(tx.select(ENDPOINT).where(named))
    return _endpoint(row) if row else None


async def list_endpoints(tx: Tx, after: str, limit: int) -> Sequence[Endpoint]:
    """Return living endpoints by name."""
    living = tx.select(ENDPOINT).where(ENDPOINT.c.deleted_at_us.is_(None), ENDPOINT.c.name > after)
    return [_endpoint(row) for row in await tx.all(living.order_by(ENDPOINT.c.name).limit(limit))]


async def change_endpoint(tx: Tx, endpoint: Endpoint, **values: object) -> bool:
    """Change columns of an endpoint and count its revision up.

    False if it has changed meanwhile.
    """
    if "split" in values:
        values["split"] = _text(values["split"])
    guarded = tx.update(ENDPOINT).where(
        ENDPOINT.c.id == endpoint.id, ENDPOINT.c.rev == endpoint.rev
    )
    return await tx.change(guarded.values(rev=endpoint.rev + 1, **values)) == 1


async def insert_deployment(tx: Tx, deployment: Deployment) -> None:
    """Add a deployment."""
    await tx.insert(
        DEPLOYMENT, **{name: getattr(deployment, name) for name in Deployment.__dataclass_fields__}
    )


async def list_deployments(tx: Tx, endpoint_id: str | None = None) -> Sequence[Deployment]:
    """Return the living deployments of an endpoint, or all, oldest first."""
    statement = tx.select(DEPLOYMENT).where(DEPLOYMENT.c.deleted_at_us.is_(None))
    if endpoint_id is not None:
        statement = statement.where(DEPLOYMENT.c.endpoint_id == endpoint_id)
    return [Deployment(**row) for row in await tx.all(statement.order_by(DEPLOYMENT.c.id))]


async def mark_deployment_deleted(tx: Tx, deployment: Deployment) -> bool:
    """Turn a deployment into a tombstone; False if it has changed meanwhile."""
    guarded = tx.update(DEPLOYMENT).where(
        DEPLOYMENT.c.id == deployment.id, DEPLOYMENT.c.rev == deployment.rev
    )
    return await tx.change(guarded.values(rev=deployment.rev + 1, deleted_at_us=tx.now_us)) == 1


async def has_deployment(tx: Tx, version_id: str) -> bool:
    """Say whether a model version is deployed anywhere."""
    living = tx.select(DEPLOYMENT).where(
        DEPLOYMENT.c.version_id == version_id, DEPLOYMENT.c.deleted_at_us.is_(None)
    )
    return await tx.find(living.limit(1)) is not None


def _endpoint(row: Row) -> Endpoint:
    return Endpoint(**dict(row) | {"split": msgspec.json.decode(row["split"], type=dict[str, int])})


def _text(split: object) -> str:
    return msgspec.json.encode(split, order="sorted").decode()

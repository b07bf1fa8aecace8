"""The table of issuers of tokens, and all SQL on it."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from pilotage.identity.types import GroupRole, TokenIssuer
from pilotage.kit.db import METADATA, Row, Tx

TOKEN_ISSUER = sa.Table(
    "token_issuer",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("url", sa.Text, nullable=False, unique=True),
    sa.Column("audience", sa.Text, nullable=False),
    sa.Column("parties", sa.Text, nullable=False),
    sa.Column("algorithms", sa.Text, nullable=False),
    sa.Column("subject_claim", sa.Text, nullable=False),
    sa.Column("groups_claim", sa.Text, nullable=False),
    sa.Column("roles", sa.Text, nullable=False),
    sa.Column("skew_us", sa.BigInteger, nullable=False),
    sa.Column("max_age_us", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)
_IN_JSON = {
    "parties": tuple[str, ...],
    "algorithms": tuple[str, ...],
    "roles": tuple[GroupRole, ...],
}


async def insert_issuer(tx: Tx, issuer: TokenIssuer) -> None:
    """Add an issuer."""
    await tx.insert(TOKEN_ISSUER, **_values(issuer))


async def find_issuer(tx: Tx, name_or_id: str) -> TokenIssuer | None:
    """Return an issuer by name or id."""
    named = (TOKEN_ISSUER.c.name == name_or_id) | (TOKEN_ISSUER.c.id == name_or_id)
    row = await tx.find(tx.select(TOKEN_ISSUER).where(named))
    return _issuer(row) if row else None


async def find_url(tx: Tx, url: str) -> TokenIssuer | None:
    """Return the issuer that calls itself so."""
    row = await tx.find(tx.select(TOKEN_ISSUER).where(TOKEN_ISSUER.c.url == url))
    return _issuer(row) if row else None


async def list_issuers(tx: Tx, after: str, limit: int) -> Sequence[TokenIssuer]:
    """Return issuers by name."""
    wanted = tx.select(TOKEN_ISSUER).where(TOKEN_ISSUER.c.name > after)
    rows = await tx.all(wanted.order_by(TOKEN_ISSUER.c.name).limit(limit))
    return [_issuer(row) for row in rows]


async def replace_issuer(tx: Tx, before: TokenIssuer, after: TokenIssuer) -> bool:
    """Replace what is said of an issuer; False if it has changed meanwhile."""
    guarded = tx.update(TOKEN_ISSUER).where(
        TOKEN_ISSUER.c.id == before.id, TOKEN_ISSUER.c.rev == before.rev
    )
    return await tx.change(guarded.values(**_values(after))) == 1


async def delete_issuer(tx: Tx, issuer: TokenIssuer) -> bool:
    """Trust an issuer no more; False if it has changed meanwhile."""
    guarded = tx.delete(TOKEN_ISSUER).where(
        TOKEN_ISSUER.c.id == issuer.id, TOKEN_ISSUER.c.rev == issuer.rev
    )
    return await tx.change(guarded) == 1


def _issuer(row: Row) -> TokenIssuer:
    read = {name: msgspec.json.decode(row[name], type=kind) for name, kind in _IN_JSON.items()}
    return TokenIssuer(**dict(row) | read)


def _values(issuer: TokenIssuer) -> dict[str, object]:
    values = {name: getattr(issuer, name) for name in TokenIssuer.__dataclass_fields__}
    return values | {name: msgspec.json.encode(values[name]).decode() for name in _IN_JSON}

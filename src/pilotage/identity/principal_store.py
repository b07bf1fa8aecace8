"""The tables of principals, and all SQL on them."""

from collections.abc import Sequence
from typing import TypeVar

import sqlalchemy as sa

from pilotage.identity.types import Binding, Credential, Principal, PrincipalKind, Profile, Role
from pilotage.kit.db import METADATA, Row, Tx

PRINCIPAL = sa.Table(
    "principal",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("disabled_at_us", sa.BigInteger),
    sa.Column("subject", sa.Text, unique=True),
    sa.Column("last_seen_at_us", sa.BigInteger),
)
PROFILE = sa.Table(
    "profile",
    METADATA,
    sa.Column("principal_id", sa.Text, sa.ForeignKey("principal.id"), primary_key=True),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
)
ROLE_BINDING = sa.Table(
    "role_binding",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("principal_id", sa.Text, sa.ForeignKey("principal.id"), nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("granted_by", sa.Text, nullable=False),
    sa.Column("granted_at_us", sa.BigInteger, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger),
    sa.Column("ended_at_us", sa.BigInteger),
    sa.UniqueConstraint("principal_id", "role", "scope", "source"),
)
CREDENTIAL = sa.Table(
    "credential",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("principal_id", sa.Text, sa.ForeignKey("principal.id"), nullable=False, index=True),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger),
    sa.Column("revoked_at_us", sa.BigInteger),
    sa.Column("last_used_at_us", sa.BigInteger),
)
Kept = TypeVar("Kept", Principal, Binding, Credential)

# principals


async def insert_principal(tx: Tx, principal: Principal) -> None:
    """Add a principal."""
    await tx.insert(PRINCIPAL, **_values(principal))


async def find_principal(tx: Tx, name_or_id: str) -> Principal | None:
    """Return a principal by name or id, a disabled one too."""
    named = (PRINCIPAL.c.name == name_or_id) | (PRINCIPAL.c.id == name_or_id)
    row = await tx.find(tx.select(PRINCIPAL).where(named))
    return _principal(row) if row else None


async def find_subject(tx: Tx, subject: str) -> Principal | None:
    """Return the principal that an issuer calls so."""
    row = await tx.find(tx.select(PRINCIPAL).where(PRINCIPAL.c.subject == subject))
    return _principal(row) if row else None


async def list_principals(
    tx: Tx, kinds: Sequence[PrincipalKind], after: str, limit: int
) -> Sequence[Principal]:
    """Return the principals of some kinds by name."""
    wanted = tx.select(PRINCIPAL).where(PRINCIPAL.c.kind.in_(kinds), PRINCIPAL.c.name > after)
    rows = await tx.all(wanted.order_by(PRINCIPAL.c.name).limit(limit))
    return [_principal(row) for row in rows]


async def set_disabled(tx: Tx, principal: Principal, at_us: int | None) -> bool:
    """Disable or enable a principal; False if it has changed meanwhile."""
    return await _change(tx, PRINCIPAL, principal, disabled_at_us=at_us)


async def get_profile(tx: Tx, principal_id: str) -> Profile:
    """Return what is known of a person, which may be nothing."""
    row = await tx.find(tx.select(PROFILE).where(PROFILE.c.principal_id == principal_id))
    return Profile(display_name=row["display_name"], email=row["email"]) if row else Profile()


async def put_profile(tx: Tx, principal_id: str, profile: Profile) -> None:
    """Replace what is known of a person; nothing at all leaves no row."""
    await tx.change(tx.delete(PROFILE).where(PROFILE.c.principal_id == principal_id))
    if profile != Profile():
        await tx.insert(
            PROFILE,
            principal_id=principal_id,
            display_name=profile.display_name,
            email=profile.email,
        )


# roles


async def insert_binding(tx: Tx, binding: Binding) -> None:
    """Add a role of a principal."""
    await tx.insert(ROLE_BINDING, **_values(binding))


async def find_binding(tx: Tx, binding_id: str) -> Binding | None:
    """Return a role of a principal by id."""
    row = await tx.find(tx.select(ROLE_BINDING).where(ROLE_BINDING.c.id == binding_id))
    return _binding(row) if row else None


async def list_bindings(
    tx: Tx, principal_ids: Sequence[str] | None = None, after: str = "", limit: int = 1_000_000
) -> Sequence[Binding]:
    """Return roles by id, ended ones too: of some principals, or of all."""
    wanted = tx.select(ROLE_BINDING).where(ROLE_BINDING.c.id > after)
    if principal_ids is not None:
        wanted = wanted.where(ROLE_BINDING.c.principal_id.in_(principal_ids))
    rows = await tx.all(wanted.order_by(ROLE_BINDING.c.id).limit(limit))
    return [_binding(row) for row in rows]


async def replace_binding(tx: Tx, before: Binding, after: Binding) -> bool:
    """Give or end a role anew; False if it has changed meanwhile."""
    return await _change(
        tx,
        ROLE_BINDING,
        before,
        granted_by=after.granted_by,
        granted_at_us=after.granted_at_us,
        expires_at_us=after.expires_at_us,
        ended_at_us=after.ended_at_us,
    )


# credentials


async def insert_credential(tx: Tx, credential: Credential) -> None:
    """Add a credential."""
    await tx.insert(CREDENTIAL, **_values(credential))


async def find_credential(tx: Tx, credential_id: str) -> Credential | None:
    """Return a credential by id."""
    row = await tx.find(tx.select(CREDENTIAL).where(CREDENTIAL.c.id == credential_id))
    return Credential(**row) if row else None


async def find_digest(tx: Tx, digest: bytes) -> Credential | None:
    """Return the credential of a digest."""
    row = await tx.find(tx.select(CREDENTIAL).where(CREDENTIAL.c.digest == digest))
    return Credential(**row) if row else None


async def list_credentials(
    tx: Tx, principal_id: str | None = None, after: str = "", limit: int = 1_000_000
) -> Sequence[Credential]:
    """Return credentials by id (which is by age), of one principal or of all."""
    wanted = tx.select(CREDENTIAL).where(CREDENTIAL.c.id > after)
    if principal_id is not None:
        wanted = wanted.where(CREDENTIAL.c.principal_id == principal_id)
    rows = await tx.all(wanted.order_by(CREDENTIAL.c.id).limit(limit))
    return [Credential(**row) for row in rows]


async def end_credential(
    tx: Tx, credential: Credential, *, expires_at_us: int | None, revoked_at_us: int | None
) -> bool:
    """Set when a credential ends; False if it has changed meanwhile."""
    return await _change(
        tx, CREDENTIAL, credential, expires_at_us=expires_at_us, revoked_at_us=revoked_at_us
    )


async def mark_used(tx: Tx, credential_id: str, at_us: int) -> None:
    """Note when a credential was last used."""
    used = tx.update(CREDENTIAL).where(CREDENTIAL.c.id == credential_id)
    await tx.change(used.values(last_used_at_us=at_us))


async def mark_seen(tx: Tx, principal_id: str, at_us: int) -> None:
    """Note when a principal was last seen."""
    seen = tx.update(PRINCIPAL).where(PRINCIPAL.c.id == principal_id)
    await tx.change(seen.values(last_seen_at_us=at_us))


async def _change(tx: Tx, table: sa.Table, before: Kept, **values: object) -> bool:
    guarded = tx.update(table).where(table.c.id == before.id, table.c.rev == before.rev)
    return await tx.change(guarded.values(rev=before.rev + 1, **values)) == 1


def _principal(row: Row) -> Principal:
    return Principal(**dict(row) | {"kind": PrincipalKind(row["kind"])})


def _binding(row: Row) -> Binding:
    return Binding(**dict(row) | {"role": Role(row["role"])})


def _values(item: Principal | Binding | Credential) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}

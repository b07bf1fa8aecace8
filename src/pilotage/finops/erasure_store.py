"""What the tables of finops say of a tenant's users in plain words: found and removed."""

from collections.abc import Sequence
from typing import NamedTuple

from pilotage.finops.rules import USER_PART, LimitOwner
from pilotage.finops.store import COUNTER_TOTAL, LIMIT
from pilotage.kit.db import Tx

_PAGE = 500


class NamingLimit(NamedTuple):
    """A limit that names one user."""

    id: str
    rev: int
    name: str
    deleted_at_us: int | None


async def list_naming_limits(tx: Tx, tenant_id: str) -> list[NamingLimit]:
    """Return the limits that name a user of a tenant, deleted ones too."""
    columns = [LIMIT.c[name] for name in NamingLimit._fields]
    named = tx.select(LIMIT, *columns).where(
        LIMIT.c.tenant_id == tenant_id, LIMIT.c.user.not_in(["", "*"])
    )
    return [NamingLimit(**row) for row in await tx.all(named.order_by(LIMIT.c.id))]


async def unname_limit(tx: Tx, limit: NamingLimit) -> bool:
    """End a limit and take its user's name out; False if it has changed meanwhile."""
    values: dict[str, object] = {"user": "", "rev": limit.rev + 1}
    if limit.deleted_at_us is None:
        values |= {"deleted_at_us": tx.now_us, "name": f"{limit.name}~{limit.id}"}
    guarded = tx.update(LIMIT).where(LIMIT.c.id == limit.id, LIMIT.c.rev == limit.rev)
    return await tx.change(guarded.values(**values)) == 1


async def list_user_counters(tx: Tx) -> Sequence[str]:
    """Return the counters that are of one user each."""
    found = tx.select(COUNTER_TOTAL, COUNTER_TOTAL.c.counter).where(
        COUNTER_TOTAL.c.counter.contains(USER_PART, autoescape=True)
    )
    return sorted({row["counter"] for row in await tx.all(found)})


async def list_limit_owners(tx: Tx, project_id: str) -> dict[str, LimitOwner]:
    """Return whom the limits of a project are for that count users apart, by id, deleted too."""
    columns = [LIMIT.c[name] for name in ("id", *LimitOwner._fields)]
    apart = tx.select(LIMIT, *columns).where(LIMIT.c.project_id == project_id, LIMIT.c.user == "*")
    return {row["id"]: LimitOwner(row["tenant_id"], row["key_id"]) for row in await tx.all(apart)}


async def delete_counters(tx: Tx, counters: Sequence[str]) -> int:
    """Remove counters; return how many rows that were."""
    removed = 0
    for start in range(0, len(counters), _PAGE):
        some = counters[start : start + _PAGE]
        removed += await tx.change(
            tx.delete(COUNTER_TOTAL).where(COUNTER_TOTAL.c.counter.in_(some))
        )
    return removed

"""Who is let in: credential and permission, asked before a request is read and whenever it writes.

A body may take its time, and whoever sends it may be shown the door meanwhile.
"""

from dataclasses import dataclass

from fastapi import Request

from pilotage.identity.service import IdentityService
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.server.bodies import check_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """One caller who was let in: who, by which credential, and what for."""

    db: Database
    identity: IdentityService
    actor: Actor
    permission: str
    secret: str

    async def check(self, tx: Tx) -> None:
        """Raise unless the caller would be let in now."""
        await self.identity.check_credential(tx, self.secret)
        await self.identity.authorise(
            tx, self.actor.principal_id, self.permission, self.actor.project_id
        )

    async def check_now(self) -> None:
        """Raise unless the caller would be let in now, in a transaction of its own."""
        async with self.db.read(SYSTEM) as tx:
            await self.check(tx)


async def admit(
    db: Database, identity: IdentityService, request: Request, permission: str, *, is_global: bool
) -> Admission:
    """Let in whoever asks, or raise: they must hold the permission in the project they name.

    A project in which they have no role is ``not_found``, like one that does not exist.
    """
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    secret = credential.strip() if scheme.lower() == "bearer" else ""
    name = request.query_params.get("project", "default")
    principal = await identity.admit(db, secret)
    check_text(name, "project")
    async with db.read(SYSTEM) as tx:
        project_id = None
        if not is_global:
            project_id = (await identity.find_own_project(tx, principal.id, name)).id
        await identity.authorise(tx, principal.id, permission, project_id)
    actor = Actor(principal_id=principal.id, project_id=project_id, reason=_read_reason(request))
    return Admission(db=db, identity=identity, actor=actor, permission=permission, secret=secret)


def _read_reason(request: Request) -> str:
    """Return why something is done; the header is UTF-8, which HTTP itself takes for Latin-1."""
    sent = request.headers.get("x-pilotage-reason", "")
    return sent.encode("latin-1").decode("utf-8", "replace")[:500]

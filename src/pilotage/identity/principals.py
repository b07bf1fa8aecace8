"""Principals, their roles and their credentials.

Never commits: whoever opened the transaction does. Revisions hold ids only: what a principal is
called and its e-mail stay in tables that may change.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.identity import principal_store as store
from pilotage.identity.rules import check_grant, check_own_life, check_profile
from pilotage.identity.types import (
    ADMIN_PREFIX,
    API_KEY_PREFIX,
    EVERYWHERE,
    GATEWAY_PREFIX,
    SERVICE_PREFIX,
    USER_PREFIX,
    Binding,
    Credential,
    Principal,
    PrincipalKind,
    Profile,
    Role,
)
from pilotage.kit.clock import Clock
from pilotage.kit.crypto import digest_secret, is_secret, make_secret
from pilotage.kit.db import SYSTEM, Tx
from pilotage.kit.outbox import append_revision

PAGE = 1_000_000
BOOTSTRAP = "admin"  # the principal of the first start
_PREFIXES = {
    PrincipalKind.USER: USER_PREFIX,
    PrincipalKind.SERVICE_ACCOUNT: SERVICE_PREFIX,
    PrincipalKind.GATEWAY: GATEWAY_PREFIX,
}
_IDS = {
    PrincipalKind.USER: "usr",
    PrincipalKind.SERVICE_ACCOUNT: "svc",
    PrincipalKind.GATEWAY: "gwy",
}


class NewCredential(NamedTuple):
    """A credential and its text, which is shown this once."""

    credential: Credential
    secret: str


class Principals:
    """Who may use the control API, what each may do, and by what each is known."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, int] = {}  # by principal, until it is written
        self._used: dict[str, int] = {}  # by credential

    async def create(
        self,
        tx: Tx,
        kind: PrincipalKind,
        name: str,
        profile: Profile | None = None,
        *,
        subject: str | None = None,
    ) -> Principal:
        """Create a principal without roles or credentials; raise ``already_exists``.

        Names are never reused.
        """
        if await store.find_principal(tx, check_name(name)):
            raise PilotageError(
                "already_exists",
                f"There is or was a principal {name!r} already.",
                hint="Choose another name: what somebody did stays under its own for ever.",
                param="name",
            )
        principal = Principal(
            id=self._clock.new_id(_IDS[kind]),
            rev=1,
            kind=kind,
            name=name,
            created_at_us=tx.now_us,
            subject=subject,
        )
        await store.insert_principal(tx, principal)
        if profile is not None:
            await store.put_profile(tx, principal.id, check_profile(profile))
        await append_revision(
            tx, f"identity.{_noun(principal)}.created", principal.id, 1, _public(principal)
        )
        return principal

    async def get(self, tx: Tx, name_or_id: str) -> Principal:
        """Return a principal by name or id, a disabled one too; raise ``not_found``."""
        principal = await store.find_principal(tx, name_or_id)
        if principal is None:
            raise PilotageError(
                "not_found",
                f"There is no principal {name_or_id!r}.",
                hint="List them: pilotage principals list",
                param="principal",
            )
        return principal

    async def list(
        self,
        tx: Tx,
        after: str = "",
        limit: int = PAGE,
        *,
        kinds: Sequence[PrincipalKind] = tuple(PrincipalKind),
    ) -> Sequence[Principal]:
        """Return principals in order of their names, disabled ones too."""
        return await store.list_principals(tx, kinds, after, limit)

    async def get_profile(self, tx: Tx, principal_id: str) -> Profile:
        """Return what is known of a person, which may be nothing."""
        return await store.get_profile(tx, principal_id)

    async def put_profile(
        self, tx: Tx, name_or_id: str, profile: Profile, expected_rev: int | None = None
    ) -> Principal:
        """Replace what is known of a person; the revision says that it changed, and not what."""
        before = await self.get(tx, name_or_id)
        _expect(expected_rev in (None, before.rev), before.id)
        if check_profile(profile) == await store.get_profile(tx, before.id):
            return before
        after = replace(before, rev=before.rev + 1)
        _expect(await store.set_disabled(tx, before, before.disabled_at_us), before.id)
        await store.put_profile(tx, before.id, profile)
        await append_revision(
            tx, "identity.principal.changed", after.id, after.rev, _public(after), _public(before)
        )
        return after

    async def disable(self, tx: Tx, name_or_id: str) -> Principal:
        """Let a principal do nothing any more; a second time changes nothing.

        Nobody disables themselves: somebody else must be there who can go on.
        """
        principal = await self.get(tx, name_or_id)
        if principal.disabled_at_us is not None:
            return principal
        if principal.id == tx.actor.principal_id:
            raise PilotageError("conflict", "Nobody may disable themselves.")
        return await self._set_disabled(tx, principal, tx.now_us, "disabled")

    async def enable(self, tx: Tx, name_or_id: str) -> Principal:
        """Let a disabled principal act again, with the roles that it still has."""
        principal = await self.get(tx, name_or_id)
        if principal.disabled_at_us is None:
            return principal
        if principal.kind is PrincipalKind.GATEWAY:
            raise PilotageError("conflict", f"The gateway {principal.name!r} is revoked for ever.")
        return await self._set_disabled(tx, principal, None, "enabled")

    # roles

    async def grant(
        self,
        tx: Tx,
        name_or_id: str,
        role: Role,
        *,
        scope: str = EVERYWHERE,
        ttl_us: int | None = None,
        source: str = "",
    ) -> Binding:
        """Give a principal a role, for ``ttl_us`` microseconds (None: until it is ended).

        Raises ``permission_denied`` for whoever would give one to themselves.
        """
        principal = await self.get(tx, name_or_id)
        check_grant(principal, role, tx.actor.principal_id, ttl_us)
        given = Binding(
            id=self._clock.new_id("bnd"),
            rev=1,
            principal_id=principal.id,
            role=role,
            scope=scope,
            granted_by=tx.actor.principal_id,
            granted_at_us=tx.now_us,
            expires_at_us=None if ttl_us is None else tx.now_us + ttl_us,
            ended_at_us=None,
            source=source,
        )
        before = await self._find_same(tx, given)
        if before is None:
            await store.insert_binding(tx, given)
        else:
            if (
                not source
                and before.is_live(tx.now_us)
                and (before.expires_at_us == given.expires_at_us)
            ):
                return before
            given = replace(given, id=before.id, rev=before.rev + 1)
            _expect(await store.replace_binding(tx, before, given), before.id)
        await append_revision(tx, "identity.role.granted", given.id, given.rev, given, before)
        return given

    async def end_binding(self, tx: Tx, binding_id: str) -> Binding:
        """Take a role away; a second time changes nothing."""
        before = await store.find_binding(tx, binding_id)
        if before is None:
            raise PilotageError(
                "not_found",
                f"There is no role binding {binding_id!r}.",
                hint="List them: pilotage roles list",
            )
        if before.ended_at_us is not None:
            return before
        ended = replace(before, rev=before.rev + 1, ended_at_us=tx.now_us)
        _expect(await store.replace_binding(tx, before, ended), before.id)
        await append_revision(tx, "identity.role.ended", ended.id, ended.rev, ended, before)
        return ended

    async def list_bindings(
        self, tx: Tx, principal: str | None = None, after: str = "", limit: int = PAGE
    ) -> Sequence[Binding]:
        """Return the roles of a principal, or of all, oldest first, ended ones too."""
        owner = None if principal is None else [(await self.get(tx, principal)).id]
        return await store.list_bindings(tx, owner, after, limit)

    async def scopes_of(self, tx: Tx, principal_id: str) -> dict[str, frozenset[Role]]:
        """Return the roles a principal has now, by scope; none while it is disabled."""
        principal = await store.find_principal(tx, principal_id)
        if principal is None or principal.disabled_at_us is not None:
            return {}
        found: dict[str, set[Role]] = {}
        for binding in await store.list_bindings(tx, [principal.id]):
            if binding.is_live(tx.now_us):
                found.setdefault(binding.scope, set()).add(binding.role)
        return {scope: frozenset(roles) for scope, roles in found.items()}

    # credentials

    async def issue(
        self, tx: Tx, name_or_id: str, ttl_us: int | None = None, *, prefix: str = ""
    ) -> NewCredential:
        """Make a credential of a principal, living ``ttl_us`` microseconds (None: for ever).

        What somebody makes of their own counts as made by whoever made what lets them in: that one
        may be sitting there.
        """
        principal = await self.get(tx, name_or_id)
        if principal.disabled_at_us is not None:
            raise PilotageError("conflict", f"{principal.name!r} is disabled.")
        if ttl_us is not None and ttl_us <= 0:
            raise PilotageError(
                "invalid_request", "A credential must live for some time.", param="expires_in"
            )
        secret = make_secret(prefix or _PREFIXES[principal.kind])
        made = Credential(
            id=self._clock.new_id("crd"),
            rev=1,
            principal_id=principal.id,
            digest=digest_secret(secret),
            hint=secret[-4:],
            created_at_us=tx.now_us,
            created_by=await self._find_maker(tx, principal),
            expires_at_us=None if ttl_us is None else tx.now_us + ttl_us,
            revoked_at_us=None,
        )
        await store.insert_credential(tx, made)
        await append_revision(tx, "identity.credential.created", made.id, 1, _without_digest(made))
        return NewCredential(made, secret)

    async def get_credential(self, tx: Tx, credential_id: str) -> Credential:
        """Return a credential by id; raise ``not_found``."""
        found = await store.find_credential(tx, credential_id)
        if found is None:
            raise PilotageError(
                "not_found",
                f"There is no credential {credential_id!r}.",
                hint="List them: pilotage credentials list",
            )
        return found

    async def list_credentials(
        self, tx: Tx, principal: str | None = None, after: str = "", limit: int = PAGE
    ) -> Sequence[Credential]:
        """Return the credentials of a principal, or of all, oldest first, ended ones too."""
        owner = None if principal is None else (await self.get(tx, principal)).id
        return await store.list_credentials(tx, owner, after, limit)

    async def revoke_credential(self, tx: Tx, credential_id: str) -> Credential:
        """Refuse a credential for ever; a second time changes nothing."""
        before = await self.get_credential(tx, credential_id)
        if before.revoked_at_us is not None:
            return before
        return await self._end(tx, before, replace(before, revoked_at_us=tx.now_us), "revoked")

    async def rotate(
        self, tx: Tx, credential_id: str, overlap_us: int, ttl_us: int | None = None
    ) -> NewCredential:
        """Make another credential of the same principal; this one ends when the overlap is over.

        The other lives as long as this one was made for, unless ``ttl_us`` says how long.
        """
        before = await self.get_credential(tx, credential_id)
        if not before.is_live(tx.now_us):
            raise PilotageError("conflict", f"The credential {credential_id} has ended already.")
        if ttl_us is None and before.expires_at_us is not None:
            ttl_us = before.expires_at_us - before.created_at_us
        made = await self.issue(tx, before.principal_id, ttl_us)
        ends_us = tx.now_us + overlap_us
        if before.expires_at_us is None or ends_us < before.expires_at_us:
            await self._end(tx, before, replace(before, expires_at_us=ends_us), "rotated")
        return made

    async def rotate_own(
        self, tx: Tx, credential_id: str, overlap_us: int, ttl_us: int | None = None
    ) -> NewCredential:
        """Rotate a credential of the actor's own, for a life no longer than it was made for.

        Raises ``not_found`` for somebody else's, ``permission_denied`` for a longer life.
        """
        before = await store.find_credential(tx, credential_id)
        if before is None or before.principal_id != tx.actor.principal_id:
            raise PilotageError("not_found", f"You have no credential {credential_id!r}.")
        if before.expires_at_us is not None and ttl_us is not None:
            check_own_life(before.expires_at_us - before.created_at_us, ttl_us)
        return await self.rotate(tx, credential_id, overlap_us, ttl_us)

    async def list_armers(self, tx: Tx, principal_id: str, at_us: int) -> Sequence[str]:
        """Return who else made a credential by which a principal was known at a moment.

        Each may have acted as that principal then; who made the newest comes last.
        """
        return [
            item.created_by
            for item in await store.list_credentials(tx, principal_id)
            if item.was_live(at_us) and item.created_by not in (SYSTEM.principal_id, principal_id)
        ]

    async def authenticate(self, tx: Tx, secret: str) -> tuple[Principal, Credential]:
        """Return whose credential it is; raise ``invalid_credential``."""
        credential = None
        if any(is_secret(prefix, secret) for prefix in (ADMIN_PREFIX, *_PREFIXES.values())):
            credential = await store.find_digest(tx, digest_secret(secret))
        if credential is not None and credential.is_live(tx.now_us):
            principal = await self.get(tx, credential.principal_id)
            if principal.disabled_at_us is None:
                return principal, credential
        hint = "Send 'Authorization: Bearer CREDENTIAL' with the one in credentials.toml."
        if secret.startswith(API_KEY_PREFIX):
            hint = "An API key is for /v1; the control API takes the credential of a principal."
        raise PilotageError(
            "invalid_credential", "The credential is missing or not valid.", hint=hint
        )

    def note_seen(self, principal: Principal, credential: Credential | None = None) -> None:
        """Remember that somebody is here; :meth:`write_seen` writes it, now and then."""
        self._seen[principal.id] = self._clock.now_us()
        if credential is not None:
            self._used[credential.id] = self._clock.now_us()

    async def write_seen(self, tx: Tx) -> None:
        """Write when principals were seen and credentials used; no revision tells of it."""
        seen, self._seen = self._seen, {}
        used, self._used = self._used, {}
        for principal_id, at_us in seen.items():
            await store.mark_seen(tx, principal_id, at_us)
        for credential_id, at_us in used.items():
            await store.mark_used(tx, credential_id, at_us)

    @property
    def has_seen(self) -> bool:
        """Whether there is something for :meth:`write_seen`."""
        return bool(self._seen)

    async def bootstrap(self, tx: Tx) -> str:
        """Make the first administrator, or give it another credential; return that.

        Whoever owns the data folder owns the installation: it is enabled and administrator again.
        """
        admin = await store.find_principal(tx, BOOTSTRAP)
        if admin is None:
            admin = await self.create(tx, PrincipalKind.USER, BOOTSTRAP)
        admin = await self.enable(tx, admin.id)
        await self.grant(tx, admin.id, Role.ADMIN)
        for credential in await store.list_credentials(tx, admin.id):
            await self.revoke_credential(tx, credential.id)
        return (await self.issue(tx, admin.id, prefix=ADMIN_PREFIX)).secret

    async def _find_same(self, tx: Tx, wanted: Binding) -> Binding | None:
        same = (wanted.role, wanted.scope, wanted.source)
        for binding in await store.list_bindings(tx, [wanted.principal_id]):
            if (binding.role, binding.scope, binding.source) == same:
                return binding
        return None

    async def _find_maker(self, tx: Tx, principal: Principal) -> str:
        by = tx.actor.principal_id
        armers = await self.list_armers(tx, by, tx.now_us) if by == principal.id else ()
        return armers[-1] if armers else by

    async def _set_disabled(
        self, tx: Tx, principal: Principal, at_us: int | None, verb: str
    ) -> Principal:
        after = replace(principal, rev=principal.rev + 1, disabled_at_us=at_us)
        _expect(await store.set_disabled(tx, principal, at_us), principal.id)
        event = f"identity.{_noun(principal)}.{verb}"
        if principal.kind is PrincipalKind.GATEWAY:
            event = "identity.gateway.revoked"
        await append_revision(
            tx, event, principal.id, after.rev, _public(after), _public(principal)
        )
        return after

    async def _end(self, tx: Tx, before: Credential, after: Credential, verb: str) -> Credential:
        after = replace(after, rev=before.rev + 1)
        changed = await store.end_credential(
            tx, before, expires_at_us=after.expires_at_us, revoked_at_us=after.revoked_at_us
        )
        _expect(changed, before.id)
        await append_revision(
            tx,
            f"identity.credential.{verb}",
            after.id,
            after.rev,
            _without_digest(after),
            _without_digest(before),
        )
        return after


def _noun(principal: Principal) -> str:
    return "gateway" if principal.kind is PrincipalKind.GATEWAY else "principal"


def _public(principal: Principal) -> dict[str, object]:
    """Return what a revision says of a principal: a gateway's name, but nobody else's."""
    shown: dict[str, object] = {
        "id": principal.id,
        "kind": principal.kind,
        "disabled_at_us": principal.disabled_at_us,
    }
    if principal.kind is PrincipalKind.GATEWAY:
        shown["name"] = principal.name
    return shown


def _without_digest(credential: Credential) -> dict[str, object]:
    hidden = ("digest", "last_used_at_us")
    return {
        name: getattr(credential, name)
        for name in Credential.__dataclass_fields__
        if name not in hidden
    }


def _expect(changed: bool, subject: str) -> None:  # noqa: FBT001 - what a guarded update returned
    if not changed:
        raise PilotageError("precondition_failed", f"{subject} has changed meanwhile.")

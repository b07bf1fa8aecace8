"""Calls, aliases and Snapshots made by hand, for tests of single steps."""

from collections.abc import Sequence
from typing import Any

from gateway_harness import make_rates
from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import (
    FULL_WEIGHT,
    AliasEntry,
    ArmEntry,
    KeyTable,
    LimitEntry,
    Manifest,
    TenantEntry,
    UpstreamEntry,
)
from pilotage.gateway.call import Call
from pilotage.gateway.providers.target import Target
from pilotage.gateway.snapshots import AliasView, SnapshotView
from pilotage.gateway.transport.upstream import Pool
from pilotage.gateway.wire import openai
from pilotage.gateway.wire.door import Wire

PROJECT = "prj_1"
BODY = b'{"model":"chat","messages":[{"role":"user","content":"hello"}]}'


def make_arm(arm_id: str = "dep_a", weight: int = FULL_WEIGHT, **more: Any) -> ArmEntry:  # noqa: ANN401
    """Return an arm with a price."""
    values: dict[str, Any] = {
        "id": arm_id,
        "weight": weight,
        "version_id": f"ver_{arm_id}",
        "model": f"model-{arm_id}@1.0.0",
        "context_tokens": 2048,
        "rates": make_rates(),
    }
    return ArmEntry(**values | more)


def make_alias(*arms: ArmEntry, **more: Any) -> AliasView:  # noqa: ANN401
    """Return an alias ``chat`` with these arms, or with one."""
    values: dict[str, Any] = {
        "project_id": PROJECT,
        "name": "chat",
        "created_at_us": 0,
        "salt": "salt",
        "max_output_tokens": 256,
        "arms": list(arms) or [make_arm()],
    }
    return AliasView(AliasEntry(**values | more))


def make_view(
    *aliases: AliasView,
    limits: Sequence[LimitEntry] = (),
    upstreams: Sequence[UpstreamEntry] = (),
) -> SnapshotView:
    """Return a Snapshot of these aliases."""
    manifest = Manifest(
        n=1, parent="", created_at_us=0, expires_at_us=0, oldest_gateway=1, covers=1, sections={}
    )
    return SnapshotView(
        manifest=manifest,
        tenants={},
        aliases={(a.entry.project_id, a.entry.name): a for a in aliases},
        revoked=frozenset(),
        base=KeyTable(b""),
        delta=KeyTable(b""),
        upstreams=upstreams,
        limits=limits,
    )


def make_call(
    alias: AliasView | None = None,
    *,
    view: SnapshotView | None = None,
    tenant: TenantEntry | None = None,
    wire: Wire = openai.CHAT,
    body: bytes = BODY,
    call_id: str = "call_1",
    **more: Any,  # noqa: ANN401
) -> Call:
    """Return a call; needs a running task."""
    values: dict[str, Any] = {
        "call_id": call_id,
        "wire": wire,
        "view": view or make_view(*([alias] if alias else [])),
        "tenant": tenant or TenantEntry(id="ten_1", name="acme", project_id=PROJECT),
        "key_id": "key_1",
        "alias": alias,
        "request": wire.decode_request(body),
        "body": body,
        "started_s": 0.0,
        "deadline_s": 1.0,
    }
    return Call(**values | more)


class MadeTarget:
    """A target that is only chosen and left; it is not asked."""

    wire = "openai"
    adapters: tuple[str, ...] = ()
    pool: Pool

    def __init__(self, target_id: str) -> None:
        self.id = target_id
        self.busy = 0
        self.is_retired = False

    def enter(self) -> None:
        """Count a call in."""
        self.busy += 1

    def leave(self) -> None:
        """Count a call out."""
        self.busy -= 1

    async def make_head(self, path: bytes, call: Call) -> bytes:
        """Say that nobody is to be asked."""
        raise NotImplementedError

    async def renew_head(self, path: bytes, call: Call) -> bytes | None:
        """Say that nobody is to be asked."""
        raise NotImplementedError

    def translate_error(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> PilotageError:
        """Say that nobody is to be asked."""
        raise NotImplementedError


class MadeTargets:
    """One target for each arm, named for it (or for its upstream)."""

    def __init__(self) -> None:
        self.by_id: dict[str, MadeTarget] = {}

    def pick(self, arm: ArmEntry, call: Call) -> Target | None:
        """Return the arm's target."""
        name = arm.upstream_id or arm.id
        return self.by_id.setdefault(name, MadeTarget(name))

    async def wait(self, arm: ArmEntry, call: Call) -> Target:
        """Say that nobody waits."""
        raise NotImplementedError

"""The data plane's own decisions: who may call, what it trusts, when it is ready."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway_harness import ALIAS, CLOCK, World
from pilotage.core.errors import PilotageError
from pilotage.core.key_scopes import OPERATIONS, KeyScope
from pilotage.gateway.call import Call
from pilotage.gateway.counters.checkpoint import Checkpoint
from pilotage.gateway.counters.limits import Limits
from pilotage.gateway.counters.memory import MemoryStore
from pilotage.gateway.plane import Caller, DataPlane, PlaneLimits, Sent
from pilotage.gateway.snapshots import SnapshotReader
from pilotage.gateway.targets import TargetsFile
from pilotage.gateway.wire.door import Wire
from pilotage.gateway.wire.embeddings import EMBEDDINGS
from pilotage.gateway.wire.openai import CHAT
from pilotage.kit.clock import Clock, ManualClock
from pilotage.kit.crypto import digest_secret, make_secret
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.spool import SpoolWriter, open_spool

HOUR_US = 3_600_000_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
async def spool(world: World) -> AsyncIterator[SpoolWriter]:
    with open_spool(world.spool, segment_bytes=1 << 20, reserve_bytes=0, sync="none") as spool:
        yield spool


@pytest.fixture
def plane(world: World, spool: SpoolWriter) -> DataPlane:
    return make_plane(world, spool)


def make_plane(
    world: World, spool: SpoolWriter, oldest_n: int = 0, clock: Clock = CLOCK
) -> DataPlane:
    return DataPlane(
        snapshots=SnapshotReader(world.folder.snapshots, world.signer.public),
        targets=TargetsFile(world.folder.targets),
        spool=spool,
        clock=clock,
        limits=PlaneLimits(),
        egress=EgressPolicy("", clock),
        counters=Limits(
            MemoryStore(clock),
            clock,
            world.spool,
            Checkpoint(owner="gateway-0:1", life=1, seq=0),
            call_timeout_s=60,
        ),
        oldest_n=oldest_n,
    )


def refuse(plane: DataPlane, secret: str) -> PilotageError:
    with pytest.raises(PilotageError) as caught:
        plane.authenticate(secret.encode())
    assert secret not in f"{caught.value.detail} {caught.value.hint}"
    return caught.value


async def test_a_key_is_its_tenants(world: World, plane: DataPlane) -> None:
    live = make_secret("plt_live_")
    world.keys.append(world.make_key(live, CLOCK.new_id("key"), CLOCK.now_us() + HOUR_US))
    world.publish()
    assert plane.refresh()
    caller = plane.authenticate(world.secret.encode())
    assert (caller.tenant, caller.key_id) == (world.tenant, world.key_id)
    assert plane.authenticate(live.encode()).tenant == world.tenant


async def test_keys_that_are_none_are_refused(world: World, plane: DataPlane) -> None:
    expired, revoked, orphan = (make_secret("plt_live_") for _ in range(3))
    world.keys += [
        world.make_key(expired, CLOCK.new_id("key"), CLOCK.now_us() - 1),
        world.make_key(revoked, CLOCK.new_id("key")),
        world.make_key(orphan, CLOCK.new_id("key"))._replace(tenant_uuid=b"\0" * 16),
    ]
    world.revoked.append(digest_secret(revoked))
    world.publish()
    plane.refresh()
    for secret in (expired, revoked, orphan, make_secret("plt_live_"), "x", "é"):
        assert refuse(plane, secret).code == "invalid_api_key"
    assert "expired" in refuse(plane, expired).detail
    assert "control API" in refuse(plane, make_secret("plt_admin_")).hint


async def test_a_plane_without_a_valid_snapshot_is_not_ready(
    world: World, plane: DataPlane
) -> None:
    assert not plane.refresh()
    assert plane.find_problem() == "no Snapshot yet"
    assert refuse(plane, world.secret).code == "not_ready"
    world.publish(max_age_s=-1)
    assert plane.refresh()
    assert plane.find_problem() == ("Snapshot 1 has expired: the control plane has not renewed it")
    assert refuse(plane, world.secret).retry_after_s == 1.0
    world.publish()
    assert plane.refresh()
    assert plane.find_problem() == ""


async def test_what_was_served_before_a_restart_is_the_oldest(
    world: World, spool: SpoolWriter
) -> None:
    plane = make_plane(world, spool, oldest_n=2)
    world.publish()
    assert not plane.refresh()
    assert plane.find_problem() == "Snapshot 1 is older than 2, which was served before"
    world.publish()
    assert plane.refresh()


async def test_a_broken_snapshot_leaves_the_one_in_use(
    world: World, plane: DataPlane, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish()
    plane.refresh()
    (world.folder.snapshots / "current").write_text("{")
    assert not plane.refresh()
    assert plane.view is not None
    assert plane.view.n == 1
    assert plane.find_problem() == ""
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    world.publish()
    assert plane.refresh()


async def test_broken_targets_leave_those_in_use(
    world: World, plane: DataPlane, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish()
    world.folder.targets.write_text('{"replicas":[{"id":5}]}')
    assert plane.refresh()
    assert "Targets refused" in caplog.text
    assert not plane.refresh()
    assert len(caplog.records) == 1  # said once


async def test_no_call_is_opened_once_a_drain_has_begun(world: World, plane: DataPlane) -> None:
    world.publish()
    plane.refresh()
    caller = plane.authenticate(world.secret.encode())
    body = b'{"model":"chat","messages":[{}]}'
    await plane.drain(0)
    for act in (
        lambda: plane.authenticate(world.secret.encode()),
        lambda: plane.open_call(caller, CHAT, body, 0.0, Sent()),
    ):
        with pytest.raises(PilotageError) as caught:
            act()
        assert (caught.value.code, caught.value.retry_after_s) == ("draining", 1.0)
    assert plane.find_problem() == "draining"


def open_chat(plane: DataPlane, caller: Caller) -> Call:
    """Open a call whose body is all there now."""
    body = b'{"model":"chat","messages":[{"role":"user","content":"a"}]}'
    return plane.open_call(caller, CHAT, body, 0.0, Sent())


async def test_a_call_is_of_the_snapshot_in_use_when_its_body_is_there(
    world: World, plane: DataPlane
) -> None:
    world.publish()
    plane.refresh()
    caller = plane.authenticate(world.secret.encode())
    assert open_chat(plane, caller).view is caller.view
    world.tenant = replace(world.tenant, data_class="restricted")
    world.publish(max_output_tokens=7)
    plane.refresh()
    call = open_chat(plane, caller)
    assert call.view is plane.view is not caller.view
    assert call.tenant.data_class == "restricted"
    assert call.alias is not None
    assert call.alias.entry.max_output_tokens == 7
    world.keys[0] = world.keys[0]._replace(scope=7)
    world.publish(scopes={7: KeyScope(operations=("models",))})
    plane.refresh()
    with pytest.raises(PilotageError, match="not for the operation chat"):
        open_chat(plane, caller)


@pytest.mark.parametrize("way", ["revoked", "gone", "tenant gone"])
async def test_a_key_that_is_refused_by_the_time_of_the_body_makes_no_call(
    world: World, plane: DataPlane, way: str
) -> None:
    world.publish()
    plane.refresh()
    caller = plane.authenticate(world.secret.encode())
    if way == "revoked":
        world.revoked.append(digest_secret(world.secret))
    elif way == "gone":
        world.keys.clear()
    else:
        world.keys[0] = world.keys[0]._replace(tenant_uuid=b"\0" * 16)
    world.publish()
    plane.refresh()
    with pytest.raises(PilotageError) as caught:
        open_chat(plane, caller)
    assert caught.value.code == "invalid_api_key"


async def test_a_key_or_a_snapshot_that_expires_before_the_body_makes_no_call(
    world: World, spool: SpoolWriter
) -> None:
    clock = ManualClock(CLOCK.now_us())
    plane = make_plane(world, spool, clock=clock)
    short = make_secret("plt_live_")
    world.keys.append(world.make_key(short, CLOCK.new_id("key"), clock.now_us() + 60_000_000))
    world.publish(max_age_s=600)
    plane.refresh()
    brief, lasting = (plane.authenticate(secret.encode()) for secret in (short, world.secret))
    clock.advance(59)
    open_chat(plane, brief)
    clock.advance(1)
    open_chat(plane, lasting)
    with pytest.raises(PilotageError, match="has expired") as caught:
        open_chat(plane, brief)
    assert caught.value.code == "invalid_api_key"
    clock.advance(600)
    with pytest.raises(PilotageError, match="Snapshot 1 has expired") as caught:
        open_chat(plane, lasting)
    assert caught.value.code == "not_ready"


async def test_a_key_is_for_what_its_scope_names(world: World, plane: DataPlane) -> None:
    only_chat = KeyScope(aliases=(ALIAS,), operations=("chat", "models"))
    world.keys[0] = world.keys[0]._replace(scope=7)
    world.publish(scopes={7: only_chat})
    assert plane.refresh()
    caller = plane.authenticate(world.secret.encode())

    def ask(wire: Wire, model: str) -> str:
        body = b'{"model":"%b","input":"a","messages":[{"role":"user","content":"a"}]}'
        try:
            plane.open_call(caller, wire, body % model.encode(), 0.0, Sent())
        except PilotageError as refused:
            return refused.code
        return ""

    assert caller.scope == only_chat
    assert ask(CHAT, ALIAS) == ""
    assert open_chat(plane, caller).scope == only_chat
    assert {ask(CHAT, "other"), ask(EMBEDDINGS, ALIAS)} == {"permission_denied"}
    caller.require("models")
    with pytest.raises(PilotageError, match="not for the operation usage"):
        caller.require("usage")
    views = caller.view.list_aliases(world.tenant.project_id, KeyScope(aliases=("other",)))
    assert list(views) == []


async def test_a_key_whose_scope_is_not_in_the_snapshot_is_for_nothing(
    world: World, plane: DataPlane
) -> None:
    world.keys[0] = world.keys[0]._replace(scope=7)
    world.publish()
    assert plane.refresh()
    caller = plane.authenticate(world.secret.encode())
    for operation in OPERATIONS:
        with pytest.raises(PilotageError) as refused:
            caller.require(operation)
        assert refused.value.code == "permission_denied"

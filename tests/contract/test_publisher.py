"""The publisher on both databases: what the gateway's reader believes of each Snapshot."""

import asyncio
import hashlib
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import pytest

from pilotage.core.ids import uuid_bytes
from pilotage.core.key_scopes import KeyScope
from pilotage.core.snapshot import SECTIONS
from pilotage.gateway.snapshots import SnapshotView
from pilotage.identity.service import NewKey
from pilotage.identity.types import DEFAULT, DataClass, TenantSettings
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.publisher import store
from pilotage.publisher.folder import KEPT_S, SnapshotFolder
from pilotage.publisher.rules import MERGE_AT
from published import DAY_US, Plane, open_plane


@pytest.fixture
async def plane(database: Database, clock: ManualClock, tmp_path: Path) -> Plane:
    return await open_plane(database, clock, tmp_path)


def is_known(view: SnapshotView, key: NewKey) -> bool:
    return view.find_key(key.key.digest) is not None


def list_sections(plane: Plane) -> set[str]:
    return {path.name for path in (plane.folder / SECTIONS).iterdir()}


# what is in a Snapshot


async def test_a_rotated_key_ends_with_its_overlap_and_its_scope_goes_along(
    plane: Plane, clock: ManualClock
) -> None:
    scope = KeyScope(aliases=("chat",), operations=("models",))
    async with plane.db.write(plane.actor) as tx:
        old = await plane.identity.create_key(tx, DEFAULT, "ci", scope=scope)
    publisher = plane.open_publisher()
    assert await publisher.publish()
    async with plane.db.write(plane.actor) as tx:
        new = await plane.identity.rotate_key(tx, old.key.id, DAY_US)
    assert await publisher.publish()

    view = plane.read()
    records = [view.find_key(item.key.digest) for item in (old, new)]
    assert [record and record.expires_at_us for record in records] == [tx.now_us + DAY_US, 0]
    assert [record and view.find_scope(record) for record in records] == [scope, scope]
    clock.advance(DAY_US / 1e6 + 1)
    await plane.create_key(DEFAULT)
    assert await publisher.publish()
    record = plane.read().find_key(old.key.digest)  # the base knows it without an end
    assert record is not None
    assert record.expires_at_us == tx.now_us + DAY_US


async def test_a_snapshot_holds_what_there_is_and_nothing_else(plane: Plane) -> None:
    team = await plane.create_tenant("team")
    await plane.create_tenant("gone")
    kept = await plane.create_key("team", ttl_us=DAY_US)
    revoked, orphan = await plane.create_key("team"), await plane.create_key("gone")
    await plane.revoke_key(revoked.key.id)
    await plane.delete_tenant("gone")
    await plane.serve("chat", "tiny@1.0.0", "tiny@2.0.0")
    await plane.set_price("tiny")

    assert await plane.open_publisher().publish()

    view = plane.read()
    record = view.find_key(kept.key.digest)
    assert record is not None
    assert record.key_uuid == uuid_bytes(kept.key.id)
    assert record.tenant_uuid == uuid_bytes(team)
    assert record.expires_at_us == kept.key.expires_at_us
    assert not is_known(view, revoked)
    assert not is_known(view, orphan)
    assert sorted(entry.name for entry in view.tenants.values()) == [DEFAULT, "team"]
    (alias,) = view.list_aliases(plane.actor.project_id or "")
    assert alias.entry.name == "chat"
    assert [(arm.model, arm.weight) for arm in alias.entry.arms] == [
        ("tiny@1.0.0", 10_000),
        ("tiny@2.0.0", 0),
    ]
    assert [arm.context_tokens for arm in alias.entry.arms] == [512, 512]
    assert (view.n, view.manifest.parent) == (1, "")
    assert view.manifest.covers == await plane.last_seq()


async def test_a_new_key_is_in_the_delta_and_a_revoked_one_in_the_revoked(plane: Plane) -> None:
    publisher = plane.open_publisher()
    old = await plane.create_key()
    await publisher.publish()
    base = plane.read().manifest.sections["keys"]

    new = await plane.create_key()
    await publisher.publish()
    created = plane.read()
    await plane.revoke_key(old.key.id)
    await publisher.publish()
    revoked = plane.read()

    assert created.manifest.sections["keys"] == base
    assert created.manifest.sections["keys-delta"].size == 80
    assert is_known(created, old)
    assert is_known(created, new)
    assert revoked.manifest.sections["keys"] == base
    assert revoked.manifest.sections["revoked"].size == 32
    assert not is_known(revoked, old)
    assert is_known(revoked, new)


async def test_gateways_can_seal_comments_of_tenants_that_keep_them(plane: Plane) -> None:
    publisher = plane.open_publisher()

    async def publish(settings: TenantSettings) -> str:
        async with plane.db.write(plane.actor) as tx:
            await plane.identity.change_tenant(tx, DEFAULT, settings)
        while await publisher.publish():
            pass
        return next(iter(plane.read().tenants.values())).letterbox

    assert not await publish(TenantSettings())
    assert (letterbox := await publish(TenantSettings(keeps_comments=True)))
    assert await publish(TenantSettings(keeps_comments=True, log_share=1)) == letterbox
    assert not await publish(TenantSettings(keeps_comments=True, data_class=DataClass.RESTRICTED))


async def test_a_thousand_changed_keys_become_a_new_base(plane: Plane) -> None:
    publisher = plane.open_publisher()
    first = await plane.create_key()
    await publisher.publish()
    short, gone = await plane.create_key(ttl_us=1_000_000), await plane.create_key()
    await plane.revoke_key(gone.key.id)
    async with plane.db.write(plane.actor) as tx:
        made = [await plane.identity.create_key(tx, DEFAULT, "many") for _ in range(MERGE_AT - 3)]
    await publisher.publish()
    before = plane.read()
    plane.clock.advance(2)
    made.append(await plane.create_key())
    await publisher.publish()

    after = plane.read()
    assert before.manifest.sections["keys-delta"].size == 80 * (MERGE_AT - 2)
    assert before.manifest.sections["revoked"].size == 32
    assert after.manifest.sections["keys-delta"].size == 0
    assert after.manifest.sections["revoked"].size == 0
    assert after.manifest.sections["keys"].size == 80 * (MERGE_AT - 1)
    assert is_known(before, short)
    assert not is_known(after, short)
    assert not is_known(after, gone)
    assert all(is_known(after, key) for key in [first, *made])


async def test_an_endpoint_appears_once_it_has_a_price(plane: Plane) -> None:
    publisher = plane.open_publisher()
    await plane.serve("chat", "tiny@1.0.0")
    await plane.serve("empty")
    await publisher.publish()
    reasons = {item.name: item.reason for item in publisher.unpublished}
    aliases = plane.read().aliases

    await plane.set_price("tiny")
    await publisher.publish()

    assert aliases == {}
    assert reasons == {
        "chat": "no price for tiny@1.0.0",
        "empty": "no deployment takes traffic",
    }
    assert [name for _, name in plane.read().aliases] == ["chat"]
    assert [item.name for item in publisher.unpublished] == ["empty"]


async def test_a_split_is_one_new_directory(plane: Plane) -> None:
    publisher = plane.open_publisher()
    await plane.serve("chat", "tiny@1.0.0", "tiny@2.0.0")
    await plane.set_price("tiny")
    await publisher.publish()
    before = plane.read().manifest.sections
    async with plane.db.write(plane.actor) as tx:
        shares = {"1.0.0": Decimal(25), "2.0.0": Decimal(75)}
        await plane.endpoints.split(tx, "chat", shares)
    await publisher.publish()

    view = plane.read()
    (alias,) = view.aliases.values()
    assert [arm.weight for arm in alias.entry.arms] == [2_500, 7_500]
    changed = {name for name, ref in view.manifest.sections.items() if before[name] != ref}
    assert changed == {"directory"}


# when there is a new one


async def test_nothing_changed_is_nothing_published(plane: Plane) -> None:
    publisher = plane.open_publisher()

    assert await publisher.publish()
    assert not await publisher.publish()
    plane.clock.advance(3_599)
    assert not await publisher.publish()
    assert plane.read().n == 1


async def test_a_snapshot_is_renewed_after_an_hour(plane: Plane) -> None:
    publisher = plane.open_publisher()
    await publisher.publish()
    first = plane.read().manifest
    plane.clock.advance(3_600)

    assert await publisher.publish()

    second = plane.read().manifest
    assert (second.n, second.sections, second.covers) == (2, first.sections, first.covers)
    assert second.expires_at_us - first.expires_at_us == 3_600_000_000


async def test_a_price_for_later_is_published_in_time_also_after_a_restart(plane: Plane) -> None:
    await plane.serve("chat", "tiny@1.0.0")
    await plane.set_price("tiny")
    await plane.set_price("tiny", plane.clock.now_us() + 60_000_000, "2")
    await plane.set_price("tiny", plane.clock.now_us() + 120_000_000, "3")
    publisher = plane.open_publisher()
    await publisher.publish()
    costs = [dearest(plane)]
    plane.clock.advance(59)
    assert not await publisher.publish()
    plane.clock.advance(1)
    assert await publisher.publish()
    costs.append(dearest(plane))

    reopened = plane.open_publisher()
    assert not await reopened.publish()
    plane.clock.advance(60)
    assert await reopened.publish()
    costs.append(dearest(plane))

    assert costs == [1_000_000_000, 2_000_000_000, 3_000_000_000]


async def test_what_became_valid_while_nothing_ran_is_published_at_the_start(plane: Plane) -> None:
    await plane.serve("chat", "tiny@1.0.0")
    await plane.set_price("tiny")
    await plane.set_price("tiny", plane.clock.now_us() + 60_000_000, "2")
    await plane.open_publisher().publish()
    plane.clock.advance(61)

    assert await plane.open_publisher().publish()
    assert dearest(plane) == 2_000_000_000


def dearest(plane: Plane) -> int:
    (alias,) = plane.read().aliases.values()
    return alias.dearest_input


async def test_whoever_waits_is_told_the_snapshot_that_has_the_change(plane: Plane) -> None:
    publisher = plane.open_publisher()
    await publisher.publish()
    await plane.create_key()
    seq = await plane.last_seq()
    too_early = await publisher.wait_published(seq, 0)
    await publisher.publish()

    assert too_early is None
    assert await publisher.wait_published(seq, 0) == 2


# the line of Snapshots


def manifest_hash(plane: Plane) -> str:
    current = SnapshotFolder(plane.folder, plane.signer).find_current()
    assert current is not None
    return current.sha256


async def test_a_restart_continues_the_line(plane: Plane) -> None:
    await plane.open_publisher().publish()
    first = manifest_hash(plane)
    key = await plane.create_key()
    restarted = plane.open_publisher()

    assert await restarted.publish()
    assert not await restarted.publish()

    view = plane.read()
    assert (view.n, view.manifest.parent) == (2, first)
    assert is_known(view, key)


async def test_a_crash_before_the_line_moved_breaks_nothing(plane: Plane) -> None:
    publisher = plane.open_publisher()
    await publisher.publish()
    async with plane.db.read(SYSTEM) as tx:
        line = await store.get_line(tx)
    await plane.create_key()
    await publisher.publish()
    second = manifest_hash(plane)
    async with plane.db.write(SYSTEM) as tx:  # as if the process had died right after the file
        await store.set_line(tx, await store.get_line(tx), line)
    key = await plane.create_key()

    await plane.open_publisher().publish()

    view = plane.read()
    assert (view.n, view.manifest.parent) == (3, second)
    assert is_known(view, key)


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_cleared_folder_is_filled_again(plane: Plane, is_restarted: bool) -> None:
    publisher = plane.open_publisher()
    old = await plane.create_key()
    await publisher.publish()
    new = await plane.create_key()
    await publisher.publish()
    before = manifest_hash(plane)
    shutil.rmtree(plane.folder)

    assert await (plane.open_publisher() if is_restarted else publisher).publish()

    view = plane.read()
    assert is_known(view, old)
    assert is_known(view, new)
    assert (view.n, view.manifest.parent) == (3, before)


@pytest.mark.parametrize("name", ["keys", "keys-delta", "directory", "revoked"])
async def test_a_lost_or_cut_section_is_written_again(plane: Plane, name: str) -> None:
    publisher = plane.open_publisher()
    key = await plane.create_key()
    await plane.revoke_key((await plane.create_key()).key.id)
    await publisher.publish()
    await plane.revoke_key((await plane.create_key()).key.id)
    new = await plane.create_key()
    await publisher.publish()
    path = plane.folder / SECTIONS / plane.read().manifest.sections[name].sha256
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        plane.read()

    assert await publisher.publish()

    assert is_known(plane.read(), key)
    assert is_known(plane.read(), new)


async def test_sections_go_an_hour_after_the_last_manifest_that_named_them(plane: Plane) -> None:
    publisher = plane.open_publisher()
    await plane.serve("chat", "tiny@1.0.0")
    await publisher.publish()
    first = plane.read().manifest.sections["directory"].sha256
    for path in (plane.folder / SECTIONS).iterdir():  # written long ago, named until now
        os.utime(path, (1_000_000_000, 1_000_000_000))
    await plane.set_price("tiny")
    await publisher.publish()
    superseded = list_sections(plane)
    plane.clock.advance(KEPT_S)
    await publisher.publish()
    an_hour_later = list_sections(plane)
    plane.clock.advance(KEPT_S)
    await publisher.publish()

    assert first in superseded
    assert first in an_hour_later
    named = {section.sha256 for section in plane.read().manifest.sections.values()}
    assert list_sections(plane) == named
    assert first not in named


async def test_publishers_at_once_in_one_process_take_turns(plane: Plane) -> None:
    publisher = plane.open_publisher()
    for _ in range(3):
        await plane.create_key()
        published = await asyncio.gather(*(publisher.publish() for _ in range(3)))
        assert sorted(published) == [False, False, True]
    assert plane.read().n == 3


# any history


class Model:
    """What gateways should believe, as a dict; it does what a random history tells it to."""

    def __init__(self, plane: Plane, seed: int) -> None:
        self.plane = plane
        self.random = random.Random(seed)
        self.tenants: dict[str, str] = {}
        self.keys: dict[str, NewKey] = {}
        self.living: set[str] = set()

    async def step(self) -> None:
        """Do one thing of a random kind."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._create_key,
            self._create_key,
            self._create_key,
            self._revoke,
            self._pass_time,
            self._create_tenant,
            self._delete_tenant,
        ]
        await self.random.choice(kinds)()

    async def _create_tenant(self) -> None:
        name = f"team-{len(self.tenants)}-{self.random.randrange(10**6)}"
        self.tenants[name] = await self.plane.create_tenant(name)

    async def _delete_tenant(self) -> None:
        if len(self.tenants) > 1 and self.random.random() < 0.5:
            name = self.random.choice(sorted(self.tenants))
            tenant_id = self.tenants.pop(name)
            await self.plane.delete_tenant(name)
            self.living -= {k for k in self.living if self.keys[k].key.tenant_id == tenant_id}

    async def _create_key(self) -> None:
        if not self.tenants:
            await self._create_tenant()
        ttl_us = self.random.choice([None, None, 5_000_000, 50_000_000])
        key = await self.plane.create_key(self.random.choice(sorted(self.tenants)), ttl_us)
        self.keys[key.key.id] = key
        self.living.add(key.key.id)

    async def _revoke(self) -> None:
        if self.keys:
            key_id = self.random.choice(sorted(self.keys))
            await self.plane.revoke_key(key_id)
            self.living.discard(key_id)

    async def _pass_time(self) -> None:
        self.plane.clock.advance(self.random.choice([1, 10, 100]))

    def check(self, view: SnapshotView) -> None:
        """Compare every key there ever was with what a gateway finds."""
        now_us = self.plane.clock.now_us()
        for key_id, key in self.keys.items():
            record = view.find_key(key.key.digest)
            expires = key.key.expires_at_us or 0
            if key_id in self.living and (not expires or expires > now_us):
                assert record is not None
                assert record.key_uuid == uuid_bytes(key_id)
                assert record.expires_at_us == expires
                assert record.tenant_uuid in view.tenants
            elif key_id not in self.living:
                assert record is None
            else:  # expired: the gateway sees that for itself if it is still there
                assert record is None or record.expires_at_us <= now_us
        living = {uuid_bytes(tenant_id) for tenant_id in self.tenants.values()}
        assert living <= view.tenants.keys()
        assert len(view.tenants) == len(living) + 1  # the default one
        assert view.find_key(hashlib.sha256(b"nobody's").digest()) is None


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_history_gateways_know_the_keys_that_work(
    plane: Plane, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.publisher.rules.MERGE_AT", 12)  # several bases in a history
    model = Model(plane, seed)
    publisher = plane.open_publisher()
    bases = set()
    for number in range(120):
        await model.step()
        if model.random.random() < 0.3:
            if number % 40 == 39:
                publisher = plane.open_publisher()
            await publisher.publish()
            view = plane.read()
            model.check(view)
            bases.add(view.manifest.sections["keys"].sha256)
    assert len(bases) > 2

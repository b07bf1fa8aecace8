"""A Snapshot is believed only if it is whole, signed by the pinned key, and not an older one."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_harness import ALIAS, CLOCK, World
from pilotage.core.ids import uuid_bytes
from pilotage.core.snapshot import KeyRecord, KeyTable, Manifest, pack_keys
from pilotage.gateway.snapshots import SnapshotReader, SnapshotView
from pilotage.kit.crypto import digest_secret, make_secret, open_signer


def open_reader(world: World) -> SnapshotReader:
    return SnapshotReader(world.folder.snapshots, world.signer.public)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.publish()
    return world


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("published"))
    world.revoked = [digest_secret("gone")]
    world.publish()
    return world


def files(world: World) -> list[Path]:
    found = [path for path in world.folder.snapshots.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.stat().st_size)


@given(data=st.data())
def test_one_flipped_bit_changes_nothing_that_is_believed(
    published: World, data: st.DataObject
) -> None:
    before = open_reader(published).load(None).manifest
    path = data.draw(st.sampled_from(files(published)))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    broken = bytearray(content)
    broken[bit // 8] ^= 1 << bit % 8
    try:
        path.write_bytes(broken)
        if path.name == "current":
            # Only outside the signed text (the case of a hex digit, the key's name) may it pass.
            assert find_manifest(published) in (None, before)
        else:
            with pytest.raises(ValueError, match=f"section {path.name} is damaged"):
                open_reader(published).load(None)
    finally:
        path.write_bytes(content)


def find_manifest(world: World) -> Manifest | None:
    try:
        return open_reader(world).load(None).manifest
    except ValueError:
        return None


def test_every_bit_of_the_signed_text_counts(world: World) -> None:
    current = world.folder.snapshots / "current"
    signed = msgspec.json.decode(current.read_bytes())
    text = signed["manifest"].encode()
    for bit in range(0, len(text) * 8, 7):
        broken = bytearray(text)
        broken[bit // 8] ^= 1 << bit % 8
        changed = {**signed, "manifest": broken.decode("latin-1")}
        current.write_bytes(msgspec.json.encode(changed))
        with pytest.raises(ValueError, match=r"not signed by the pinned key|can be read"):
            open_reader(world).load(None)


def test_another_key_is_not_trusted(world: World, tmp_path: Path) -> None:
    other = open_signer(tmp_path / "other.key")
    with pytest.raises(ValueError, match="not signed by the pinned key"):
        SnapshotReader(world.folder.snapshots, other.public).load(None)


def test_an_older_one_is_refused_and_the_same_one_is_not(world: World) -> None:
    world.publish()
    in_use = open_reader(world).load(None)
    world.n -= 1
    world.publish()
    assert open_reader(world).load(in_use).n == in_use.n
    world.n -= 2
    world.publish()
    with pytest.raises(ValueError, match="Snapshot 1 is older than 2"):
        open_reader(world).load(in_use)


@pytest.mark.parametrize("section", ["directory", "keys"])
def test_a_missing_section_is_named(world: World, section: str) -> None:
    manifest = open_reader(world).load(None).manifest
    name = manifest.sections[section].sha256
    (world.folder.snapshots / "sections" / name).unlink()
    with pytest.raises(ValueError, match=f"section {name} is missing"):
        open_reader(world).load(None)


def test_a_manifest_without_a_section_is_refused(world: World) -> None:
    manifest = open_reader(world).load(None).manifest
    rest = {name: ref for name, ref in manifest.sections.items() if name != "revoked"}
    world.snapshots.put_manifest(msgspec.structs.replace(manifest, sections=rest))
    with pytest.raises(ValueError, match="has no section revoked"):
        open_reader(world).load(None)


def test_one_for_newer_gateways_is_refused(world: World) -> None:
    manifest = open_reader(world).load(None).manifest
    world.snapshots.put_manifest(msgspec.structs.replace(manifest, oldest_gateway=99))
    with pytest.raises(ValueError, match="needs a gateway of version 99"):
        open_reader(world).load(None)


def test_a_reader_knows_when_there_is_another(world: World) -> None:
    reader = open_reader(world)
    assert reader.has_changed()
    view = reader.load(None)
    assert not reader.has_changed()
    assert [alias.entry.name for alias in view.list_aliases(world.tenant.project_id)] == [ALIAS]
    assert view.list_aliases("another") == []
    world.publish()
    assert reader.has_changed()
    assert reader.load(view).n == 2


def make_record(secret: str, expires_at_us: int = 0) -> KeyRecord:
    ids = [uuid_bytes(CLOCK.new_id(kind)) for kind in ("key", "ten")]
    return KeyRecord(digest_secret(secret), ids[0], ids[1], expires_at_us)


def make_view(
    world: World, base: list[KeyRecord], delta: list[KeyRecord], revoked: list[bytes]
) -> SnapshotView:
    return SnapshotView(
        manifest=open_reader(world).load(None).manifest,
        tenants={},
        aliases={},
        revoked=frozenset(revoked),
        base=KeyTable(pack_keys(base)),
        delta=KeyTable(memoryview(pack_keys(delta))),
    )


@pytest.fixture(scope="module")
def secrets() -> list[str]:
    return [make_secret("plt_live_") for _ in range(300)]


def test_every_key_is_found_and_no_other(world: World, secrets: list[str]) -> None:
    records = [make_record(secret) for secret in secrets]
    base, delta, revoked = records[:200], records[200:250], records[250:]
    view = make_view(world, base + revoked, delta, [record.digest for record in revoked])
    for record in base + delta:
        assert view.find_key(record.digest) == record
        wrong = record.digest[:-1] + bytes([record.digest[-1] ^ 1])
        assert view.find_key(wrong) is None
    assert [view.find_key(record.digest) for record in revoked] == [None] * 50
    assert make_view(world, [], [], []).find_key(records[0].digest) is None


def test_the_newer_record_of_a_key_counts(world: World, secrets: list[str]) -> None:
    old, new = make_record(secrets[0]), make_record(secrets[0], expires_at_us=5)
    view = make_view(world, [old], [new], [])
    assert view.find_key(old.digest) == new

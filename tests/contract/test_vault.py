"""The vault on both databases: sealing, rotation that a kill interrupts, destruction."""

import asyncio
from pathlib import Path

import pytest

from pilotage.core.errors import PilotageError
from pilotage.finops.users import Users
from pilotage.kit.clock import ManualClock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.operations import Progress
from pilotage.kit.outbox import REVISION
from pilotage.kit.root_keys import RootKeys, open_root_keys
from pilotage.kit.secrets import DATA_KEY, Vault
from pilotage.runtime.rotation import Rotation
from pilotage.runtime.vault import open_vault
from stores import race


@pytest.fixture
def root(tmp_path: Path) -> RootKeys:
    return open_root_keys(tmp_path / "root.key")


@pytest.fixture
def vault(root: RootKeys) -> Vault:
    return Vault(root)


async def test_what_is_sealed_opens_for_its_owner_and_purpose_alone(
    database: Database, vault: Vault, root: RootKeys
) -> None:
    async with database.write(SYSTEM) as tx:
        sealed = await vault.seal(tx, "ten_1", b"Ada", "label")
        await vault.seal(tx, "ten_2", b"Bob", "label")

    async with database.read(SYSTEM) as tx:
        later = Vault(open_root_keys(root.path))
        assert await later.open(tx, "ten_1", sealed, "label") == b"Ada"
        for owner, purpose in (("ten_2", "label"), ("ten_1", "reply")):
            with pytest.raises(ValueError, match="do not open"):
                await later.open(tx, owner, sealed, purpose)
        with pytest.raises(PilotageError, match="erased"):
            await later.open(tx, "ten_3", sealed, "label")


async def test_a_key_whose_making_was_rolled_back_is_never_used(
    database: Database, vault: Vault
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write(SYSTEM) as tx:
            await vault.seal(tx, "ten_1", b"Ada", "label")
            raise ZeroDivisionError
    async with database.write(SYSTEM) as tx:
        sealed = await vault.seal(tx, "ten_1", b"Ada", "label")

    async with database.read(SYSTEM) as tx:
        assert await vault.open(tx, "ten_1", sealed, "label") == b"Ada"
        assert len(await vault.list_keys_of(tx, "ten_1")) == 1


async def test_many_at_once_make_one_key(database: Database, vault: Vault) -> None:
    won, lost = await race(database, SYSTEM, lambda tx: vault.seal(tx, "ten_1", b"Ada", "label"))

    assert won
    assert {error.code for error in lost if isinstance(error, PilotageError)} <= {"conflict"}
    async with database.read(SYSTEM) as tx:
        assert [await vault.open(tx, "ten_1", item, "label") for item in won] == [b"Ada"] * len(won)


async def test_a_rotated_owner_seals_anew_opens_the_old_and_keeps_its_fingerprints(
    database: Database, vault: Vault
) -> None:
    async with database.write(SYSTEM) as tx:
        old = await vault.seal(tx, "ten_1", b"Ada", "label")
        stands_for = await vault.fingerprint(tx, "ten_1", "Ada", "user")
        assert await vault.rotate(tx, "ten_1") == 2
        new = await vault.seal(tx, "ten_1", b"Ada", "label")

    async with database.read(SYSTEM) as tx:
        assert [await vault.open(tx, "ten_1", item, "label") for item in (old, new)] == [b"Ada"] * 2
        assert await vault.fingerprint(tx, "ten_1", "Ada", "user") == stands_for
    assert (old[4], new[4]) == (1, 2)


async def test_a_new_root_key_rewraps_all_and_a_kill_between_costs_nothing(
    database: Database, vault: Vault, root: RootKeys
) -> None:
    async with database.write(SYSTEM) as tx:
        sealed = {f"ten_{n}": await vault.seal(tx, f"ten_{n}", b"Ada", "p") for n in range(5)}
        await vault.destroy(tx, "ten_4")
    root.add()
    async with database.write(SYSTEM) as tx:
        assert await vault.rewrap_next(tx, 2) == 2

    after = Vault(open_root_keys(root.path))  # the process was killed here and comes back
    async with database.read(SYSTEM) as tx:
        assert await after.count_stale(tx) == 2
        assert await after.open(tx, "ten_3", sealed["ten_3"], "p") == b"Ada"
    async with database.write(SYSTEM) as tx:
        assert [await after.rewrap_next(tx, 2), await after.rewrap_next(tx, 2)] == [2, 0]

    async with database.read(SYSTEM) as tx:
        keys = await after.list_keys(tx, "", 10)
        assert [(key.owner_id, key.root) for key in keys] == [
            *((f"ten_{n}", 2) for n in range(4)),
            ("ten_4", 1),
        ]
        for owner in ("ten_0", "ten_3"):
            assert await after.open(tx, owner, sealed[owner], "p") == b"Ada"


async def test_nothing_of_a_destroyed_key_opens_and_none_is_made_in_its_place(
    database: Database, vault: Vault
) -> None:
    async with database.write(SYSTEM) as tx:
        sealed = await vault.seal(tx, "ten_1", b"Ada", "label")
        await vault.rotate(tx, "ten_1")
        assert await vault.destroy(tx, "ten_1") == 2
        assert await vault.destroy(tx, "ten_1") == 0
        assert await vault.destroy(tx, "ten_2") == 1  # it never had one

    async with database.write(SYSTEM) as tx:
        for owner in ("ten_1", "ten_2"):
            for attempt in (
                vault.open(tx, owner, sealed, "label"),
                vault.seal(tx, owner, b"Ada", "label"),
                vault.fingerprint(tx, owner, "Ada", "user"),
                vault.rotate(tx, owner),
            ):
                with pytest.raises(PilotageError) as refused:
                    await attempt
                assert refused.value.code == "erased"
        rows = await tx.all(tx.select(DATA_KEY))
        assert [row["wrapped"] for row in rows] == [None] * 3
        events = [row["event"] for row in await tx.all(tx.select(REVISION))]
    assert events.count("kit.data_key.destroyed") == 2


async def test_root_keys_that_do_not_belong_to_the_database_are_found_at_once(
    database: Database, vault: Vault, root: RootKeys
) -> None:
    async with database.write(SYSTEM) as tx:
        await vault.seal(tx, "ten_1", b"Ada", "label")
    root.path.unlink()

    async with database.read(SYSTEM) as tx:
        await vault.check(tx)
        with pytest.raises(PilotageError) as refused:
            await Vault(open_root_keys(root.path)).check(tx)

    assert refused.value.code == "invalid_config"
    assert str(root.path) in refused.value.hint


async def test_keys_are_listed_page_by_page(
    database: Database, vault: Vault, clock: ManualClock
) -> None:
    async with database.write(SYSTEM) as tx:
        for owner in ("ten_2", "ten_1"):
            await vault.seal(tx, owner, b"", "p")
            await vault.rotate(tx, owner)

    async with database.read(SYSTEM) as tx:
        found = [(key.owner_id, key.number) for key in await vault.list_keys(tx, "", 3)]
        rest = await vault.list_keys(tx, "ten_2/0000000001", 3)
        with pytest.raises(PilotageError, match="page"):
            await vault.list_keys(tx, "ten_2/x", 3)
    assert found == [("ten_1", 1), ("ten_1", 2), ("ten_2", 1)]
    assert [(key.owner_id, key.number, key.created_at_us) for key in rest] == [
        ("ten_2", 2, clock.now_us())
    ]


async def test_a_root_key_comes_into_use_only_once_that_is_said(
    database: Database, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotation = Rotation(database, vault, Users(vault))

    def refuse(_: Actor) -> None:
        raise PilotageError("audit_unavailable", "The disk is full.")

    def fail() -> int:
        raise OSError("The disk is full.")

    database.before_commit.append(refuse)
    with pytest.raises(PilotageError, match="disk is full"):
        await rotation.rotate_root(SYSTEM, Progress())
    assert open_root_keys(vault.root.path).numbers == vault.root.numbers == [1]

    database.before_commit.clear()
    with monkeypatch.context() as patched:
        patched.setattr(vault.root, "add", fail)
        with pytest.raises(OSError, match="disk is full"):
            await rotation.rotate_root(SYSTEM, Progress())
    assert (await list_root_revisions(database), vault.root.numbers) == ([2], [1])

    await rotation.rotate_root(SYSTEM, Progress())
    await asyncio.gather(*(rotation.rotate_root(SYSTEM, Progress()) for _ in range(2)))
    assert await list_root_revisions(database) == vault.root.numbers[1:]
    assert len(vault.root.numbers) == 4


async def test_a_root_key_that_is_newer_than_the_database_is_announced_at_the_start(
    database: Database, tmp_path: Path
) -> None:
    """As after a restore of a backup that was made before the key was."""
    folder = DataFolder(tmp_path).prepare()
    await open_vault(database, Settings(), folder)
    assert await list_root_revisions(database) == []
    open_root_keys(folder.root_keys).add()

    for _ in range(2):
        await open_vault(database, Settings(), folder)

    assert await list_root_revisions(database) == [2]


async def list_root_revisions(database: Database) -> list[int]:
    async with database.read(SYSTEM) as tx:
        rows = await tx.all(tx.select(REVISION).where(REVISION.c.event == "kit.root_key.created"))
    return sorted(row["rev"] for row in rows)

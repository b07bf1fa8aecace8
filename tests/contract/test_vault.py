"""The vault on both databases: sealing, rotation that a kill interrupts, destruction."""

from pathlib import Path

import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import REVISION
from pilotage.kit.root_keys import RootKeys, open_root_keys
from pilotage.kit.secrets import DATA_KEY, Vault
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

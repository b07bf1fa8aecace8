"""Copies of spools: each record once, whatever comes twice, late, damaged or after a crash."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.kit.spool_copy import SpoolCopies, pack_records, read_piece
from pilotage.kit.spool_reader import SpoolDamage, SpoolReader, list_spools, read_epoch
from raw_spool import read_raw

EPOCH = "0123456789abcdef0123456789abcdef"
NAME = "remote-paris-gateway-0"


def make_records(first: int, last: int, mark: str = "") -> list[tuple[int, bytes]]:
    return [(seq, f"record {seq}{mark}".encode()) for seq in range(first, last + 1)]


async def put(
    copies: SpoolCopies, first: int, last: int, mark: str = "", *, is_lost_before: bool = False
) -> int:
    piece = read_piece(first, pack_records(make_records(first, last, mark)))
    return await copies.append(NAME, EPOCH, piece, is_lost_before=is_lost_before)


def folder_of(root: Path) -> Path:
    (folder,) = list_spools(root)
    return folder


async def test_what_comes_twice_is_there_once(tmp_path: Path) -> None:
    copies = SpoolCopies(tmp_path, 1 << 20)
    assert await copies.find_seq(NAME, EPOCH) == 0
    assert await put(copies, 1, 5) == 5
    assert await put(copies, 3, 9) == 9
    assert await put(copies, 1, 2) == 9
    copies.close()

    assert read_epoch(folder_of(tmp_path)) == EPOCH
    assert read_raw(folder_of(tmp_path)) == (make_records(1, 9), {})


async def test_a_gap_is_refused_and_the_record_wanted_is_named(tmp_path: Path) -> None:
    copies = SpoolCopies(tmp_path, 1 << 20)
    await put(copies, 1, 5)
    with pytest.raises(PilotageError, match="Record 6 comes next, and 8 was sent") as refused:
        await put(copies, 8, 9)
    assert refused.value.code == "conflict"
    assert await copies.find_seq(NAME, EPOCH) == 5
    copies.close()


async def test_what_is_lost_for_ever_is_a_hole_that_readers_see(tmp_path: Path) -> None:
    copies = SpoolCopies(tmp_path, 1 << 20)
    await put(copies, 1, 5)
    assert await put(copies, 8, 9, is_lost_before=True) == 9
    copies.close()
    with SpoolReader(folder_of(tmp_path), 0) as reader:
        assert reader.read(100) == make_records(1, 5)
        with pytest.raises(SpoolDamage) as damage:
            reader.read(100)
    assert damage.value.next_seq == 8


async def test_another_record_of_the_same_number_is_told(tmp_path: Path) -> None:
    copies = SpoolCopies(tmp_path, 1 << 20)
    await put(copies, 1, 5)
    with pytest.raises(PilotageError, match="Record 4 is another one here"):
        await put(copies, 4, 7, mark=" of a twin")
    assert read_raw(folder_of(tmp_path)) == (make_records(1, 5), {})
    copies.close()


@given(place=st.integers(0, 10_000), letter=st.integers(0, 255))
def test_a_changed_byte_is_never_taken(place: int, letter: int) -> None:
    raw = bytearray(pack_records(make_records(1, 40)))
    place %= len(raw)
    if raw[place] == letter:
        return
    raw[place] = letter
    with pytest.raises(PilotageError, match="is damaged"):
        read_piece(1, bytes(raw))


@pytest.mark.parametrize("cut", [1, 15, 16, 20])
def test_a_cut_piece_is_refused(cut: int) -> None:
    raw = pack_records(make_records(1, 3))
    with pytest.raises(PilotageError, match="Record 3 is damaged"):
        read_piece(1, raw[:-cut])


async def test_segments_change_and_a_torn_end_is_left_behind(tmp_path: Path) -> None:
    copies = SpoolCopies(tmp_path, 40)
    await put(copies, 1, 2)
    await put(copies, 3, 4)
    copies.close()
    folder = folder_of(tmp_path)
    newest = max(folder.glob("*.seg"))
    with newest.open("ab") as torn:
        torn.write(pack_records(make_records(5, 5))[:-3])

    again = SpoolCopies(tmp_path, 40)
    assert await again.find_seq(NAME, EPOCH) == 4
    assert await put(again, 5, 6) == 6
    again.close()
    with SpoolReader(folder, 0) as reader:
        assert reader.read(100) == make_records(1, 6)


async def test_each_life_has_a_folder_and_an_epoch_is_no_path(tmp_path: Path) -> None:
    copies = SpoolCopies(tmp_path, 1 << 20)
    await put(copies, 1, 2)
    piece = read_piece(1, pack_records(make_records(1, 3)))
    assert await copies.append(NAME, "f" * 32, piece, is_lost_before=False) == 3
    assert await copies.find_seq(NAME, EPOCH) == 2
    for wrong in ("../../../etc", "", "F" * 32, EPOCH + "\n"):
        with pytest.raises(PilotageError, match="no epoch"):
            await copies.find_seq(NAME, wrong)
    assert [folder.name for folder in list_spools(tmp_path)] == [
        f"{NAME}.0123456789ab",
        f"{NAME}.ffffffffffff",
    ]
    copies.close()


async def test_a_refused_write_is_told_and_made_good(tmp_path: Path) -> None:
    copies = SpoolCopies(tmp_path, 1 << 20)
    await put(copies, 1, 2)
    copies.close()
    blocker = folder_of(tmp_path) / f"{3:020d}.seg"
    blocker.mkdir()
    again = SpoolCopies(tmp_path, 1 << 20)
    with pytest.raises(PilotageError) as refused:
        await put(again, 3, 4)
    assert refused.value.code == "spool_full"
    blocker.rmdir()
    assert await put(again, 3, 4) == 4
    again.close()
    assert read_raw(folder_of(tmp_path)) == (make_records(1, 4), {})

"""The Merkle tree against RFC 6962 read anew, and against the vectors that everybody uses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rfc6962
from pilotage.audit.tree import (
    EMPTY_ROOT,
    Edge,
    ReadHash,
    Tile,
    check_consistency,
    check_inclusion,
    fold,
    hash_leaf,
    prove_consistency,
    prove_inclusion,
)

VECTOR = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 32, 33, 255, 256, 257, 511, 513)
OTHER = hash_leaf(b"something else")


def make_entries(count: int) -> list[bytes]:
    return [f"entry {number}".encode() for number in range(count)]


def grow(entries: list[bytes]) -> tuple[Edge, list[Tile]]:
    edge = Edge()
    full = [tile for entry in entries for tile in edge.push(hash_leaf(entry))]
    return edge, full


def reader(entries: list[bytes]) -> ReadHash:
    return lambda bits, index: rfc6962.hash_list(entries[index << bits : (index + 1) << bits])


@pytest.mark.parametrize(
    ("count", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_roots_are_those_of_the_known_vectors(count: int, root: str) -> None:
    edge, _ = grow(VECTOR[:count])

    assert edge.root.hex() == root
    assert fold([hash_leaf(entry) for entry in VECTOR[:count]]).hex() == root


@pytest.mark.parametrize("size", SIZES)
def test_every_leaf_is_proved_as_the_rfc_proves_it(size: int) -> None:
    entries = make_entries(size)
    root, read = rfc6962.hash_list(entries), reader(entries)

    for index in range(0, size, max(1, size // 40)):
        leaf, path = hash_leaf(entries[index]), prove_inclusion(index, size, read)
        assert path == rfc6962.audit_path(index, entries)
        assert rfc6962.root_of_path(index, size, leaf, path) == root
        assert check_inclusion(leaf, index, size, path, root)
        assert not check_inclusion(OTHER, index, size, path, root)
        assert not check_inclusion(leaf, index, size, [*path, OTHER], root)
        assert size == 1 or not check_inclusion(leaf, index, size, path[:-1], root)
        assert size == 1 or not check_inclusion(leaf, (index + 1) % size, size, path, root)


@pytest.mark.parametrize("size", SIZES)
def test_every_beginning_is_proved_as_the_rfc_proves_it(size: int) -> None:
    entries = make_entries(size)
    root, read = rfc6962.hash_list(entries), reader(entries)

    for old in range(1, size + 1, max(1, size // 40)):
        old_root, path = rfc6962.hash_list(entries[:old]), prove_consistency(old, size, read)
        assert path == rfc6962.consistency_proof(old, entries)
        assert check_consistency(old, size, old_root, root, path)
        assert not check_consistency(old, size, OTHER, root, path)
        assert not check_consistency(old, size, old_root, OTHER, path)
        assert not check_consistency(old, size, old_root, root, [*path, OTHER])
        assert old == size or not check_consistency(old, size, old_root, root, path[:-1])


def test_what_cannot_be_is_not_proved() -> None:
    entries = make_entries(4)
    read, root = reader(entries), rfc6962.hash_list(entries)

    for index in (-1, 4):
        with pytest.raises(ValueError, match="no leaf"):
            prove_inclusion(index, 4, read)
        assert not check_inclusion(hash_leaf(entries[0]), index, 4, [], root)
    for old in (0, 5):
        with pytest.raises(ValueError, match="no beginning"):
            prove_consistency(old, 4, read)
    assert check_consistency(0, 4, EMPTY_ROOT, root, [])
    assert not check_consistency(0, 4, OTHER, root, [])
    assert not check_consistency(5, 4, root, root, [])
    assert not check_consistency(3, 4, root, root, [])


def test_the_edge_of_every_size_has_the_root_and_hands_out_full_tiles() -> None:
    entries = make_entries(600)
    edge, tiles = Edge(), []
    for size, entry in enumerate(entries, 1):
        tiles += edge.push(hash_leaf(entry))
        if size % 37 == 0 or size in {255, 256, 257, 512}:
            assert edge.root == rfc6962.hash_list(entries[:size])

    assert [(tile.level, tile.number, len(tile.hashes)) for tile in tiles] == [
        (0, 0, 8192),
        (0, 1, 8192),
    ]
    partial = edge.list_partial()
    assert [(tile.level, tile.number, len(tile.hashes) // 32) for tile in partial] == [
        (0, 2, 88),
        (1, 0, 2),
    ]
    levels = [
        [tile.hashes[at : at + 32] for at in range(0, len(tile.hashes), 32)] for tile in partial
    ]
    again = Edge(600, levels)
    assert again.root == edge.root
    again.push(hash_leaf(b"next"))
    assert again.root == rfc6962.hash_list([*entries, b"next"])


def test_a_third_level_begins_after_65536_leaves() -> None:
    edge = Edge()
    tiles = [tile for number in range(65_537) for tile in edge.push(hash_leaf(b"%d" % number))]

    assert [(tile.level, tile.number) for tile in tiles if tile.level] == [(1, 0)]
    assert len(tiles) == 257
    assert [(tile.level, tile.number, len(tile.hashes)) for tile in edge.list_partial()] == [
        (0, 256, 32),
        (2, 0, 32),
    ]
    assert edge.root == rfc6962.hash_list([b"%d" % number for number in range(65_537)])


@given(entries=st.lists(st.binary(max_size=8), min_size=1, max_size=80), data=st.data())
def test_a_proof_of_one_leaf_shows_no_other(entries: list[bytes], data: st.DataObject) -> None:
    root, size = rfc6962.hash_list(entries), len(entries)
    index = data.draw(st.integers(0, size - 1))
    path = prove_inclusion(index, size, reader(entries))
    other = data.draw(st.binary(max_size=8))

    assert check_inclusion(hash_leaf(other), index, size, path, root) == (other == entries[index])

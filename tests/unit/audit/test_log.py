"""The log's writer: what it holds, what a reader finds, and what survives at every place."""

import shutil
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import rfc6962
from pilotage.audit.log import LogWriter
from pilotage.audit.notes import open_checkpoint
from pilotage.audit.tiles import TileFolder, place_tile, read_bundle, write_bundle
from pilotage.audit.tree import check_inclusion, hash_leaf, prove_inclusion
from pilotage.core.errors import PilotageError
from pilotage.kit.crypto import Signer

NAME = "audit.example/log"
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def make_entries(count: int, first: int = 0) -> list[bytes]:
    return [b'{"n": %d, "x": "%s"}' % (n, b"y" * (n % 50)) for n in range(first, first + count)]


def open_log(folder: Path) -> LogWriter:
    return LogWriter(folder, NAME, SIGNER)


def read_raw(folder: Path, size: int) -> list[bytes]:
    """Read a log as it lies on disk, without the product's reader."""
    found: list[bytes] = []
    for bundle in range(size // 256):
        data = (folder / f"tile/entries/{bundle:03d}").read_bytes()
        while data:
            length = data[0] << 8 | data[1]
            found.append(data[2 : 2 + length])
            data = data[2 + length :]
    wal = (folder / "wal" / str(size // 256)).read_bytes()
    while wal:
        length = wal[0] << 8 | wal[1]
        found.append(wal[6 : 6 + length])
        wal = wal[6 + length :]
    return found


@pytest.mark.parametrize(
    ("number", "width", "place"),
    [
        (0, 256, "000"),
        (1_234_067, 256, "x001/x234/067"),
        (273, 112, "273.p/112"),
        (1_000, 1, "x001/000.p/1"),
    ],
)
def test_tiles_are_where_the_specification_puts_them(number: int, width: int, place: str) -> None:
    assert place_tile("entries", number, width) == f"tile/entries/{place}"
    assert place_tile(2, number, width) == f"tile/2/{place}"


def test_a_bundle_holds_what_was_put_in() -> None:
    entries = [b"", b"a", b"b" * 65_535]

    assert read_bundle(write_bundle(entries)) == entries
    for wrong in (write_bundle(entries)[:-1], b"\x00", b"\x00\x05abc"):
        with pytest.raises(ValueError, match="ends within"):
            read_bundle(wrong)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 600, 1_100])
def test_whoever_opens_a_log_again_finds_what_was_appended(tmp_path: Path, size: int) -> None:
    entries = make_entries(size)
    with open_log(tmp_path) as log:
        for at in range(0, size, 97):
            assert log.append(entries[at : at + 97]) == at
        root = log.root

    with open_log(tmp_path) as again:
        assert (again.size, again.root) == (size, root) == (size, rfc6962.hash_list(entries))
        assert read_raw(tmp_path, size) == entries
        assert again.append([b"next"]) == size
        assert again.root == rfc6962.hash_list([*entries, b"next"])
        assert again.read_entry(size) == b"next"


def test_a_reader_finds_entries_and_proofs_of_what_was_published(tmp_path: Path) -> None:
    entries = make_entries(700)
    with open_log(tmp_path) as log:
        log.append(entries[:600])
        note = log.publish()
        log.append(entries[600:])  # the reader is of the time before
        found = open_checkpoint(note, NAME, SIGNER.public)
        reader = TileFolder(tmp_path, found.size)

        assert (found.size, found.root) == (600, rfc6962.hash_list(entries[:600]))
        for index in (0, 255, 256, 511, 512, 599):
            path = prove_inclusion(index, 600, reader.read_hash)
            assert reader.read_entry(index) == entries[index] == log.read_entry(index)
            assert check_inclusion(hash_leaf(entries[index]), index, 600, path, found.root)
        for index in (-1, 600):
            with pytest.raises(ValueError, match="no entry"):
                reader.read_entry(index)


def test_partial_tiles_go_when_they_are_not_the_newest(tmp_path: Path) -> None:
    entries = make_entries(70_000)
    with open_log(tmp_path) as log:
        for upto in (100, 200, 300, 300, 70_000):
            log.append(entries[log.size : upto])
            log.publish()

    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    partial = sorted(name for name in files if ".p/" in name)
    assert partial == [
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
        "tile/entries/273.p/112",
    ]
    assert (
        len([name for name in files if name.startswith("tile/0/") and name not in partial]) == 273
    )
    assert not [name for name in files if name.endswith(".new")]


def test_a_reader_of_an_older_checkpoint_reads_the_fuller_files(tmp_path: Path) -> None:
    entries = make_entries(400)
    with open_log(tmp_path) as log:
        log.append(entries[:40])
        log.publish()
        log.append(entries[40:90])
        log.publish()
        grown = TileFolder(tmp_path, 40)
        assert grown.read_entries(0) == entries[:40]
        log.append(entries[90:])
        log.publish()
    full = TileFolder(tmp_path, 40)

    assert full.read_entries(0) == entries[:40]
    root = rfc6962.hash_list(entries[:40])
    path = prove_inclusion(7, 40, full.read_hash)
    assert check_inclusion(hash_leaf(entries[7]), 7, 40, path, root)


def test_a_torn_end_is_dropped_at_every_byte(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    entries = make_entries(260)
    with open_log(whole) as log:
        log.append(entries[:256])
        log.append(entries[256:])
    wal = (whole / "wal" / "1").read_bytes()
    ends = [0]
    for entry in entries[256:]:
        ends.append(ends[-1] + 6 + len(entry))

    for cut in range(len(wal)):
        torn = tmp_path / "torn"
        shutil.copytree(whole, torn)
        (torn / "wal" / "1").write_bytes(wal[:cut])
        with open_log(torn) as log:
            kept = sum(1 for end in ends[1:] if end <= cut)
            assert log.size == 256 + kept
            log.append([b"after"])
        with open_log(torn) as log:
            assert log.root == rfc6962.hash_list([*entries[: 256 + kept], b"after"])
        shutil.rmtree(torn)


def test_what_was_left_between_a_seal_and_its_end_does_not_count(tmp_path: Path) -> None:
    entries = make_entries(300)
    with open_log(tmp_path) as log:
        log.append(entries[:200])
        before = (tmp_path / "wal" / "0").read_bytes()
        log.append(entries[200:])
    (tmp_path / "wal" / "0").write_bytes(before)  # killed before it was removed
    (tmp_path / "wal" / "1").unlink()
    (tmp_path / "tile" / "0" / "001.new").write_bytes(b"half")  # killed while writing

    with open_log(tmp_path) as log:
        assert (log.size, log.root) == (256, rfc6962.hash_list(entries[:256]))
        assert [path.name for path in (tmp_path / "wal").iterdir()] == ["1"]


def test_an_entry_that_is_too_long_changes_nothing(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.append([b"first"])
        with pytest.raises(ValueError, match="65535 bytes"):
            log.append([b"fine", b"x" * 65_536])
        assert log.size == 1
        log.append([b"x" * 65_535])
    with open_log(tmp_path) as log:
        assert log.size == 2


def test_a_log_that_lost_something_is_not_continued(tmp_path: Path) -> None:
    entries = make_entries(600)
    whole = tmp_path / "whole"
    with open_log(whole) as log:
        log.append(entries)
        log.publish()

    def refuse(name: str, change: str) -> str:
        folder = tmp_path / "hurt"
        shutil.copytree(whole, folder)
        path = folder / name
        path.unlink() if change == "gone" else path.write_text(change)
        with pytest.raises(PilotageError) as refused:
            open_log(folder).__enter__()
        shutil.rmtree(folder)
        assert refused.value.code == "audit_broken"
        return refused.value.detail

    note = (whole / "checkpoint").read_text()
    assert "512 entries" in refuse("wal/2", "gone")
    assert "tile" in refuse("tile/0/001", "gone")
    assert "does not match" in refuse("checkpoint", note.replace("600", "601"))
    assert "no signature" in refuse("checkpoint", "nonsense")
    assert "checkpoint is not there" in refuse("checkpoint", "gone")
    shutil.rmtree(whole / "tile")
    assert "checkpoint is not there" in refuse("checkpoint", "gone")


@pytest.mark.parametrize("size", [1, 255, 256, 300])
def test_a_log_that_was_killed_before_its_first_checkpoint_goes_on(
    tmp_path: Path, size: int
) -> None:
    entries = make_entries(size)
    with open_log(tmp_path) as log:
        first = (tmp_path / "checkpoint").read_text()  # of an empty log
        log.append(entries)
        log.publish()
    (tmp_path / "checkpoint").write_text(first)  # killed when all the tiles were there

    with open_log(tmp_path) as log:
        assert (log.size, log.root) == (size, rfc6962.hash_list(entries))


@pytest.mark.parametrize("size", [40, 600, 70_000])
@pytest.mark.parametrize("more", [0, 300])
def test_what_was_altered_after_it_was_signed_is_not_signed_again(
    tmp_path: Path, size: int, more: int
) -> None:
    """Whoever has no key alters an entry of the open bundle, or one before with its tiles."""
    with open_log(tmp_path) as log:
        log.append(make_entries(size))
        log.publish()
        log.append(make_entries(more))
    total = size + more
    number = (size - 1) >> 8
    wal = tmp_path / "wal" / str(total >> 8)
    bundle, leaves = (tmp_path / place_tile(kind, number) for kind in ("entries", 0))
    if bundle.exists():
        entries = read_bundle(bundle.read_bytes())
        entries[0] = entries[0].replace(b'"x"', b'"z"')
        bundle.write_bytes(write_bundle(entries))
        leaves.write_bytes(b"".join(hash_leaf(entry) for entry in entries))
    else:
        data = wal.read_bytes()
        end = 6 + int.from_bytes(data[:2], "big")
        forged = data[6:end].replace(b'"x"', b'"z"')
        wal.write_bytes(data[:2] + zlib.crc32(forged).to_bytes(4, "big") + forged + data[end:])

    with pytest.raises(PilotageError, match="not those that its checkpoint signs"):
        open_log(tmp_path).__enter__()


def test_what_was_sealed_since_the_last_checkpoint_is_recomputed(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.append(make_entries(1000))
        log.publish()
        old = (tmp_path / "checkpoint").read_text()
        log.append(make_entries(70_000))
        log.publish()
    (tmp_path / "checkpoint").write_text(old)
    upper = tmp_path / place_tile(1, 0)
    upper.write_bytes(upper.read_bytes()[32:] + bytes(32))

    with pytest.raises(PilotageError, match="tile 1/0 is another"):
        open_log(tmp_path).__enter__()

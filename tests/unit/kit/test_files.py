"""Files that are whole or absent, and blobs named by their bytes."""

import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.blobs_file import FileBlobs, read_file
from pilotage.kit.files import write_private

SIZE = 300_000
WRITE = f"""
import itertools, sys
from pathlib import Path
from pilotage.kit.files import write_private
for letter in itertools.cycle(b"abcdefgh"):
    write_private(Path(sys.argv[1]), bytes([letter]) * {SIZE}, is_durable=sys.argv[2] == "durable")
    print(letter, flush=True)
"""


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_private_file_is_its_owners_alone(tmp_path: Path, is_durable: bool) -> None:
    old = os.umask(0)
    try:
        path = tmp_path / "new" / "deep" / "secret"
        write_private(path, b"one", is_durable=is_durable)
        path.chmod(0o644)
        write_private(path, b"two", is_durable=is_durable)
    finally:
        os.umask(old)

    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [item.name for item in path.parent.iterdir()] == ["secret"]


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()

    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "taken", b"new")

    assert [item.name for item in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken" / "inside").exists()


@pytest.mark.parametrize("how", ["durable", "quick"])
def test_whoever_reads_while_a_writer_is_killed_reads_a_whole_file(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "file"
    for letters in (1, 2, 3, 4):
        command = [sys.executable, "-c", WRITE, str(path), how]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline()
            seen = set[int]()
            while len(seen) < letters:  # it is really replaced meanwhile
                seen.add(check_whole(path.read_bytes()))
            writer.kill()
        check_whole(path.read_bytes())
    strangers = [item.name for item in tmp_path.iterdir() if item != path]
    assert all(name.startswith(".file.") for name in strangers)


def check_whole(content: bytes) -> int:
    assert len(content) == SIZE
    assert content == content[:1] * SIZE
    return content[0]


# blobs


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    (tmp_path / "blobs").mkdir()
    return FileBlobs(tmp_path / "blobs")


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_blob_is_found_by_the_hash_of_its_bytes(blobs: FileBlobs, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"hello world").hexdigest()

    stored = await blobs.put(stream(b"hello ", b"", b"world"), 11)
    again = await blobs.put(stream(b"hello world"), 11)

    assert stored == again == (digest, 11)
    path = blobs.path_of(digest)
    assert path == blobs.find(digest)
    assert b"".join([part async for part in read_file(path, 4)]) == b"hello world"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list_files(tmp_path / "blobs") == [f"{digest[:2]}/{digest}"]


async def test_a_blob_that_is_too_large_leaves_nothing(blobs: FileBlobs, tmp_path: Path) -> None:
    with pytest.raises(PilotageError) as refused:
        await blobs.put(stream(b"x" * 10, b"x"), 10)

    assert refused.value.code == "request_too_large"
    assert list_files(tmp_path / "blobs") == []


async def test_a_stream_that_breaks_leaves_nothing(blobs: FileBlobs, tmp_path: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put(breaking(), 100)

    assert list_files(tmp_path / "blobs") == []


async def test_what_a_killed_process_left_is_removed(blobs: FileBlobs, tmp_path: Path) -> None:
    stored = await blobs.put(stream(b"whole"), 100)
    (tmp_path / "blobs" / ".incoming.abc").write_bytes(b"half of something large")

    blobs.drop_incomplete()

    assert list_files(tmp_path / "blobs") == [f"{stored.sha256[:2]}/{stored.sha256}"]


async def test_a_blob_that_is_not_there(blobs: FileBlobs) -> None:
    assert blobs.find("ab" * 32) is None
    with pytest.raises(PilotageError) as missing:
        blobs.path_of("ab" * 32)
    assert missing.value.code == "not_found"


@pytest.mark.parametrize("name", ["", "ab", "../" * 21 + "x", "/" * 64, "a" * 65, "." * 64])
def test_what_is_no_hash_names_no_file(blobs: FileBlobs, name: str) -> None:
    with pytest.raises(PilotageError, match="is not a SHA-256"):
        blobs.find(name)

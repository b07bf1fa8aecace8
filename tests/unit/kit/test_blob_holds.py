"""Blobs that somebody is about to refer to are not removed; what came to nothing is."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.blobs_file import FileBlobs


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def is_free(sha256: str) -> bool:
    return False


async def is_needed(sha256: str) -> bool:
    return True


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path)


async def test_what_is_held_is_not_removed(blobs: FileBlobs) -> None:
    with blobs.hold() as hold:
        sha256, size = await hold.put(once(b"held"), 10)
        (seen,) = blobs.list_all()
        assert not await blobs.remove(seen, is_free)
    assert (seen.sha256, seen.size, size) == (sha256, 4, 4)
    assert not await blobs.remove(seen, is_needed)
    assert await blobs.remove(seen, is_free)
    assert not await blobs.remove(seen, is_free)
    assert list(blobs.list_all()) == []


async def test_what_is_taken_up_while_somebody_asks_stays(blobs: FileBlobs) -> None:
    blob = await blobs.put(once(b"raced for"), 10)
    (seen,) = blobs.list_all()

    async def ask(sha256: str) -> bool:
        with blobs.hold() as other:  # it takes it up and lets it go while we look
            other.take(sha256)
        return False

    assert not await blobs.remove(seen, ask)
    assert blobs.find(blob.sha256) is not None


async def test_what_came_to_nothing_is_dropped_but_for_what_others_need(blobs: FileBlobs) -> None:
    with blobs.hold() as first, blobs.hold() as second:
        mine = await first.put(once(b"mine"), 10)
        both = await first.put(once(b"both"), 10)
        second.take(both.sha256)
        await first.drop(is_free)
        assert blobs.find(mine.sha256) is None
        assert blobs.find(both.sha256) is not None
    assert not blobs.is_held(both.sha256)


async def test_what_was_there_before_is_dropped_only_if_nothing_needs_it(blobs: FileBlobs) -> None:
    old = await blobs.put(once(b"old"), 10)
    with blobs.hold() as hold:
        hold.take(old.sha256)
        hold.take(old.sha256)
        await hold.drop(is_free)
        assert blobs.find(old.sha256) is not None  # it was not stored here
        await hold.put(once(b"old"), 10)
        await hold.drop(is_needed)
        assert blobs.find(old.sha256) is not None
        with pytest.raises(PilotageError, match="no blob"):
            hold.take("ab" * 32)
    assert not blobs.is_held(old.sha256)


async def test_what_only_passes_through_is_dropped(blobs: FileBlobs) -> None:
    with blobs.hold() as hold:
        archive = await hold.put(once(b"archive"), 10)
        await hold.drop_one(archive.sha256, is_free)
        assert blobs.find(archive.sha256) is None

"""The data folder: one holder at a time, across processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.data_folder import DataFolder, ServerInfo

HOLD = """
import os, sys
from pathlib import Path
from pilotage.kit.data_folder import DataFolder, ServerInfo
folder = DataFolder(Path(sys.argv[1]))
info = ServerInfo(pid=os.getpid(), started_at_us=1, control_url=sys.argv[2])
with folder.acquire(info):
    print("held", flush=True)
    sys.stdin.readline()
"""
LOOK = """
import sys
from pathlib import Path
from pilotage.kit.data_folder import DataFolder
folder = DataFolder(Path(sys.argv[1]))
print("looking", flush=True)
while True:
    folder.find_server()
"""
ME = ServerInfo(pid=os.getpid(), started_at_us=1)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data").prepare()


@contextmanager
def child(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the end of the block; it has said something when the block begins."""
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_a_prepared_folder_is_private_and_complete(folder: DataFolder) -> None:
    made = [folder.path, folder.keys, folder.blobs, folder.snapshots, folder.spool, folder.run]

    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 6
    assert folder.prepare() is folder
    assert folder.find_server() is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(PilotageError) as refused:
        DataFolder(tmp_path / "file" / "data").prepare()

    assert refused.value.code == "invalid_config"
    assert str(tmp_path / "file" / "data") in refused.value.detail
    assert "PILOTAGE_DATA_DIR" in refused.value.hint


def test_a_second_process_is_refused_with_the_first_ones_id(folder: DataFolder) -> None:
    with child(HOLD, str(folder.path), "http://127.0.0.1:1") as holder:
        with pytest.raises(PilotageError) as refused:
            folder.acquire(ME)
        found = folder.find_server()

    assert refused.value.code == "conflict"
    assert f"in use by process {holder.pid}" in refused.value.detail
    assert found is not None
    assert (found.pid, found.control_url) == (holder.pid, "http://127.0.0.1:1")


def test_a_killed_holder_leaves_the_folder_free(folder: DataFolder) -> None:
    with child(HOLD, str(folder.path), "http://127.0.0.1:1") as holder:
        holder.kill()
        holder.wait()
        assert folder.find_server() is None
        with folder.acquire(ME):
            assert folder.find_server() is None  # this process serves nothing


def test_a_command_without_a_server_is_no_server(folder: DataFolder) -> None:
    with child(HOLD, str(folder.path), "") as holder:
        found = folder.find_holder()
        assert folder.find_server() is None

    assert found is not None
    assert found.pid == holder.pid


def test_who_holds_the_folder_is_rewritten_in_full(folder: DataFolder) -> None:
    long = ServerInfo(pid=1, started_at_us=1, control_url="http://" + "x" * 500)
    short = ServerInfo(pid=2, started_at_us=2, control_url="http://y")
    with folder.acquire(long) as lock:
        assert folder.find_server() == long
        lock.write(short)
        assert folder.find_server() == short
    assert folder.find_server() is None


def test_looking_never_keeps_anybody_from_taking(folder: DataFolder) -> None:
    with folder.acquire(ME):
        pass
    with child(LOOK, str(folder.path)), child(LOOK, str(folder.path)):
        for _ in range(300):
            folder.acquire(ME).release()


def test_a_lock_that_cannot_be_read_is_told(folder: DataFolder) -> None:
    (folder.path / "lock").symlink_to(folder.path / "lock")

    with pytest.raises(PilotageError, match="cannot be read"):
        folder.find_server()

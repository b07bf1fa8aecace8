"""Engines that are commands: a real server, started and looked after as the settings say."""

import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import openai_server
from engine_process import ALIAS, KEY, RunningEngine, make_spec, read_line, run_engine, spawn
from pilotage.endpoints.engines.command import CommandEngine, remove_configs
from pilotage.endpoints.launch import Failed, Ready, read_event
from pilotage.kit.engine_settings import EngineCommand

CHAT = "/v1/chat/completions"
DEADLINE_S = 20.0
MARKER = "MARKER-5be01a"
PROGRAM = [sys.executable, openai_server.__file__]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


def make_engine(run: Path, *more: str, preset: str = "vllm") -> CommandEngine:
    command = EngineCommand(preset=preset, program=[*PROGRAM, *more])  # type: ignore[arg-type]
    return CommandEngine("big", command, run)


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def engine(request: pytest.FixtureRequest, run: Path, tiny_gguf: Path) -> Iterator[RunningEngine]:
    with run_engine(make_engine(run, preset=request.param), make_spec(tiny_gguf)) as running:
        yield running


def ask(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 4}


def list_family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        os.sched_yield()


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_command_with_a_preset_answers_under_the_name_it_was_given(engine: RunningEngine) -> None:
    reply = engine.client.post(CHAT, json=ask("hello world")).json()
    assert (reply["model"], reply["usage"]["completion_tokens"]) == (ALIAS, 4)
    assert engine.ready.context_tokens == 512


def test_only_its_key_opens_it(engine: RunningEngine) -> None:
    with httpx.Client(base_url=engine.client.base_url) as stranger:
        assert stranger.post(CHAT, json=ask("hello")).status_code == 401


def test_no_process_shows_the_key_among_its_arguments_and_no_file_is_left(
    engine: RunningEngine, run: Path
) -> None:
    family = list_family(engine.process.pid)
    words = [word for process in family for word in process.cmdline()]
    assert len(family) == 2
    assert not any(KEY in word for word in words)
    assert not list(run.iterdir())


def test_the_file_with_the_key_is_private(tiny_gguf: Path, tmp_path: Path) -> None:
    look = "import os,sys; print(oct(os.stat(sys.argv[1]).st_mode), open(sys.argv[1]).read())"
    command = EngineCommand(
        argv=[sys.executable, "-c", look, "{config}", "{port}"], config='{"key": "{key}"}'
    )
    launch = CommandEngine("look", command, tmp_path).prepare(make_spec(tiny_gguf), KEY)
    with spawn(launch) as process:
        event = read_event(read_line(process))
    assert isinstance(event, Failed)
    mode = oct(stat.S_IFREG | 0o600)
    assert event.reason == f"{sys.executable}: {mode} {json.dumps({'key': KEY})}"
    assert not list(tmp_path.iterdir())


def test_one_that_is_killed_while_it_loads_leaves_no_second_file_and_none_beyond_a_restart(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    say = "import sys,time; open(sys.argv[2], 'w').close(); time.sleep(60)"
    began = tmp_path / "began"
    command = EngineCommand(
        argv=[sys.executable, "-c", say, "{config}", str(began), "{port}"], config="{key}"
    )
    (tmp_path / "run").mkdir()
    launch = CommandEngine("slow", command, tmp_path / "run").prepare(make_spec(tiny_gguf), KEY)
    for _ in range(2):
        with spawn(launch) as process:
            wait_until(began.exists)
            process.kill()
        began.unlink()
        assert len(list((tmp_path / "run").iterdir())) == 1
    (tmp_path / "run" / "targets.json").touch()
    remove_configs(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["targets.json"]


def test_it_is_given_what_it_needs_of_the_environment_and_nothing_else(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", MARKER)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    look = "import os,sys; print(*(os.environ.get(name) for name in sys.argv[1].split()))"
    command = EngineCommand(
        argv=[sys.executable, "-c", look, "DATABASE_PASSWORD CUDA_VISIBLE_DEVICES PATH OWN"],
        environment={"OWN": "7", "KEY": "{key}"},
    )
    launch = CommandEngine("look", command, tmp_path).prepare(make_spec(tiny_gguf), KEY)
    with spawn(launch) as process:
        event = read_event(read_line(process))
    assert event == Failed(reason=f"{sys.executable}: None 3 {os.environ['PATH']} 7")


def test_its_output_goes_nowhere_once_it_is_ready(run: Path, tiny_gguf: Path) -> None:
    with run_engine(make_engine(run), make_spec(tiny_gguf)) as running:
        assert running.client.post(CHAT, json=ask(MARKER)).is_success
        running.client.post(CHAT, content=MARKER.encode())
        for process in list_family(running.process.pid):
            process.kill()
        assert running.process.communicate() == (b"", b"")


def test_a_command_that_ends_says_why_with_its_last_words(run: Path, tiny_gguf: Path) -> None:
    with spawn(make_engine(run, "--nonsense").prepare(make_spec(tiny_gguf), KEY)) as process:
        event = read_event(read_line(process))
        assert process.wait(DEADLINE_S) == 1
    assert isinstance(event, Failed)
    assert event.reason.startswith(f"{sys.executable}: openai_server.py: error: ")


def test_a_program_that_is_not_there_is_named(run: Path) -> None:
    engine = CommandEngine("big", EngineCommand(preset="vllm", program=["/nowhere/vllm"]), run)
    assert "there is no program /nowhere/vllm" in (engine.check() or "")
    with spawn(engine.prepare(make_spec(Path("x")), KEY)) as process:
        event = read_event(read_line(process))
    assert event == Failed(reason="/nowhere/vllm cannot be run: No such file or directory")
    assert make_engine(run).check() is None


@pytest.mark.slow
def test_a_server_that_answers_without_its_key_is_not_used(run: Path, tiny_gguf: Path) -> None:
    command = EngineCommand(preset="vllm", program=PROGRAM, argv=["--open"])
    with spawn(CommandEngine("open", command, run).prepare(make_spec(tiny_gguf), KEY)) as process:
        event = read_event(read_line(process))
        assert process.wait(DEADLINE_S) == 1
    assert event == Failed(reason=f"{sys.executable} answers 200 to whoever has no key")


@pytest.mark.slow
def test_it_ends_when_its_command_does(run: Path, tiny_gguf: Path) -> None:
    with run_engine(make_engine(run), make_spec(tiny_gguf)) as running:
        list_family(running.process.pid)[1].kill()
        assert running.process.wait(DEADLINE_S) != 0


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from engine_process import KEY, make_spec, read_line, spawn
from pilotage.endpoints.engines.command import CommandEngine
from pilotage.kit.engine_settings import EngineCommand
engine = CommandEngine("big", EngineCommand(preset="vllm", program=sys.argv[3:]), Path())
child = spawn(engine.prepare(make_spec(Path(sys.argv[1])), KEY))
print(child.pid, read_line(child).decode(), flush=True)
sys.stdin.read()
"""


def test_all_its_processes_die_with_a_parent_that_is_killed(tiny_gguf: Path) -> None:
    support = str(Path(openai_server.__file__).parent)
    program = [*PROGRAM, "--children"]
    parent = psutil.Popen(
        [sys.executable, "-c", PARENT, str(tiny_gguf), support, *program],
        stdin=-1,
        stdout=-1,
        process_group=0,
    )
    with parent:
        pid, event = parent.stdout.readline().split(b" ", 1)
        assert isinstance(read_event(event), Ready)
        family = list_family(int(pid))
        assert len(family) == 3
        parent.kill()
    wait_until(lambda: all(map(has_ended, family)))

"""The commands beside a server: chat, traffic as it comes, long work, Ctrl-C."""

import fcntl
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from command_line import CommandLine, Said
from pilotage.kit.data_folder import DataFolder

PROGRAM = [sys.executable, "-m", "pilotage.cli.main"]
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def silent_index() -> Iterator[str]:
    """Return a package index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple/"


@pytest.fixture(scope="module")
def pilotage(
    tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path, silent_index: str
) -> Iterator[CommandLine]:
    """Return the command line of a server that serves the tiny model as ``chat``."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copy(tiny_gguf, folder / "tiny.gguf")
    pip = {"PIP_INDEX_URL": silent_index, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    made = CommandLine(folder, **pip, PIP_FIND_LINKS="", PILOTAGE_ENGINE_CONTEXT_TOKENS="512")
    with serve(made):
        made.ok("models", "add", "tiny.gguf", "--name", "tiny")
        made.ok("prices", "set", "tiny", "--input", "0.05", "--output", "0.15")
        made.ok("endpoints", "create", "chat")
        made.ok("endpoints", "deploy", "chat", "tiny")
        yield made


@contextmanager
def serve(pilotage: CommandLine) -> Iterator[subprocess.Popen[str]]:
    with started(pilotage, "up", "--bare") as server:
        wait_for(lambda: is_ready(pilotage), "a server")
        yield server


def is_ready(pilotage: CommandLine) -> bool:
    found = DataFolder(pilotage.data).find_server()
    try:
        return found is not None and httpx.get(f"{found.gateway_url}/readyz").is_success
    except httpx.HTTPError:
        return False


@contextmanager
def started(pilotage: CommandLine, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command as a process; end it at the end of the block if it has not."""
    with subprocess.Popen(
        [*PROGRAM, *words],
        env=pilotage.whole_environment,
        cwd=pilotage.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=PATIENCE_S)


def finish(process: subprocess.Popen[str]) -> Said:
    out, err = process.communicate(timeout=PATIENCE_S)
    return Said(process.returncode, out, err)


def wait_for(condition: Callable[[], Any], what: str) -> Any:  # noqa: ANN401 - what it returns
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited for {what}"
        select.select([], [], [], 0.02)
    return found


def running_operation(pilotage: CommandLine) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        found = pilotage.json("operations", "list", "--state", "running")
        return found[-1] if found else None

    operation: dict[str, Any] = wait_for(find, "a running operation")
    return operation


# chat


def test_a_question_is_answered_and_its_cost_told(pilotage: CommandLine) -> None:
    asked = pilotage.ok("chat", "hello", "--max-tokens", "5", "--temperature", "0")
    piped = pilotage.ok("chat", "--max-tokens", "5", "--temperature", "0", stdin="hello\n")

    assert asked.out.strip()
    assert piped.out == asked.out
    assert "tokens in, 5 out, " in asked.err


@pytest.mark.parametrize(
    ("words", "stdin", "problem"),
    [
        (["--model", "nothing", "hello"], "", "The model 'nothing' does not exist."),
        (["word " * 2000], "", "context"),
        ([], "  \n", "There is nothing to ask on the pipe."),
    ],
)
def test_what_cannot_be_answered_is_told(
    pilotage: CommandLine, words: list[str], stdin: str, problem: str
) -> None:
    said = pilotage("chat", *words, stdin=stdin)

    assert (said.code, said.out) == (1, "")
    assert problem in said.err
    assert len(said.err.splitlines()) <= 2


class Terminal:
    """A conversation with a command on a terminal."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self.process = process
        self.seen = ""

    def expect(self, *texts: str) -> str:
        """Read until one of some texts comes; return which."""
        end = time.monotonic() + PATIENCE_S
        while not (found := [text for text in texts if text in self.seen]):
            assert time.monotonic() < end, f"waited for {texts}, saw {self.seen!r}"
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self.seen += os.read(self._descriptor, 65536).decode(errors="replace")
        first = min(found, key=self.seen.index)
        self.seen = self.seen.partition(first)[2]
        return first

    def expect_more(self) -> None:
        """Read until anything comes that is not an end of line."""
        while not self.seen.strip():
            self.seen += os.read(self._descriptor, 65536).decode(errors="replace")

    def type(self, text: str) -> None:
        """Type, as far as the command reads."""
        os.write(self._descriptor, text.encode())


@contextmanager
def on_terminal(pilotage: CommandLine, *words: str) -> Iterator[Terminal]:
    """Run a command on a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words],
        env=dict(pilotage.whole_environment) | {"TERM": "dumb", "COLUMNS": "200"},
        cwd=pilotage.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_conversation_is_held_stopped_and_left(pilotage: CommandLine) -> None:
    with on_terminal(pilotage, "chat", "--temperature", "0", "--max-tokens", "400") as terminal:
        terminal.expect("Talking to chat.")
        terminal.expect("> ")
        terminal.type("/help\n")
        terminal.expect("/quit")
        outcome = ""
        while outcome != "(stopped)":  # an answer may end before it is stopped: ask again
            terminal.expect("> ")
            terminal.type("/reset\n")
            terminal.expect("Forgotten.")
            terminal.expect("> ")
            terminal.type("hello\n")
            terminal.expect("hello")
            terminal.expect_more()
            terminal.type("\x03")  # Ctrl-C
            outcome = terminal.expect("(stopped)", "Ctrl-D leaves.")
        terminal.expect("> ")
        terminal.type("/model nothing\n")
        terminal.expect("Talking to nothing.")
        terminal.expect("> ")
        terminal.type("hello\n")
        terminal.expect("error: The model 'nothing' does not exist.")
        terminal.expect("> ")
        terminal.type("\x04")  # Ctrl-D
        assert terminal.process.wait(PATIENCE_S) == 0
    wait_for(
        lambda: "client_gone" in {entry["outcome"] for entry in traffic(pilotage)},
        "the stopped answer in the ledger",
    )


def traffic(pilotage: CommandLine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pilotage.json("traffic", "tail", "--no-follow", "-n", "500")
    return found


# what happened


def test_calls_are_shown_as_they_end_and_summed_up(pilotage: CommandLine) -> None:
    pilotage.ok("chat", "hello", "--max-tokens", "3")
    wait_for(lambda: traffic(pilotage), "a call")
    with started(pilotage, "traffic", "tail", "-n", "1") as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline()  # what was; it follows from here on
        pilotage.ok("chat", "hello", "--max-tokens", "3")
        line = tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        ended = finish(tail)
    total = pilotage.json("usage")["total"]
    shown = pilotage.ok("usage").out.splitlines()

    assert "  default  tiny@1.0.0  ok  200  " in line
    assert " 3 out  USD 0.0000" in line
    assert "first token" in line
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert (total["calls"] >= 1, total["cost_nano"] > 0) == (True, True)
    assert any(line.split()[:2] == ["default", "tiny@1.0.0"] for line in shown)
    assert shown[-1].split()[0] == "total"
    assert shown[-1].split()[-1] in {total["cost_usd"], total["estimated_usd"]}


def test_following_as_json_is_one_object_a_line(pilotage: CommandLine) -> None:
    pilotage.ok("chat", "hello", "--max-tokens", "3")
    wait_for(lambda: traffic(pilotage), "a call")
    with started(pilotage, "traffic", "tail", "-n", "1", "--json") as tail:
        assert tail.stdout is not None
        line = tail.stdout.readline()

    assert line.startswith("{")
    assert '"model":"tiny@1.0.0"' in line


def test_the_doctor_is_content_and_sees_what_is_not_published(pilotage: CommandLine) -> None:
    content = pilotage("doctor")
    pilotage.ok("models", "add", "tiny.gguf", "--name", "unpriced")
    pilotage.ok("endpoints", "create", "second")
    try:
        pilotage.ok("endpoints", "deploy", "second", "unpriced", "--no-wait")
        worried = pilotage("doctor")
        listed = pilotage.ok("endpoints", "list")
    finally:
        pilotage.ok("endpoints", "delete", "second", "--force")
        pilotage.ok("models", "delete", "unpriced")

    assert content.code == 0
    assert "ok       gateway: " in content.out
    assert "ok       control plane: " in content.out
    assert "ok       endpoint chat: published" in content.out
    assert worried.code == 1
    mending = "-> Run: pilotage prices set unpriced --input USD --output USD (or --free)"
    assert f"endpoint second: not published: no price for unpriced@1.0.0  {mending}" in worried.out
    assert "no: no price for unpriced@1.0.0" in listed.out


# long work


def test_an_interrupted_command_cancels_what_it_started(pilotage: CommandLine) -> None:
    with started(pilotage, "models", "pull") as pull:
        operation = running_operation(pilotage)
        pull.send_signal(signal.SIGINT)
        ended = finish(pull)
    after = pilotage.json("operations", "show", operation["id"])

    assert (operation["kind"], operation["subject"]) == ("registry.models.pull", "smollm2")
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert after["state"] == "cancelled"


def test_a_cancelled_operation_is_told_to_who_waits_for_it(pilotage: CommandLine) -> None:
    with started(pilotage, "models", "pull") as pull:
        operation = running_operation(pilotage)
        cancelled = pilotage.json("operations", "cancel", operation["id"])
        ended = finish(pull)
    again = pilotage.ok("operations", "cancel", operation["id"])

    assert cancelled["state"] == "cancelled"
    assert (ended.code, ended.err) == (1, "error: It was cancelled.\n")
    assert "is cancelled" in again.out


# starting and stopping


def test_a_second_server_is_refused(pilotage: CommandLine) -> None:
    said = pilotage("up", "--bare")

    assert said.code == 1
    assert said.err.startswith("error: The data folder ")
    assert "is in use by process" in said.err
    assert "Traceback" not in said.err


def test_a_command_waits_for_a_server_that_is_starting(tmp_path: Path) -> None:
    pilotage = CommandLine(tmp_path)
    with started(pilotage, "up", "--bare") as server:
        wait_for(lambda: DataFolder(pilotage.data).find_holder(), "the folder to be taken")
        created = pilotage("tenants", "create", "early")
        server.send_signal(signal.SIGINT)
        ended = finish(server)
    late = pilotage("chat", "hello")

    assert created.code == 0, created
    assert ended.code == 0
    assert "Stopped." in ended.out
    assert (late.code, "pilotage up" in late.err) == (1, True)
    assert "early" in pilotage.ok("tenants", "list").out

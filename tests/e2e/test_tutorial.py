"""The tutorial, typed from start to end, with the output that it shows; then README's numbers."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from gateway_harness import until
from stub_upstream import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "tutorials" / "first-gateway.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FETCHED_WITHIN_S = 300.0
RECORDED_WITHIN_S = 30.0
ABOUT_CALLS = ("pilotage traffic", "pilotage usage")


class Step(NamedTuple):
    """Commands, and the lines that the page says they print."""

    commands: str
    shown: list[str]


def read_steps(text: str) -> list[Step]:
    """Return what the page has its reader type, without the installation."""
    steps: list[Step] = []
    for kind, content in BLOCK.findall(text):
        if kind == "sh":
            steps.append(Step(content, []))
        else:
            steps[-1].shown.extend(content.splitlines())
    assert "make setup" in steps[0].commands
    return steps[1:]


class Terminal:
    """A shell that is told one block after the other, and forgets nothing in between."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def type(self, commands: str) -> str:
        """Run commands; return what they printed."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{commands}\necho; echo END-OF-STEP\n")
        self._shell.stdin.flush()
        lines = iter(self._shell.stdout.readline, "")
        return "".join(self._until_end(lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.communicate("exit\n", timeout=60)

    @staticmethod
    def _until_end(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            if line == "END-OF-STEP\n":
                return
            yield line


def is_shown(line: str, output: str) -> bool:
    """Whether the output has a line's words, whatever stands for its dots."""
    words = (re.escape(word) for word in line.split("..."))
    return re.search(".*".join(words), output) is not None


async def check(terminal: Terminal, step: Step) -> None:
    """Type a step; a question about calls is asked again until the last one is in the ledger."""
    printed: list[str] = []

    def is_as_shown() -> bool:
        printed[:] = [terminal.type(step.commands)]
        return all(is_shown(line, printed[0]) for line in step.shown)

    if any(line.startswith(ABOUT_CALLS) for line in step.commands.splitlines()):
        await until(is_as_shown, f"what {step.commands} shows", RECORDED_WITHIN_S)
    else:
        assert is_as_shown(), f"{step.commands}\nprinted\n{printed[0]}"


async def test_what_the_tutorial_types_prints_what_it_shows(tmp_path: Path) -> None:
    gateway, control = free_port(), free_port()
    text = PAGE.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{gateway}")
    start, *steps = read_steps(text)
    (numbers,) = (block for _, block in BLOCK.findall(README.read_text()) if "metrics" in block)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PILOTAGE_GATEWAY_PORT": str(gateway),
        "PILOTAGE_CONTROL_PORT": str(control),
        "NO_PROXY": "127.0.0.1",
        "COLUMNS": "200",
    }
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
            ["bash", "-c", start.commands.replace("pilotage up", "exec pilotage up")],
            cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        await until(lambda: "Ctrl-C stops." in log.read_text(), "a start", FETCHED_WITHIN_S)
        with Terminal(tmp_path / "build" / "first-gateway", environment) as terminal:
            for step in steps:
                await check(terminal, step)
            printed = terminal.type(f"bash -e <<'NUMBERS' && echo all is well\n{numbers}NUMBERS")
            assert "all is well" in printed, printed
    finally:
        up.terminate()
        code = up.wait(60)
    assert code == 0, log.read_text()[-2000:]
    assert len(steps) > 10

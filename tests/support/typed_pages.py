"""Pages whose commands are typed: blocks of commands, and what the page says they print."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from gateway_harness import until

BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECORDED_WITHIN_S = 30.0
ASKED_AGAIN = ("pilotage traffic", "pilotage usage", "pilotage rollout show")


class Step(NamedTuple):
    """Commands, and the lines that the page says they print."""

    commands: str
    shown: list[str]


def read_steps(text: str) -> list[Step]:
    """Return what a page has its reader type."""
    steps: list[Step] = []
    for kind, content in BLOCK.findall(text):
        if kind == "sh":
            steps.append(Step(content, []))
        else:
            steps[-1].shown.extend(content.splitlines())
    return steps


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
    """Type a step; a question about what is still going on is asked again."""
    printed: list[str] = []

    def is_as_shown() -> bool:
        printed[:] = [terminal.type(step.commands)]
        return all(is_shown(line, printed[0]) for line in step.shown)

    if any(line.startswith(ASKED_AGAIN) for line in step.commands.splitlines()):
        await until(is_as_shown, f"what {step.commands} shows", RECORDED_WITHIN_S)
    else:
        assert is_as_shown(), f"{step.commands}\nprinted\n{printed[0]}"

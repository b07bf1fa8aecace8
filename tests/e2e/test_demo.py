"""``make demo`` with the real model, and then the tutorial that goes on with what it leaves."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway_harness import until
from stub_upstream import free_port
from typed_pages import Terminal, check, is_shown, read_steps

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo" / "demo.py"
PAGE = ROOT / "docs" / "tutorials" / "first-rollout.md"
LONGEST_S = 90
CAME_TRUE = (
    "the budget held",
    "the bad version was rolled back",
    "it gets no call since",
    "the good version was promoted",
    "no call failed",
    "the decision's bundle is intact",
    "a changed bundle is found out",
)


class Shown(NamedTuple):
    """Where a demo ran, and what it printed."""

    folder: Path
    output: str
    is_quiet: bool  # whether it had the machine to itself


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Run the demo in a folder like a checkout's."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, str(DEMO), "--folder", str(folder / "build" / "demo")]
    fetched = subprocess.run([*command, "--fetch-only"], capture_output=True, text=True, check=True)
    assert fetched.stdout == ""
    is_quiet = os.getloadavg()[0] <= (os.cpu_count() or 1)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Shown(folder, done.stdout, is_quiet)


def test_the_demo_comes_true_and_leaves_a_page(demo: Shown) -> None:
    assert re.findall(r"^  (?:yes|NO ) +(.*)$", demo.output, re.MULTILINE) == list(CAME_TRUE)
    page = (demo.folder / "build" / "demo" / "story.html").read_text()
    assert "All of it came true" in page
    assert all(text.replace("'", "&#39;") in page for text in CAME_TRUE)
    took = re.search(r"After (\d+) s:", demo.output)
    assert took is not None
    print(f"the demo took {took[1]} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if demo.is_quiet:  # else it says more of the neighbours
        assert int(took[1]) <= LONGEST_S


async def test_what_the_tutorial_types_next_prints_what_it_shows(demo: Shown) -> None:
    began, start, *steps = read_steps(PAGE.read_text())
    assert all(is_shown(line, demo.output) for line in began.shown), demo.output
    (demo.folder / ".venv" / "bin").mkdir(parents=True)
    (demo.folder / ".venv" / "bin" / "activate").write_text("")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PILOTAGE_GATEWAY_PORT": str(free_port()),
        "PILOTAGE_CONTROL_PORT": str(free_port()),
        "NO_PROXY": "127.0.0.1",
        "COLUMNS": "200",
    }
    log = demo.folder / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
            ["bash", "-c", start.commands.replace("pilotage up", "exec pilotage up")],
            cwd=demo.folder, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        await until(lambda: "Ctrl-C stops." in log.read_text(), "a start", 120)
        with Terminal(demo.folder, environment) as terminal:
            terminal.type(start.commands.replace("pilotage up", ""))
            for step in steps:
                await check(terminal, step)
    finally:
        up.terminate()
        code = up.wait(60)
    assert code == 0, log.read_text()[-2000:]
    assert len(steps) > 5

"""The tutorial, typed from start to end, with the output that it shows; then README's numbers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway_harness import until
from stub_upstream import free_port
from typed_pages import BLOCK, Terminal, check, read_steps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "tutorials" / "first-gateway.md"
FETCHED_WITHIN_S = 300.0


async def test_what_the_tutorial_types_prints_what_it_shows(tmp_path: Path) -> None:
    gateway, control = free_port(), free_port()
    text = PAGE.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{gateway}")
    install, start, *steps = read_steps(text)
    assert "make setup" in install.commands
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

"""A fresh clone below a path with spaces: ``make up``, without a network, as another user."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
NEWCOMER = ROOT / "tests" / "support" / "newcomer.py"
OFFLINE = ROOT / "tests" / "support" / "offline.py"


def clone(target: Path) -> Path:
    """Clone what is committed, as another machine would."""
    subprocess.run(["git", "clone", "-q", f"file://{ROOT}", str(target)], check=True)
    return target


def run(command: list[str], cwd: Path | None = None) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


def come(command: list[str], clone_path: Path, data: Path, **environment: str) -> dict[str, object]:
    """Let a newcomer come; return what they saw."""
    ports = {"PILOTAGE_GATEWAY_PORT": "0", "PILOTAGE_CONTROL_PORT": "0"}
    done = subprocess.run(
        [*command, sys.executable, str(NEWCOMER), str(clone_path), str(data)],
        env={**os.environ, **ports, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, object] = json.loads(done.stdout)
    print(f"{' '.join(command) or 'first'}: {seen}")
    return seen


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and other users need root")
def test_make_up_from_a_path_with_spaces_then_without_network(tmp_path: Path) -> None:
    home = tmp_path / "a path with spaces"
    home.mkdir()
    there = clone(home / "pilotage clone")
    first = come([], there, home / "data")
    assert "Paris" in str(first["answer"])
    again = come(["unshare", "-n", sys.executable, str(OFFLINE)], there, home / "data")
    assert "Paris" in str(again["answer"])
    nothing = subprocess.run(
        ["make", "setup"], cwd=there, capture_output=True, text=True, check=True
    )
    assert "install" not in nothing.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.skipif(shutil.which("runuser") is None, reason="runuser (util-linux) is missing")
def test_make_up_as_an_ordinary_user() -> None:
    home = Path(
        subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()
    )
    try:
        there = clone(home / "clone")
        for support in (NEWCOMER, OFFLINE):
            shutil.copy(support, home)
        subprocess.run(["chown", "-R", "nobody", str(home)], check=True)
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or ""
        if not python:
            pytest.skip("no python3 that another user may run")
        done = subprocess.run(
            [
                shutil.which("runuser") or "runuser",
                "-u",
                "nobody",
                "--",
                "env",
                f"HOME={home}",  # runuser sets the one of the passwd file, which does not exist
                python,
                str(home / NEWCOMER.name),
                str(there),
                str(home / "data"),
            ],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("PYENV")},
                "HOME": str(home),
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "PILOTAGE_GATEWAY_PORT": "0",
                "PILOTAGE_CONTROL_PORT": "0",
            },
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert "Paris" in str(json.loads(done.stdout)["answer"])
        print(f"as nobody: {done.stdout.strip()}")
    finally:
        shutil.rmtree(home)

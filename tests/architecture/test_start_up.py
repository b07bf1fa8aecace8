"""What an import may load and touch: nothing heavy, and nothing outside the import system."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
CONTROL_PLANE = frozenset({"fastapi", "httpx", "pydantic", "sqlalchemy"})
HEAVY = frozenset({"fastapi", "google", "pydantic", "sqlalchemy", "torch"})
# Reports the packages that an import loads, and what it opens, connects to or starts meanwhile.
# The import system itself reads modules and the folders of sys.path: those are not counted.
PROBE = """
import json, sys
sys.path.insert(0, sys.argv[2])
touched = []
MODULES = (".py", ".pyc", ".so")
EVENTS = ("open", "socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen",
          "os.mkdir", "os.remove", "os.rename", "os.fork", "os.system", "sqlite3.connect")
def hook(event, arguments):
    if event in EVENTS and not str(arguments[0]).endswith(MODULES):
        touched.append(f"{event} {arguments[0]}")
sys.addaudithook(hook)
__import__(sys.argv[1])
found = list(touched)
print(json.dumps({"loaded": sorted({name.partition(".")[0] for name in sys.modules}),
                  "touched": found}))
"""


def test_importing_the_package_loads_nothing_heavy_and_does_no_io() -> None:
    report = probe("pilotage", SOURCE)

    assert "pilotage" in report["loaded"]
    assert HEAVY.isdisjoint(report["loaded"])
    assert report["touched"] == []


@pytest.mark.parametrize("module", ["pilotage.gateway", "pilotage.runtime.gateway"])
def test_the_gateway_process_loads_no_control_plane(module: str) -> None:
    file = SOURCE / module.replace(".", "/")
    if not (file.is_dir() or file.with_suffix(".py").exists()):
        pytest.skip(f"there is no {module}")

    assert CONTROL_PLANE.isdisjoint(probe(module, SOURCE)["loaded"])


def test_a_heavy_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("from pydantic import BaseModel\n")

    assert "pydantic" in probe("planted", tmp_path)["loaded"]


@pytest.mark.parametrize(
    ("statement", "event"),
    [
        ("open(__file__ + '.txt', 'w')", "open"),
        ("import socket; socket.socket().bind(('127.0.0.1', 0))", "socket.bind"),
        ("import os; os.mkdir(__file__ + '.d')", "os.mkdir"),
        ("import subprocess, sys; subprocess.run([sys.executable, '-V'])", "subprocess.Popen"),
        ("import sqlite3; sqlite3.connect(':memory:')", "sqlite3.connect"),
    ],
)
def test_io_at_import_is_found(statement: str, event: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(statement + "\n")

    assert event in [touched.partition(" ")[0] for touched in probe("planted", tmp_path)["touched"]]


def probe(module: str, folder: Path) -> dict[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-B", "-c", PROBE, module, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report: dict[str, list[str]] = json.loads(run.stdout.splitlines()[-1])
    return report

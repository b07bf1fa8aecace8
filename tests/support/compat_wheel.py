"""The wheel ``infrastructure.*``, installed alone, and programs that run with it."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "infrastructure-compat"
DOCUMENTS = ROOT / "tests" / "conformance" / "documents"
# Runs a block as a notebook would: it awaits outside of any function. What it opened is closed.
RUN = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
async def run(names):
    made = eval(code, names)
    if inspect.isawaitable(made):
        await made
    for value in list(names.values()):
        if hasattr(value, "aclose") and not inspect.isclass(value):
            await value.aclose()
asyncio.run(run({"__name__": "block"}))
"""


def build_wheel(folder: Path) -> Path:
    """Build the wheel and install it, and nothing else, below a folder; return where."""
    source = shutil.copytree(PACKAGE, folder / "source")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--no-index", "--target", str(folder / "target"), str(wheel)],
        check=True,
        capture_output=True,
    )
    return folder / "target"


def read_block(document: str, language: str = "python") -> str:
    """Return the block that a document consists of."""
    text = (DOCUMENTS / document).read_text()
    found = re.fullmatch(rf"```{language}\n(.*)```\n", text, re.DOTALL)
    assert found is not None
    return found[1]


async def run_block(text: str, target: Path, data: Path) -> tuple[int, str, str]:
    """Run a block in a process of its own, on a data folder; return its status and what it says."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")]),
        "PILOTAGE_DATA_DIR": str(data),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", RUN, stdin=PIPE, stdout=PIPE, stderr=PIPE,
        env=environment,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(text.encode()), 90)
    return process.returncode or 0, out.decode(), err.decode()

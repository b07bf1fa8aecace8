"""The wheel ``infrastructure.*``, and the registry's block of the design document as it is."""

import ast
import asyncio
import os
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import NamedTuple

import pytest

from pilotage import ModelMetadata, ModelRegistry

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "infrastructure-compat"
DOCUMENT = Path(__file__).parent / "documents" / "model-registry-usage.md"
PROJECT = "my-project"
MODEL = "gemini-flash-routing-tuned"
# Runs a block as a notebook would: it awaits outside of any function.
RUN = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
async def run(names):
    made = eval(code, names)
    if inspect.isawaitable(made):
        await made
    await names["registry"].aclose()
asyncio.run(run({"__name__": "block"}))
"""


class World(NamedTuple):
    """What the block assumes: an artifact in its bucket, and a second version with its metrics."""

    data: Path
    target: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a program that uses the wheel."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.target), os.environ.get("PYTHONPATH", "")]),
            "PILOTAGE_DATA_DIR": str(self.data),
        }

    async def run(self, text: str) -> tuple[int, str, str]:
        """Run a block in a process of its own."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", RUN, stdin=PIPE, stdout=PIPE, stderr=PIPE,
            env=self.environment,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(text.encode()), 90)
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and install it, and nothing else, into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
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


def read_block() -> str:
    found = re.fullmatch(r"```python\n(.*)```\n", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
async def world(tmp_path: Path, target: Path, tiny_gguf: Path) -> World:
    data = tmp_path / "data"
    place = data / "gs" / "my-bucket" / "models" / "routing-v1"
    place.mkdir(parents=True)
    shutil.copy(tiny_gguf, place / "model.gguf")
    async with ModelRegistry(PROJECT, data_dir=str(data)) as registry:
        await registry.upload_model(
            ModelMetadata(
                name=MODEL, version="1.1.0", artifact_uri="gs://my-bucket/models/routing-v1"
            )
        )
        await registry.update_performance_metrics(
            MODEL, "1.1.0", {"accuracy": 0.966, "latency_p95": 175.875}, run_id="bench-2"
        )
    return World(data, target)


async def test_the_block_of_the_document_runs_unchanged(world: World) -> None:
    code, out, err = await world.run(read_block())

    assert (code, err) == (0, "")
    uploaded, recommendation = out.splitlines()
    assert uploaded == (
        f"Model uploaded: projects/{PROJECT}/locations/us-central1/models/{MODEL}@1.0.0"
    )
    assert recommendation == "version_b is 5% more accurate and 25% faster"
    async with ModelRegistry(PROJECT, data_dir=str(world.data)) as registry:
        _, found = await registry.get_model(MODEL, "1.0.0")
    assert (found.deployment_stage.value, found.source.value) == ("staging", "se_darwin")
    assert found.tags == ["fine-tuned", "production-ready", "routing"]
    assert found.performance_metrics == {"accuracy": 0.92, "latency_p95": 234.5}


def test_the_wheel_holds_names_only(target: Path) -> None:
    modules = sorted((target / "infrastructure").glob("*.py"))

    assert [path.stem for path in modules] == ["__init__", "hybrid_llm_client", "vertex_ai"]
    for path in modules:
        for statement in ast.parse(path.read_text()).body:
            is_name = isinstance(statement, ast.ImportFrom) and statement.module == "pilotage"
            is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            is_list = isinstance(statement, ast.Assign) and ast.unparse(statement).startswith(
                "__all__"
            )
            assert is_name or is_text or is_list, ast.unparse(statement)


async def test_both_modules_hand_on_what_pilotage_has(world: World) -> None:
    program = """
import pilotage
from infrastructure import hybrid_llm_client, vertex_ai
for module in (hybrid_llm_client, vertex_ai):
    for name in module.__all__:
        assert getattr(module, name) is getattr(pilotage, name), name
        print(name)
class registry:
    async def aclose(): ...
"""
    code, out, err = await world.run(program)

    assert (code, err) == (0, "")
    assert out.split() == [
        "HybridLLMClient",
        "HybridLLMConfig",
        "DeploymentStage",
        "ModelMetadata",
        "ModelRegistry",
        "ModelSource",
    ]

"""The wheel ``infrastructure.*``, and a program that registers models, as it is."""

import ast
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from compat_wheel import build_wheel, read_block, run_block
from pilotage import ModelMetadata, ModelRegistry

PROJECT = "my-project"
MODEL = "gemini-flash-routing-tuned"


class World(NamedTuple):
    """What the block assumes: an artifact in its bucket, and a second version with its metrics."""

    data: Path
    target: Path

    async def run(self, text: str) -> tuple[int, str, str]:
        """Run a block in a process of its own."""
        return await run_block(text, self.target, self.data)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


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
    code, out, err = await world.run(read_block("model-registry-usage.md"))

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
"""
    code, out, err = await world.run(program)

    assert (code, err) == (0, "")
    assert out.split() == [
        "HybridLLMClient",
        "HybridLLMConfig",
        "AlertRule",
        "AlertSeverity",
        "AutoScalingConfig",
        "CostMetrics",
        "CostTracker",
        "DeploymentStage",
        "EndpointConfig",
        "MetricType",
        "ModelEndpoints",
        "ModelMetadata",
        "ModelMetrics",
        "ModelRegistry",
        "ModelSource",
        "QualityMetrics",
        "TrafficSplit",
        "TrafficSplitStrategy",
        "VertexAIMonitoring",
    ]

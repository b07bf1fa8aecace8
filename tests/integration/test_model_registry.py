"""``ModelRegistry`` with nothing running: each method against the control API in this process."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from pilotage import DeploymentStage, ModelMetadata, ModelRegistry, ModelSource, RegisteredModel
from pilotage.core.errors import PilotageError
from pilotage.kit.config import Settings
from pilotage.sdk.control import open_control

URI = "gs://my-bucket/models/routing-v1"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    folder = tmp_path_factory.mktemp("registry") / "data"
    place = folder / "gs" / "my-bucket" / "models" / "routing-v1"
    place.mkdir(parents=True)
    shutil.copy(tiny_gguf, place / "model.gguf")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> str:
    """Return a name that no other test has."""
    return tmp_path.name.lower().replace("_", "-")[-40:].strip("-.")


@pytest.fixture
async def registry(data: Path, project: str) -> AsyncIterator[ModelRegistry]:
    async with ModelRegistry(project, data_dir=str(data)) as opened:
        yield opened


def describe(version: str = "1.0.0", name: str = "routing", **more: object) -> ModelMetadata:
    return ModelMetadata.from_dict(
        {"name": name, "version": version, "artifact_uri": URI, "tags": ["routing"], **more}
    )


async def refuse(work: object, code: str) -> PilotageError:
    assert asyncio.iscoroutine(work)
    with pytest.raises(PilotageError) as refused:
        await work
    assert refused.value.code == code, refused.value
    return refused.value


async def test_what_is_uploaded_is_what_is_found(registry: ModelRegistry) -> None:
    await registry.upload_model(describe("0.9.0"))
    given = describe(
        display_name="Routing",
        description="Routes requests.",
        source="se_darwin",
        serving_container_uri="us-docker.pkg.dev/vertex-ai/prediction/pytorch-cpu:latest",
        base_model="gemini-2.0-flash",
        tags=["fine-tuned", "routing"],
        performance_metrics={"accuracy": 0.1 + 0.2},
        cost_metrics={"cost_per_request": 0.001},
        parent_version="0.9.0",
        custom_metadata={"team": "search"},
    )

    made = await registry.upload_model(given)
    model, found = await registry.get_model("routing", "1.0.0")

    assert isinstance(made, RegisteredModel)
    assert model == made
    own = f"projects/{registry.project_id}/locations/us-central1"
    assert made.resource_name == f"{own}/models/routing@1.0.0"
    assert made.artifact_sha256
    same = found.to_dict()
    for name in ("created_at", "updated_at", "created_by"):
        assert same.pop(name)
    assert same == {name: given.to_dict()[name] for name in same}


async def test_a_project_is_a_namespace_that_is_made_on_first_use(data: Path) -> None:
    async with ModelRegistry("one", data_dir=str(data)) as one:
        await one.upload_model(describe())
    async with ModelRegistry("two", data_dir=str(data)) as two:
        assert await two.list_models() == []
        await refuse(two.get_model("routing", "1.0.0"), "not_found")
    async with ModelRegistry("one", data_dir=str(data)) as one:
        assert [item.version for item in await one.list_models()] == ["1.0.0"]


async def test_an_absent_artifact_leaves_nothing_behind(registry: ModelRegistry) -> None:
    metadata = describe(artifact_uri="gs://my-bucket/models/nothing")

    refused = await refuse(registry.upload_model(metadata), "not_found")

    assert "gs://my-bucket/models/nothing" in refused.detail
    assert await registry.list_models() == []


async def test_an_artifact_has_an_address(registry: ModelRegistry) -> None:
    refused = await refuse(
        registry.upload_model(describe(artifact_uri="model.gguf")), "invalid_request"
    )

    assert refused.param == "artifact_uri"
    hosted = describe(artifact_uri="https://models.example/chat")
    assert (await registry.upload_model(hosted)).artifact_sha256 is None


async def test_a_version_begins_in_development(registry: ModelRegistry) -> None:
    staged = describe(deployment_stage="production")

    refused = await refuse(registry.upload_model(staged), "invalid_request")

    assert refused.param == "deployment_stage"
    assert await registry.list_models() == []


async def test_a_version_is_uploaded_once(registry: ModelRegistry) -> None:
    await registry.upload_model(describe())

    await refuse(registry.upload_model(describe()), "already_exists")

    assert len(await registry.list_models()) == 1


async def test_the_newest_come_first_and_the_limit_counts_what_was_found(
    registry: ModelRegistry,
) -> None:
    for number in range(6):
        tags = ["even"] if number % 2 == 0 else ["odd"]
        source = "custom" if number < 3 else "manual"
        await registry.upload_model(describe(f"1.{number}.0", tags=tags, source=source))

    async def versions(**query: object) -> list[str]:
        return [item.version for item in await registry.list_models(**query)]  # type: ignore[arg-type]

    assert await versions(limit=2) == ["1.5.0", "1.4.0"]
    assert await versions(tags=["even"], limit=2) == ["1.4.0", "1.2.0"]
    assert await versions(source=ModelSource.CUSTOM_TRAINING, limit=1) == ["1.2.0"]
    assert await versions(tags=["even", "odd"]) == []
    assert await versions(stage=DeploymentStage.PRODUCTION) == []
    assert await versions(stage=DeploymentStage.DEVELOPMENT, limit=0) == []


async def test_metrics_are_evidence_with_provenance(registry: ModelRegistry, data: Path) -> None:
    await registry.upload_model(describe(performance_metrics={"accuracy": 0.5}))

    updated = await registry.update_performance_metrics(
        "routing", "1.0.0", metrics={"accuracy": 0.92, "latency_p95": 234.5}, run_id="run-7", n=500
    )
    billed = await registry.update_cost_metrics("routing", "1.0.0", {"cost_per_request": 0.002})
    await registry.aclose()

    assert updated.performance_metrics == {"accuracy": 0.92, "latency_p95": 234.5}
    assert billed.cost_metrics == {"cost_per_request": 0.002}
    settings = msgspec.convert({"data_dir": str(data)}, type=Settings)
    async with open_control(settings, registry.project_id) as control:
        place = "/models/routing/versions/1.0.0/evidence"
        rows = [item async for item in control.list(place, history=True)]
    measured = [item for item in rows if item["subject"] == "accuracy"]
    assert [(item["value"], item["run_id"], item["n"]) for item in measured] == [
        ("0.92", "run-7", 500),
        ("0.5", "", None),
    ]
    (cost,) = [item for item in rows if item["kind"] == "metric.cost"]
    assert (cost["unit"], cost["tool"]) == ("USD", "ModelRegistry")


async def test_a_comparison_says_percents_of_the_first(registry: ModelRegistry) -> None:
    one = {"accuracy": 0.92, "latency_p95": 234.5, "recall": 0.5}
    two = {"accuracy": 0.966, "latency_p95": 175.875}
    await registry.upload_model(describe("1.0.0", performance_metrics=one))
    await registry.upload_model(
        describe("1.1.0", performance_metrics=two, cost_metrics={"cost_per_request": 1.0})
    )

    found = await registry.compare_versions("routing", "1.0.0", "1.1.0")

    assert (found["version_a"], found["version_b"]) == ("1.0.0", "1.1.0")
    assert found["recommendation"].startswith("version_b is 5% more accurate and 25% faster")
    latency = found["performance_diff"]["latency_p95"]
    assert (latency["a"], latency["b"], latency["difference"]) == (234.5, 175.875, -58.625)
    assert latency["percent"] == -25.0
    recall = found["performance_diff"]["recall"]
    assert (recall["a"], recall["b"], recall["verdict"]) == (0.5, None, "missing")
    assert found["cost_diff"]["cost_per_request"]["verdict"] == "missing"


async def test_stages_are_passed_one_by_one(registry: ModelRegistry) -> None:
    await registry.upload_model(describe())
    production, staging = DeploymentStage.PRODUCTION, DeploymentStage.STAGING

    skipped = await refuse(registry.promote_model("routing", "1.0.0", production), "conflict")
    promoted = await registry.promote_model("routing", "1.0.0", staging, reason="measured")
    alone = await refuse(
        registry.promote_model("routing", "1.0.0", production), "approval_required"
    )

    assert "staging" in f"{skipped.detail} {skipped.hint}"
    assert promoted.deployment_stage is staging
    assert "pilotage approvals request" in alone.hint
    assert [item.version for item in await registry.list_models(stage=staging)] == ["1.0.0"]
    assert await registry.list_models(stage=production) == []


async def test_what_is_archived_comes_back_to_development_with_a_reason(
    registry: ModelRegistry,
) -> None:
    await registry.upload_model(describe())
    development, archived = DeploymentStage.DEVELOPMENT, DeploymentStage.ARCHIVED
    await registry.promote_model("routing", "1.0.0", archived, reason="old")

    with pytest.raises(PilotageError):
        await registry.promote_model("routing", "1.0.0", DeploymentStage.STAGING, reason="x")
    with pytest.raises(PilotageError, match="reason"):
        await registry.promote_model("routing", "1.0.0", development)
    restored = await registry.promote_model("routing", "1.0.0", development, reason="needed")

    assert restored.deployment_stage is development


async def test_gates_that_are_not_passed_are_named(registry: ModelRegistry, data: Path) -> None:
    await registry.upload_model(describe())
    await registry.aclose()
    settings = msgspec.convert({"data_dir": str(data)}, type=Settings)
    async with open_control(settings, registry.project_id) as control:
        checks = [{"name": "accuracy", "min": "0.9"}]
        await control.put("/gate-policies/staging", {"checks": checks})
    staging = DeploymentStage.STAGING

    missing = await refuse(registry.promote_model("routing", "1.0.0", staging), "gate_failed")
    await registry.update_performance_metrics("routing", "1.0.0", {"accuracy": 0.8})
    failed = await refuse(registry.promote_model("routing", "1.0.0", staging), "gate_failed")
    await registry.update_performance_metrics("routing", "1.0.0", {"accuracy": 0.95})
    promoted = await registry.promote_model("routing", "1.0.0", staging)

    assert "accuracy" in missing.detail
    assert "0.8" in failed.detail
    assert promoted.deployment_stage is staging


async def test_a_version_is_deleted(registry: ModelRegistry) -> None:
    await registry.upload_model(describe())
    await refuse(
        registry.delete_model("routing", "1.0.0", delete_from_vertex_ai=True), "unsupported"
    )

    await registry.delete_model("routing", "1.0.0")

    await refuse(registry.get_model("routing", "1.0.0"), "not_found")


async def test_registries_of_one_program_share_what_they_open(data: Path, project: str) -> None:
    one, two = (ModelRegistry(f"{project}-{name}", data_dir=str(data)) for name in "ab")
    await asyncio.gather(one.upload_model(describe()), two.upload_model(describe()))
    await one.aclose()
    found = await two.list_models()
    await two.aclose()

    assert [item.version for item in found] == ["1.0.0"]
    settings = msgspec.convert({"data_dir": str(data)}, type=Settings)
    async with open_control(settings, two.project_id) as control:  # the folder is free again
        assert (await control.get("/models/routing"))["name"] == "routing"


async def test_many_may_ask_at_once_and_again_after_closing(data: Path) -> None:
    registry = ModelRegistry("asked-at-once", data_dir=str(data))
    versions = [f"1.{number}.0" for number in range(4)]

    await registry.upload_model(describe("0.1.0"))
    await asyncio.gather(*(registry.upload_model(describe(version)) for version in versions))
    await registry.aclose()
    found = await registry.list_models()
    await registry.aclose()

    assert {item.version for item in found} == {"0.1.0", *versions}

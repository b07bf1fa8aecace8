"""A program that deploys, predicts and splits traffic, as it is, and what it stands for."""

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from compat_wheel import build_wheel, read_block, run_block
from pilotage import (
    AutoScalingConfig,
    EndpointConfig,
    ModelEndpoints,
    ModelMetadata,
    ModelRegistry,
    TrafficSplit,
    TrafficSplitStrategy,
)
from pilotage.core.errors import PilotageError
from pilotage.kit.config import Settings
from pilotage.sdk.control import share_control
from system import poll

PROJECT, ENDPOINT = "my-project", "routing-agent-endpoint"
TUNED = "gemini-flash-routing-tuned"
MODELS = (TUNED, "model-v1", "model-v2")
MISSING = "from infrastructure.vertex_ai import TrafficSplitStrategy\n"  # the block's own do not
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def config_of_the_document() -> EndpointConfig:
    return EndpointConfig(
        endpoint_name=ENDPOINT,
        display_name="Genesis Routing Agent",
        machine_type="g2-standard-4",
        accelerator_type="NVIDIA_L4",
        accelerator_count=1,
        auto_scaling=AutoScalingConfig(
            min_replica_count=1, max_replica_count=10, target_accelerator_duty_cycle=60
        ),
    )


class World(NamedTuple):
    """A project with three priced models, and the block's endpoint with two of them."""

    data: Path

    def open(self) -> ModelEndpoints:
        """Return the facade."""
        return ModelEndpoints(PROJECT, data_dir=str(self.data))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """Return a data folder in which the models are registered and have prices."""
    data = tmp_path_factory.mktemp("made") / "data"
    place = data / "gs" / "my-bucket"
    place.mkdir(parents=True)
    shutil.copy(tiny_gguf, place / "model.gguf")
    asyncio.run(register(data))
    return data


async def register(data: Path) -> None:
    settings = msgspec.convert({"data_dir": str(data)}, type=Settings)
    async with ModelRegistry(PROJECT, data_dir=str(data)) as registry:
        for name in MODELS:
            await registry.upload_model(
                ModelMetadata(name=name, version="1.0.0", artifact_uri="gs://my-bucket/model.gguf")
            )
        async with share_control(settings, PROJECT) as control:
            for name in MODELS:
                await control.post("/prices", {"subject": name, "input": "0.5", "output": "1.5"})


@pytest.fixture
def world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PILOTAGE_ENGINE_CONTEXT_TOKENS", "2048")
    return World(shutil.copytree(made, tmp_path / "data"))


async def test_the_block_of_the_document_runs_unchanged(world: World, target: Path) -> None:
    async with world.open() as endpoints:
        await endpoints.create_endpoint(config_of_the_document())
        for name in MODELS[1:]:
            await endpoints.deploy_model(ENDPOINT, name, "1.0.0")

    code, out, err = await run_block(MISSING + read_block("endpoints-usage.md"), target, world.data)

    assert (code, err) == (0, "")
    assert out.startswith("[{'content': '")
    async with world.open() as endpoints:
        stats = await endpoints.get_endpoint_stats(ENDPOINT)
        settings = msgspec.convert({"data_dir": str(world.data)}, type=Settings)
        async with share_control(settings, PROJECT) as control:
            usage = await poll(
                lambda: control.get("/usage", by="tenant"), lambda reply: bool(reply["items"])
            )
            (key,) = [item async for item in control.list("/keys")]
    shares = {item["model"]: item["traffic_percentage"] for item in stats["deployed_models"]}
    assert shares == {f"{TUNED}@1.0.0": 0, "model-v1@1.0.0": 50, "model-v2@1.0.0": 50}
    assert (usage["items"][0]["calls"], usage["items"][0]["cost_nano"] > 0) == (1, True)
    assert key["revoked_at"] is not None  # it lived as long as the block


async def test_an_endpoint_is_made_once_and_found_by_its_labels(world: World) -> None:
    async with world.open() as endpoints:
        made = await endpoints.create_endpoint(
            EndpointConfig(name="chat", labels={"team": "help"}, dedicated_endpoint=True)
        )
        assert made.resource_name == f"projects/{PROJECT}/locations/us-central1/endpoints/chat"
        assert (made.labels, made.dedicated_endpoint) == ({"team": "help"}, True)
        again = await endpoints.create_endpoint(
            EndpointConfig(name="chat", labels={"team": "help"}, dedicated_endpoint=True)
        )
        assert again == made
        with pytest.raises(PilotageError) as other:
            await endpoints.create_endpoint(EndpointConfig(name="chat"))
        assert (other.value.code, other.value.param) == ("already_exists", "labels")
        assert [one.name for one in await endpoints.list_endpoints({"team": "help"})] == ["chat"]
        assert await endpoints.list_endpoints({"team": "other"}) == []
        assert (await endpoints.get_endpoint_stats("chat"))["status"] == "empty"


async def test_models_come_answer_and_go(world: World) -> None:
    async with world.open() as endpoints:
        made = await endpoints.create_endpoint(EndpointConfig(name="chat"))
        first = await endpoints.deploy_model(made.resource_name, "model-v1", "1.0.0")
        assert await endpoints.deploy_model("chat", "model-v1", "1.0.0") == first
        second = await endpoints.deploy_model("chat", "model-v2", "1.0.0", 10)
        stats = await endpoints.get_endpoint_stats("chat")
        assert stats["status"] == "healthy"
        assert stats["total_traffic_percentage"] == 100
        percents = {one["id"]: one["traffic_percentage"] for one in stats["deployed_models"]}
        assert percents == {first: 90, second: 10}

        found = await endpoints.predict("chat", ["one", "two"], {"maxOutputTokens": 4})
        assert len(found["predictions"]) == 2
        assert all(isinstance(one["content"], str) for one in found["predictions"])
        assert found["latency_ms"] > 0
        with pytest.raises(PilotageError) as late:
            await endpoints.predict("chat", ["x"] * 50, {"max_tokens": 1500}, timeout=0.05)
        assert late.value.code == "deadline"
        with pytest.raises(PilotageError) as wrong:
            await endpoints.predict("chat", ["one"], {"topK": 3})
        assert (wrong.value.code, wrong.value.param) == ("unsupported", "parameters.topK")

        with pytest.raises(PilotageError) as serving:
            await endpoints.undeploy_model("chat", first)
        assert serving.value.code == "deployment_serves_traffic"
        moved = await endpoints.update_traffic_split("chat", TrafficSplit(splits={second: 100}))
        assert (moved["splits"], moved["rollout"]) == ({second: 100}, None)
        await endpoints.undeploy_model("chat", first)
        with pytest.raises(PilotageError) as full:
            await endpoints.delete_endpoint("chat")
        assert full.value.code == "conflict"
        await endpoints.delete_endpoint("chat", force=True)
        with pytest.raises(PilotageError) as gone:
            await endpoints.get_endpoint_stats("chat")
        assert gone.value.code == "not_found"


async def test_what_is_not_there_or_not_supported_is_said(world: World) -> None:
    async with world.open() as endpoints:
        for name in ("network", "enable_access_logging"):
            value: object = "vpc" if name == "network" else False
            config = EndpointConfig(name="chat", **{name: value})  # type: ignore[arg-type]
            with pytest.raises(PilotageError) as refused:
                await endpoints.create_endpoint(config)
            assert (refused.value.code, refused.value.param) == ("unsupported", name)
        split = TrafficSplit(splits={"model-v1": 100})
        with pytest.raises(PilotageError) as early:
            await endpoints.create_endpoint(EndpointConfig(name="chat", traffic_split=split))
        assert early.value.param == "traffic_split"
        await endpoints.create_endpoint(EndpointConfig(name="chat"))
        with pytest.raises(PilotageError) as unpublished:
            await endpoints.predict("chat", ["one"])
        assert "no deployment takes traffic" in unpublished.value.detail
        with pytest.raises(PilotageError) as unknown:
            await endpoints.update_traffic_split("chat", split)
        assert unknown.value.code == "not_found"
        await endpoints.deploy_model("chat", "model-v1", "1.0.0", sync=False)
        with pytest.raises(PilotageError) as nobody:
            await endpoints.deploy_model("chat", "model-v2", "1.0.0", sync=False)
        assert nobody.value.param == "sync"


async def test_a_canary_is_a_rollout_that_waits_for_a_person(world: World) -> None:
    async with world.open() as endpoints:
        await endpoints.create_endpoint(EndpointConfig(name="chat"))
        await endpoints.deploy_model("chat", "model-v1", "1.0.0")
        await endpoints.deploy_model("chat", "model-v2", "1.0.0", 0)
        begun = await endpoints.update_traffic_split(
            "chat",
            TrafficSplit(
                splits={"model-v1": 90, "model-v2": 10}, strategy=TrafficSplitStrategy.CANARY
            ),
        )
        assert begun["rollout"].startswith("rol_")
        settings = msgspec.convert({"data_dir": str(world.data)}, type=Settings)
        async with share_control(settings, PROJECT) as control:
            found = await poll(
                lambda: control.get(f"/rollouts/{begun['rollout']}"),
                lambda reply: reply["state"] == "running",
            )
        assert (found["percent"], found["candidate"]) == (10, "model-v2@1.0.0")
        with pytest.raises(PilotageError) as busy:
            await endpoints.update_traffic_split("chat", TrafficSplit(splits={"model-v1": 100}))
        assert busy.value.code == "conflict"

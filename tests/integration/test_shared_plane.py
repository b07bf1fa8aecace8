"""One program, one data folder: what it opens is shared, and becomes a server where needed."""

import asyncio
from pathlib import Path

import pytest

from pilotage import EndpointConfig, ModelEndpoints, ModelMetadata, ModelRegistry
from pilotage.kit.data_folder import DataFolder

PROJECT = "my-project"


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_registry_goes_on_when_endpoints_need_a_server(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    registry = ModelRegistry(PROJECT, data_dir=str(folder.path))
    endpoints = ModelEndpoints(PROJECT, data_dir=str(folder.path))
    await registry.upload_model(ModelMetadata(name="tiny", version="1.0.0", base_model="llama"))
    assert folder.find_server() is None

    made, first, second = await asyncio.gather(
        endpoints.create_endpoint(EndpointConfig(name="chat")),
        registry.list_models(),
        registry.list_models(),
    )

    assert made.name == "chat"
    assert (len(first), len(second)) == (1, 1)
    assert folder.find_server() is not None
    await endpoints.aclose()
    assert len(await registry.list_models()) == 1
    await registry.aclose()
    assert folder.find_holder() is None
    assert [one.name for one in await endpoints.list_endpoints()] == ["chat"]  # it opens again
    await endpoints.aclose()
    assert folder.find_holder() is None

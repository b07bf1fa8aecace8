"""Deployments of adapters, and of versions on other engines, on both databases."""

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.service import EndpointService
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Database
from pilotage.registry.artifacts.types import Inspection, TreeEntry
from pilotage.registry.service import RegistryService
from pilotage.registry.types import VersionDetails

BASE, ADAPTER, TREE, PICKLE = ("aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32)
FILES = (TreeEntry("model.safetensors", "ee" * 32, 10),)
FOUND = {
    BASE: Inspection(architecture="llama", context_length=2048),
    ADAPTER: Inspection(architecture="llama", kind="adapter"),
    TREE: Inspection(architecture="llama", format="safetensors"),
    PICKLE: Inspection(format="pickle"),
}


@pytest.fixture
def registry(clock: ManualClock) -> RegistryService:
    return RegistryService(clock)


@pytest.fixture
def service(clock: ManualClock, registry: RegistryService) -> EndpointService:
    return EndpointService(clock, IdentityService(clock), registry, AbsentFleet(), engines=("big",))


@pytest.fixture
async def projects(
    database: Database, clock: ManualClock, registry: RegistryService, service: EndpointService
) -> stores.Projects:
    made = await stores.make_projects(database, clock)
    async with database.write(made.mine) as tx:
        await registry.create_model(tx, "tiny")
        for sha256, info in FOUND.items():
            files = FILES if sha256 == TREE else ()
            await registry.artifacts.add_artifact(tx, sha256, 10, info, files)
        for version, sha256, parent in (
            ("1.0.0", BASE, ""),
            ("1.1.0", ADAPTER, "tiny@1.0.0"),
            ("2.0.0", TREE, ""),
            ("2.1.0", ADAPTER, "tiny@2.0.0"),
            ("3.0.0", PICKLE, ""),
        ):
            details = VersionDetails(parent=parent)
            await registry.create_version(tx, "tiny", version, sha256, details=details)
        await service.create_endpoint(tx, "chat")
    return made


async def test_an_adapter_is_deployed_on_the_file_of_its_base(
    database: Database, service: EndpointService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        base = await service.deploy(tx, "chat", "tiny@1.0.0")
        adapter = await service.deploy(tx, "chat", "tiny@1.1.0")
    async with database.read(projects.mine) as tx:
        assert await service.list_deployments(tx) == [base, adapter]
    assert (base.artifact_sha256, base.adapter_sha256, base.engine) == (BASE, "", "llamacpp")
    assert (adapter.artifact_sha256, adapter.adapter_sha256) == (BASE, ADAPTER)
    assert adapter.context_tokens == base.context_tokens == 2048


async def test_another_engine_is_chosen_by_name_and_given_folders(
    database: Database, service: EndpointService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await service.deploy(tx, "chat", "tiny@2.0.0", engine="big")
    assert (made.engine, made.artifact_sha256) == ("big", TREE)


@pytest.mark.parametrize(
    ("version", "engine", "code", "why"),
    [
        ("1.0.0", "tgi", "invalid_request", "There is no engine 'tgi'."),
        ("2.0.0", "", "conflict", "made of safetensors files, the engine runs gguf"),
        ("2.1.0", "", "conflict", "tiny@2.0.0 is made of safetensors files"),
        ("1.1.0", "big", "conflict", "is an adapter, and the engine big is given whole models"),
        ("3.0.0", "big", "conflict", "made of pickle files, engines are given safetensors"),
    ],
)
async def test_what_an_engine_does_not_run_is_refused(
    database: Database,
    service: EndpointService,
    projects: stores.Projects,
    version: str,
    engine: str,
    code: str,
    why: str,
) -> None:
    async with database.write(projects.mine) as tx:
        with pytest.raises(PilotageError) as refused:
            await service.deploy(tx, "chat", f"tiny@{version}", engine=engine)
    assert refused.value.code == code
    assert why in refused.value.detail

"""Versions that are adapters: they name what they are put on, through those they came of."""

from dataclasses import replace

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Database
from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.service import RegistryService
from pilotage.registry.types import VersionDetails

BASE, FIRST, SECOND, OTHER, WIDE = (letter * 64 for letter in "abcde")
LLAMA = Inspection(architecture="llama", context_length=2048, matrices={"output.weight": ("64x7",)})
ADAPTER = Inspection(architecture="llama", kind="adapter")
QWEN = Inspection(architecture="qwen2", kind="adapter")
WIDER = replace(ADAPTER, matrices={"output.weight": ("64x9",)})


@pytest.fixture
def service(clock: ManualClock) -> RegistryService:
    return RegistryService(clock)


@pytest.fixture
async def projects(
    database: Database, clock: ManualClock, service: RegistryService
) -> stores.Projects:
    made = await stores.make_projects(database, clock)
    async with database.write(made.mine) as tx:
        await service.create_model(tx, "tiny")
        infos = (LLAMA, ADAPTER, ADAPTER, QWEN, WIDER)
        for sha256, info in zip((BASE, FIRST, SECOND, OTHER, WIDE), infos, strict=True):
            await service.add_artifact(tx, sha256, 10, info)
        await service.create_version(tx, "tiny", "1.0.0", BASE)
    return made


def tuned_on(parent: str) -> VersionDetails:
    return VersionDetails(parent=parent)


async def test_an_adapter_has_the_context_of_its_base_and_finds_it_through_others(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        first = await service.create_version(
            tx, "tiny", "1.1.0", FIRST, details=tuned_on("tiny@1.0.0")
        )
        second = await service.create_version(
            tx, "tiny", "1.2.0", SECOND, details=tuned_on("tiny@1.1.0")
        )
    async with database.read(projects.mine) as tx:
        base = await service.get_version(tx, "tiny@1.0.0")
        assert await service.find_base(tx, first) == base
        assert await service.find_base(tx, second) == base
        assert await service.find_base(tx, base) is None
    assert (first.context_tokens, second.context_tokens) == (2048, 2048)


@pytest.mark.parametrize(
    ("sha256", "parent", "why"),
    [
        (FIRST, "", "nothing says what it is put on"),
        (OTHER, "tiny@1.0.0", "fit tiny@1.0.0: it is for qwen2 models, and that is a llama one"),
        (WIDE, "tiny@1.0.0", "it changes output.weight of 64x9, and there 64x7 is"),
    ],
)
async def test_an_adapter_without_a_base_that_fits_is_refused(
    database: Database,
    service: RegistryService,
    projects: stores.Projects,
    sha256: str,
    parent: str,
    why: str,
) -> None:
    async with database.write(projects.mine) as tx:
        with pytest.raises(PilotageError, match=why) as refused:
            await service.create_version(tx, "tiny", "1.1.0", sha256, details=tuned_on(parent))
    assert (refused.value.code, refused.value.param) == ("invalid_request", "parent")


async def test_a_base_that_an_adapter_needs_is_not_deleted(
    database: Database, service: RegistryService, projects: stores.Projects
) -> None:
    async def is_idle(_tx: object, _version_id: str) -> bool:
        return False

    async with database.write(projects.mine) as tx:
        await service.create_version(tx, "tiny", "1.1.0", FIRST, details=tuned_on("tiny@1.0.0"))
        with pytest.raises(PilotageError, match=r"tiny@1\.1\.0"):
            await service.delete_version(tx, "tiny@1.0.0", is_idle)

"""No statement of the registry reads a large table whole: every plan is asked for."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

import many_versions
import stores
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Database, Tx
from pilotage.registry import card_store, evidence_store, lineage_store, search_store, store
from pilotage.registry.search import parse_query
from pilotage.registry.service import RegistryService
from pilotage.registry.types import EvidenceDraft, Node, VersionDetails
from pilotage.registry.upkeep import VersionChange
from statements import Statement, collect_statements, find_full_scans

STORES = (store, evidence_store, lineage_store, card_store)
SMALL = frozenset({"project", "model", "revision"})  # of revisions only the last is asked for
HOSTED = VersionDetails(artifact_uri="gs://m", tags=("eu",))
SEARCHES: tuple[dict[str, Any], ...] = (
    {},
    {"text": "tun", "tags": "eu", "sort": "oldest"},
    {"stage": "production", "after": "ver_2"},
    {"source": "custom", "metrics": "accuracy>=0.9,latency_p95<5"},
    {"sort": "-accuracy", "stage": "staging", "tags": "eu"},
    {"sort": "accuracy", "metrics": "accuracy>0", "after": "1.0:ver_2"},
)


async def is_idle(tx: Tx, version_id: str) -> bool:
    return False


def list_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


@contextmanager
def note_calls(patched: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Note which functions of the stores are called."""
    called: set[str] = set()

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*words: Any, **more: Any) -> Any:  # noqa: ANN401
            called.add(name)
            return await function(*words, **more)

        return call

    for module in STORES:
        for name, function in list_functions(module).items():
            patched.setattr(module, name, noting(f"{module.__name__}.{name}", function))
    yield called


async def use_everything(tx: Tx, service: RegistryService) -> None:
    """Do with the registry whatever can be done with it."""
    await service.create_model(tx, "tiny")
    await service.change_model(tx, "tiny", "small")
    await service.list_models(tx, "a", 2)
    await service.list_models(tx, "mdl_1", 2, is_newest_first=True)
    first = await service.create_version(tx, "tiny", "1.0.0", None, details=HOSTED)
    child = VersionDetails(parent="tiny@1.0.0", base_model="llama")
    second = await service.create_version(tx, "tiny", "1.1.0", None, details=child)
    await service.get_version(tx, "tiny")
    await service.list_versions(tx, "tiny", "0.1.0", 2)
    change = VersionChange(description="tuned", custom_metadata={})
    await service.change_version(tx, "tiny@1.0.0", change)
    for kind in ("metric.performance", "scan.security"):
        draft = EvidenceDraft(kind=kind, subject="accuracy", value=Decimal("0.9"), run_id="run")
        await service.add_evidence(tx, first.id, draft)
        await service.evidence.list(tx, first.id, kind, after="ev_1", limit=2)
    await service.list_evidence(tx, first.id, has_history=True)
    await service.lineage.get_lineage(tx, Node("version", first.id))
    await service.cards.write_card(tx, first, {"limits": "few"})
    await service.cards.get_card(tx, first, 1)
    await service.delete_version(tx, second.id, is_idle)
    await service.delete_model(tx, "tiny", is_idle)


async def test_every_statement_of_the_registry_finds_its_rows_by_an_index(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = RegistryService(clock)
    projects = await stores.make_projects(database, clock)
    await many_versions.fill(database, projects.mine.project_id or "", 2_000)
    with (
        collect_statements(database) as statements,
        note_calls(monkeypatch) as called,
    ):
        async with database.write(projects.mine) as tx:
            await use_everything(tx, service)
            for few in (0, 300):
                monkeypatch.setattr(search_store, "FEW", few)
                for words in SEARCHES:
                    await search_store.search_versions(tx, parse_query(**words))

    there = {f"{module.__name__}.{name}" for module in STORES for name in list_functions(module)}
    assert there - called == set()
    assert len(statements) > 40
    found = await find_full_scans(database, statements, SMALL)
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM model_version WHERE description = 'tuned'",
        "SELECT count(*) FROM evidence",
        "UPDATE model_version SET rev = 1 WHERE license = 'MIT'",
        "SELECT v.id FROM model_version v JOIN model m ON m.id = v.model_id WHERE m.rev = 3",
        "DELETE FROM version_tag WHERE tag = 'eu'",
    ],
)
async def test_a_statement_without_an_index_is_found(database: Database, text: str) -> None:
    found = await find_full_scans(database, [Statement(text, ())])

    assert found
    assert all(text in item for item in found)


async def test_statements_are_collected_once_and_only_while_asked(database: Database) -> None:
    async with database.engine.begin() as conn:
        with collect_statements(database) as statements:
            for number in (1, 2):
                await conn.execute(sa.text("SELECT CAST(:n AS INTEGER) AS n"), {"n": number})
        await conn.execute(sa.text("SELECT 3 AS n"))

    assert len(statements) == 1

"""Searching versions on both databases: against a search in memory, page by page."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.registry import search_store
from pilotage.registry.search import VersionQuery, parse_query
from pilotage.registry.service import RegistryService
from pilotage.registry.types import EvidenceDraft, NamedVersion, VersionDetails

MODELS = ("fraud-scoring", "chat", "chatty")
TAGS = ("routing", "eu", "team=fraud")
TEXTS = ("", "Größer als zuvor", "fraud, tuned again", "CHAT")
SOURCES = ("manual", "custom")
VALUES = ("0.85", "0.9", "0.90", "0.95")


class Made(NamedTuple):
    """A version, and what was measured of it."""

    version: NamedVersion
    accuracy: Decimal | None


class Wish(NamedTuple):
    """A version to make."""

    model: str
    text: str
    tags: Sequence[str]
    source: str
    accuracy: str | None


WISHES = st.lists(
    st.builds(
        Wish,
        st.sampled_from(MODELS),
        st.sampled_from(TEXTS),
        st.lists(st.sampled_from(TAGS), unique=True, max_size=2),
        st.sampled_from(SOURCES),
        st.none() | st.sampled_from(VALUES),
    ),
    max_size=9,
)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "text": st.sampled_from(["fra", "chat", "CHATT", "gröss", "fraud tun", "nothing"]),
        "tags": st.sampled_from(["eu", "eu,routing", "team=fraud", "none"]),
        "source": st.sampled_from(SOURCES),
        "stage": st.sampled_from(["development", "production"]),
        "metrics": st.sampled_from(["accuracy>=0.9", "accuracy>0.9", "accuracy<0.9,accuracy>0"]),
        "sort": st.sampled_from(["newest", "oldest", "accuracy", "-accuracy"]),
    },
)


async def make(tx: Tx, service: RegistryService, wishes: Sequence[Wish]) -> list[Made]:
    for name in MODELS:
        await service.create_model(tx, name)
    made = []
    for number, wish in enumerate(wishes):
        details = VersionDetails(artifact_uri="gs://m", tags=wish.tags)
        version = await service.create_version(
            tx,
            wish.model,
            f"1.{number}.0",
            None,
            source=wish.source,
            description=wish.text,
            details=details,
        )
        accuracy = None if wish.accuracy is None else Decimal(wish.accuracy)
        for value in [] if accuracy is None else [Decimal("0.1"), accuracy]:
            draft = EvidenceDraft(kind="metric.performance", subject="accuracy", value=value)
            await service.add_evidence(tx, version.id, draft)
        made.append(Made(version, accuracy))
    return made


def expect(made: Sequence[Made], query: VersionQuery) -> list[str]:
    """Return the ids that a query wants, by looking at every version."""

    def holds(item: Made) -> bool:
        version = item.version
        texts = f"{version.model_name} {version.description} {' '.join(version.tags)}"
        words = texts.casefold().replace("-", " ").replace("=", " ").replace(",", " ").split()
        compared = {">=": "__ge__", ">": "__gt__", "<": "__lt__"}
        return (
            all(any(word.startswith(wanted) for word in words) for wanted in query.words)
            and set(query.tags) <= set(version.tags)
            and query.source in ("", version.source)
            and query.stage in ("", version.stage)
            and all(
                item.accuracy is not None
                and getattr(item.accuracy, compared[bound.operator])(bound.value)
                for bound in query.metrics
            )
            and (not query.metric or item.accuracy is not None)
        )

    found = sorted(filter(holds, made), key=lambda item: item.version.id)
    if query.metric:
        found.sort(key=lambda item: (item.accuracy or 0, item.version.id))
    ids = [item.version.id for item in found]
    return ids[::-1] if query.is_descending else ids


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wishes=WISHES, queries=st.lists(QUERIES, max_size=5), few=st.sampled_from([0, 1, 1000]))
async def test_a_search_finds_what_a_look_at_every_version_does(
    database: Database,
    clock: ManualClock,
    wishes: Sequence[Wish],
    queries: Sequence[dict[str, Any]],
    few: int,
) -> None:
    service = RegistryService(clock)
    async with database.write(SYSTEM) as whole:
        name = clock.new_id("p").replace("_", "-")
        project = await IdentityService(clock).create_project(whole, name)
        tx = replace(whole, actor=Actor(principal_id="u", project_id=project.id))
        made = await make(tx, service, wishes)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(search_store, "FEW", few)
            for words in queries:
                expected = expect(made, parse_query(**words))
                pages: list[str] = []
                after = ""
                while True:
                    query = parse_query(**words, after=after, limit=2)
                    page = await service.search_versions(tx, query)
                    pages += [item.version.id for item in page]
                    if len(page) < 2:
                        break
                    after = page[-1].cursor
                assert pages == expected


async def test_what_is_deleted_or_changed_is_found_no_more(
    database: Database, clock: ManualClock
) -> None:
    service = RegistryService(clock)
    async with database.write(SYSTEM) as tx:
        project = await IdentityService(clock).create_project(tx, "mine")
    actor = Actor(principal_id="u", project_id=project.id)

    async def not_in_use(tx: Tx, version_id: str) -> bool:
        return False

    async with database.write(actor) as tx:
        wish = Wish("chat", "tuned", ("eu",), "manual", "0.9")
        (kept,) = await make(tx, service, [wish])
        whole = parse_query(text="tuned", tags="eu", metrics="accuracy>0")
        assert len(await service.search_versions(tx, whole)) == 1
        await service.delete_version(tx, kept.version.id, not_in_use)
        for query in (
            parse_query(text="tuned"),
            parse_query(tags="eu"),
            parse_query(metrics="accuracy>0"),
            parse_query(),
        ):
            assert not await service.search_versions(tx, query)
        again = await service.create_version(
            tx, "chat", "1.0.0", None, details=VersionDetails(artifact_uri="gs://m")
        )
        assert [item.version.id for item in await service.search_versions(tx, parse_query())] == [
            again.id
        ]


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("stage", {"stage": "prod"}),
        ("source", {"source": "somewhere"}),
        ("metric", {"metrics": "accuracy"}),
        ("metric", {"metrics": "accuracy>=much"}),
        ("metric", {"metrics": "accuracy>=inf"}),
        ("metric", {"metrics": "accuracy=>1"}),
        ("after", {"sort": "accuracy", "after": "ver_1"}),
        (None, {"text": "a b c d e f g h i"}),
    ],
)
def test_a_search_that_cannot_be_is_refused(param: str | None, words: dict[str, Any]) -> None:
    with pytest.raises(PilotageError) as refused:
        parse_query(**words)
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)

"""A hundred thousand versions: list, search and get through the API, 95 of 100 within 50 ms."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import many_versions
from control_api import Api, open_api
from postgres_server import PostgresServer

ROUNDS = 8
ASKS = 20
WITHIN_S = 0.05
ASKED: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "get": ("/models/model-1000/versions/1.50000.0", {}),
    "get evidence": ("/models/model-1000/versions/1.50000.0/evidence", {}),
    "list models": ("/models", {}),
    "list models, newest": ("/models", {"sort": "newest"}),
    "list versions": ("/models/model-1000/versions", {}),
    "list versions, deep": ("/models/model-1000/versions", {"after": "1.99000.0"}),
    "newest": ("/versions", {}),
    "newest, deep": ("/versions", {"after": "ver_1000001000"}),
    "a rare stage": ("/versions", {"stage": "production"}),
    "a common stage": ("/versions", {"stage": "development", "source": "custom"}),
    "a common tag": ("/versions", {"tag": "eu"}),
    "a rare tag": ("/versions", {"tag": "eu,rare"}),
    "a common word": ("/versions", {"q": "tuned"}),
    "a beginning of many words": ("/versions", {"q": "batch"}),
    "a rare word": ("/versions", {"q": "batch1999 tuned"}),
    "two words": ("/versions", {"q": "fraud batch"}),
    "a metric": ("/versions", {"metric": "accuracy>=900"}),
    "a metric that few reach": ("/versions", {"metric": "accuracy>=999,latency_p95>0"}),
    "the best": ("/versions", {"sort": "-accuracy"}),
    "the best, deep": ("/versions", {"sort": "-accuracy", "after": "10.0:ver_1000000500"}),
    "the best of a stage": (
        "/versions",
        {"sort": "-accuracy", "stage": "staging", "tag": "team=3"},
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_lists_searches_and_gets_are_quick(
    postgres_or_none: PostgresServer | None, tmp_path: Path
) -> None:
    url = "sqlite" if postgres_or_none is None else postgres_or_none.make_empty()
    async with open_api(tmp_path, url) as api:
        project = await api.show("/projects/default")
        await many_versions.fill(api.db, project["id"])
        slow = {name: await measure(api, *asked) for name, asked in ASKED.items()}
        print({name: f"{seconds * 1000:.1f} ms" for name, seconds in slow.items()})
        assert {name for name, seconds in slow.items() if seconds > WITHIN_S} == set()


async def measure(api: Api, path: str, query: Mapping[str, object]) -> float:
    """Return how long 95 of 100 take: of several rounds the best, for a busy machine only adds."""
    best = float("inf")
    for _ in range(ROUNDS):
        times = []
        for _ in range(ASKS):
            begin = time.perf_counter()
            shown = await api.show(path, **query)
            times.append(time.perf_counter() - begin)
            assert shown.get("items", shown), path
        best = min(best, sorted(times)[ASKS * 95 // 100 - 1])
        if best <= WITHIN_S:
            break
    return best

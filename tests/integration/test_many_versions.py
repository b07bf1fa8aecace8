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


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_lists_searches_and_gets_are_quick(
    postgres_or_none: PostgresServer | None, tmp_path: Path
) -> None:
    url = "sqlite" if postgres_or_none is None else postgres_or_none.make_empty()
    async with open_api(tmp_path, url) as api:
        project = await api.show("/projects/default")
        await many_versions.fill(api.db, project["id"])
        slow = {name: await measure(api, *asked) for name, asked in many_versions.ASKED.items()}
        print({name: f"{seconds * 1000:.1f} ms" for name, seconds in slow.items()})
        assert {name for name, seconds in slow.items() if seconds > WITHIN_S} == set()


async def measure(api: Api, path: str, query: Mapping[str, object]) -> float:
    """Return how long 95 of 100 take: of several rounds the best, for a busy machine only adds.

    With SQLite all of the work is this process's, and its processor time is what is measured.
    """
    clock = time.process_time if api.db.dialect == "sqlite" else time.perf_counter
    best = float("inf")
    for _ in range(ROUNDS):
        times = []
        for _ in range(ASKS):
            begin = clock()
            shown = await api.show(path, **query)
            times.append(clock() - begin)
            assert shown.get("items", shown), path
        best = min(best, sorted(times)[ASKS * 95 // 100 - 1])
        if best <= WITHIN_S:
            break
    return best

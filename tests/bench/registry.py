"""How long lists, searches and gets take with a hundred thousand versions.

python tests/bench/registry.py             on SQLite
python tests/bench/registry.py postgres    on a Postgres server made for it
"""

import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import many_versions
from control_api import open_api
from postgres_server import open_postgres_server

ASKS = 40


async def main(url: str) -> None:
    """Fill a registry and ask it; print the median, the 95th percentile and processor time."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_api(Path(folder), url) as api:
            project = await api.show("/projects/default")
            begin = time.perf_counter()
            await many_versions.fill(api.db, project["id"])
            print(f"filled in {time.perf_counter() - begin:.1f} s")
            print(f"{'':28}{'median':>9}{'p95':>9}{'cpu':>9}  ms")
            for name, (path, query) in many_versions.ASKED.items():
                walls, works = [], []
                for _ in range(ASKS):
                    begin, work = time.perf_counter(), time.process_time()
                    await api.show(path, **query)
                    walls.append(time.perf_counter() - begin)
                    works.append(time.process_time() - work)
                walls.sort()
                shown = (walls[ASKS // 2], walls[ASKS * 95 // 100 - 1], sorted(works)[ASKS // 2])
                print(f"{name:28}" + "".join(f"{seconds * 1000:9.1f}" for seconds in shown))


if __name__ == "__main__":
    with ExitStack() as stack:
        is_postgres = sys.argv[1:] == ["postgres"]
        server = stack.enter_context(open_postgres_server()) if is_postgres else None
        asyncio.run(main(server.make_empty() if server else "sqlite"))

"""Every rule of tests/support/house_rules.py holds on the tree, and each catches its violation."""

from collections.abc import Callable
from pathlib import Path

import pytest

import house_rules

ROOT = Path(__file__).parents[2]
LONG_FUNCTION = "def long():\n" + "    x = 1\n" * house_rules.MAX_FUNCTION_LINES
LONG_FILE = "x = 1\n" * (house_rules.MAX_FILE_LINES + 1)

PLANTED_IN_SOURCE = {
    "global x": "def f():\n    global x\n    x = 1\n",
    "file of 601 lines": LONG_FILE,
    "function long of 81 lines": LONG_FUNCTION,
    "os.environ outside": "import os\nhome = os.environ['HOME']\n",
    "os.getenv outside": "from os import getenv as read\nhome = read('HOME')\n",
    "os.environb outside": "import os as system\nhome = system.environb\n",
    "time.time outside": "import time\nnow = time.time()\n",
    "time.time_ns outside": "from time import time_ns\nnow = time_ns()\n",
    "datetime.datetime.now outside": "from datetime import datetime as dt\nnow = dt.now()\n",
    "datetime.datetime.utcnow outside": "import datetime\nnow = datetime.datetime.utcnow()\n",
    "datetime.date.today outside": "from datetime import date\nnow = date.today()\n",
    "bare asyncio.create_task": "import asyncio\ndef f(): asyncio.create_task(g())\n",
    "bare asyncio.ensure_future": "from asyncio import ensure_future\nensure_future(g())\n",
    "loop.create_task": "def f(loop): loop.create_task(g())\n",
    "get_running_loop().create_task": (
        "import asyncio\ndef f(): asyncio.get_running_loop().create_task(g())\n"
    ),
    "BaseHTTPMiddleware": "from starlette.middleware.base import BaseHTTPMiddleware\n",
    "middleware('http')": "@app.middleware('http')\nasync def f(request, call_next): ...\n",
    "broad except Exception": "try: f()\nexcept Exception: pass\n",
    "broad except BaseException": "try: f()\nexcept BaseException as e: log(e)\n",
    "broad except (ValueError, Exception)": "try: f()\nexcept (ValueError, Exception): pass\n",
    "broad except swallows": "try: f()\nexcept: pass\n",
    "broad except Exception swallows": (
        "try: f()\nexcept Exception as e:\n    if rare(e):\n        raise\n    log(e)\n"
    ),
    "broad contextlib.suppress": "import contextlib\nwith contextlib.suppress(Exception): f()\n",
    "sqlalchemy.select outside kit": "import sqlalchemy as sa\nrows = sa.select(t)\n",
    "a table's own select outside kit": "rows = TENANT.select().where(x)\n",
    "a table's own delete outside kit": "import stores\ngone = TENANT.delete()\n",
    "connection outside kit": "async def f(tx): await tx.conn.execute(x)\n",
    "sqlalchemy.update outside kit": "from sqlalchemy import update as change\n",
    "sqlalchemy.sql.delete outside kit": "from sqlalchemy.sql import delete\n",
    "sqlalchemy.dialects.sqlite.insert outside kit": (
        "from sqlalchemy.dialects.sqlite import insert\n"
    ),
}
PLANTED_IN_TESTS = {
    "global x": "def f():\n    global x\n    x = 1\n",
    "file of 601 lines": LONG_FILE,
    "function long of 81 lines": LONG_FUNCTION,
    "time.sleep": "import time\ntime.sleep(0.1)\n",
    "asyncio.sleep": "from asyncio import sleep\nasync def test(): await sleep(1)\n",
    "unittest.mock": "from unittest import mock\n",
    "unittest.mock.MagicMock": "from unittest.mock import MagicMock\n",
}
ALLOWED_IN_SOURCE = {
    "pilotage/kit/config.py": "import os\nhome = os.environ\n",
    "pilotage/kit/clock.py": "import time\nnow = time.time_ns()\n",
    "pilotage/kit/db.py": "import sqlalchemy as sa\nrows = sa.select(t)\n",
    "pilotage/gateway/call.py": "try: f()\nexcept Exception: pass\n",
    "pilotage/registry/task_group.py": (
        "import asyncio\n"
        "async def f():\n"
        "    async with asyncio.TaskGroup() as group:\n"
        "        group.create_task(g())\n"
    ),
    "pilotage/registry/annotated.py": (
        "from asyncio import TaskGroup\n"
        "class Owner:\n"
        "    def __init__(self, tasks: TaskGroup | None) -> None:\n"
        "        self._group = TaskGroup()\n"
        "        self._group.create_task(g())\n"
        "        tasks.create_task(g())\n"
    ),
    "pilotage/registry/monotonic.py": "import time\nstarted = time.monotonic()\n",
    "pilotage/registry/reraise.py": "try: f()\nexcept BaseException:\n    undo()\n    raise\n",
    "pilotage/registry/store.py": "import sqlalchemy as sa\nT = sa.Table('t', sa.MetaData())\n",
}


def test_the_product_keeps_the_rules() -> None:
    assert violations(ROOT / "src", house_rules.check_source) == []


def test_the_tests_keep_the_rules() -> None:
    assert violations(ROOT / "tests", house_rules.check_test) == []


@pytest.mark.parametrize("rule", PLANTED_IN_SOURCE)
def test_a_violation_in_the_product_is_found(rule: str) -> None:
    findings = house_rules.check_source("pilotage/registry/planted.py", PLANTED_IN_SOURCE[rule])

    assert [finding for finding in findings if rule in finding.rule]


@pytest.mark.parametrize("rule", PLANTED_IN_TESTS)
def test_a_violation_in_a_test_is_found(rule: str) -> None:
    findings = house_rules.check_test("unit/registry/test_planted.py", PLANTED_IN_TESTS[rule])

    assert [finding for finding in findings if rule in finding.rule]


def test_a_package_of_tests_is_found() -> None:
    findings = house_rules.check_test("unit/__init__.py", "")

    assert [finding.rule for finding in findings] == ["tests are not a package: remove __init__.py"]


@pytest.mark.parametrize("path", ALLOWED_IN_SOURCE)
def test_what_has_its_place_is_allowed_there(path: str) -> None:
    assert house_rules.check_source(path, ALLOWED_IN_SOURCE[path]) == []


def test_waiting_belongs_to_test_support_and_yielding_to_everybody() -> None:
    wait = "import asyncio\nasync def poll(): await asyncio.sleep(0.01)\n"
    give_way = "import asyncio\nasync def test(): await asyncio.sleep(0)\n"

    assert house_rules.check_test("support/polling.py", wait) == []
    assert house_rules.check_test("unit/test_it.py", give_way) == []


@pytest.mark.parametrize("edge", house_rules.BROAD_EXCEPT_EDGES)
def test_an_edge_is_one_file(edge: str) -> None:
    path = house_rules.BROAD_EXCEPT_EDGES[edge]

    assert path.startswith("pilotage/")
    assert path.endswith(".py")
    assert "*" not in path


def violations(folder: Path, check: Callable[[str, str], list[house_rules.Finding]]) -> list[str]:
    files = sorted(folder.rglob("*.py"))
    assert files
    return [
        str(finding)
        for path in files
        for finding in check(path.relative_to(folder).as_posix(), path.read_text())
    ]

"""Single calls asked for in SQL: what is found, and what nobody can reach."""

import asyncio
import resource
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from api_cases import refusal
from calls import NOON_US, make_call, open_writer, put_calls
from control_api import Api, Json, open_api, open_there
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock, SystemClock, rfc3339
from pilotage.kit.config import Settings
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.operations import Progress
from pilotage.monitoring.calls import query_child, store
from pilotage.monitoring.calls.columns import COLUMNS, make_row
from pilotage.monitoring.calls.parquet import SegmentWriter
from pilotage.monitoring.calls.queries import AT_ONCE, Asked, CallQueries
from pilotage.monitoring.calls.query_child import answer
from pilotage.monitoring.calls.types import Answer, QueryLimits, Question, Scope, Segment
from pilotage.runtime.backup.restore import restore_backup
from pilotage.server.app import PREFIX
from spool_counter import hold_nothing
from system import poll

LIMITS = QueryLimits(timeout_s=20.0, memory_mb=128)
FOR_EVER = "SELECT count(*) FROM range(1000000000000)"
KEEP_US = 10**15


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one segment: 300 calls of three tenants."""
    made = tmp_path_factory.mktemp("calls")
    rows = [
        make_row(n, "s", "e", make_call(tenant_id=f"ten_{n % 3}", feature=f"secret-{n}"), "")
        for n in range(300)
    ]
    with SegmentWriter() as writer:
        writer.write(made / "prj/a.parquet", rows)
    (made / "elsewhere.csv").write_text("a\nb\n")
    return made


@pytest.fixture
def queries(folder: Path) -> CallQueries:
    return open_queries(folder, LIMITS)


def open_queries(folder: Path, limits: QueryLimits) -> CallQueries:
    return CallQueries(folder, SystemClock(), limits, KEEP_US, is_held=hold_nothing)


def scope(*names: str) -> Scope:
    """Return a scope of segments of that names; without any, of the one that there is."""
    return Scope(segments=[segment(name) for name in names or ("prj/a.parquet",)])


def segment(name: str) -> Segment:
    return Segment(
        name=name,
        project_id="prj",
        level=0,
        rows=300,
        size_bytes=1,
        first_at_us=NOON_US,
        last_at_us=NOON_US,
        created_at_us=NOON_US,
    )


def find(folder: Path, sql: str, tenant_id: str = "") -> Answer:
    """Answer in this process what a process of its own would be asked."""
    return answer(
        Question(
            sql=sql,
            files=[str(folder / "prj/a.parquet")],
            tenant_id=tenant_id,
            since_us=0,
            until_us=None,
            most_rows=LIMITS.most_rows,
            most_bytes=LIMITS.most_bytes,
            memory_mb=LIMITS.memory_mb,
            threads=1,
        )
    )


def test_decimals_are_plain_digits(folder: Path) -> None:
    found = find(folder, "SELECT sum(cost_usd) * 0, 0.5::DECIMAL(20, 9) FROM calls")

    (row,) = (msgspec.json.decode(row) for row in found.rows)
    assert row == ["0.000000000", "0.500000000"]


async def ask(queries: CallQueries, sql: str, tenant_id: str = "") -> Answer:
    """Answer in a process of its own."""
    return (await queries.run(Asked(sql=sql, tenant_id=tenant_id), scope())).answer


def rows_of(found: Answer) -> list[str]:
    return [bytes(row).decode() for row in found.rows]


async def test_the_columns_are_what_they_are_said_to_be(queries: CallQueries, folder: Path) -> None:
    said = [(column.name, column.type.replace(" ", "")) for column in COLUMNS]
    names = ", ".join(column.name for column in COLUMNS)  # each is a word that needs no quotes
    for sql, tenant_id in ((f"SELECT {names} FROM calls", ""), ("FROM calls", "ten_1")):
        found = find(folder, sql, tenant_id)
        assert [(column.name, column.type) for column in found.columns] == said
    empty = await queries.run(Asked(sql="FROM calls"), Scope(segments=[]))
    assert [(column.name, column.type) for column in empty.answer.columns] == said


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT tenant_id, count(*) FROM calls GROUP BY ALL", ['["ten_1",100]']),
        ("SELECT count(*) FROM calls WHERE tenant_id <> 'ten_1'", ["[0]"]),
        ("SELECT count(c) FROM calls c", ["[100]"]),
        ("SELECT c.c.seq FROM (SELECT c FROM calls c) c ORDER BY 1 LIMIT 1", ["[1]"]),
        ("SELECT max(cost_usd) FROM calls", ['["0.000001000"]']),
        ("SELECT try_cast(split_part(feature, '-', 2) AS INT) % 3 FROM calls LIMIT 1", ["[1]"]),
        ("SELECT count(*) FROM calls a JOIN calls b USING (seq)", ["[100]"]),
        ("SELECT count(*) FROM calls a NATURAL JOIN calls b", ["[100]"]),
        ("WITH x AS (FROM calls SELECT seq s) SELECT min(s) FROM x", ["[1]"]),
    ],
)
def test_a_tenant_sees_its_own_calls(folder: Path, sql: str, rows: list[str]) -> None:
    assert rows_of(find(folder, sql, "ten_1")) == rows


@pytest.mark.parametrize(
    "leak",
    [
        "SELECT CAST(feature AS INT) FROM calls WHERE tenant_id = 'ten_0'",
        "SELECT CASE WHEN tenant_id = 'ten_0' THEN error(feature) END FROM calls",
        "FROM duckdb_views() WHERE view_name = 'calls'",
    ],
)
def test_a_tenant_learns_nothing_of_others_by_errors(folder: Path, leak: str) -> None:
    assert "secret-0" not in str(rows_of(find(folder, leak, "ten_1")))
    with pytest.raises(ValueError, match="secret-0"):  # where nothing is hidden
        find(folder, "SELECT CAST(feature AS INT) FROM calls WHERE tenant_id = 'ten_0'")


@pytest.mark.parametrize("tenant_id", ["", "ten_1"])
@pytest.mark.parametrize(
    "sql",
    [
        "FROM '{folder}/elsewhere.csv'",
        "FROM read_text('/etc/passwd')",
        "FROM glob('/*')",
        "FROM read_parquet('https://example.org/a.parquet')",
        "COPY calls TO '{folder}/leak.csv'",
        "ATTACH '{folder}/leak.db' AS leak",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "CREATE TABLE t AS FROM calls",
        "SELECT 1; SELECT 2",
        "DROP VIEW calls",
        "PRAGMA database_list",
        "",
    ],
)
def test_nothing_else_can_be_reached(folder: Path, sql: str, tenant_id: str) -> None:
    with pytest.raises(ValueError, match=r"disabled by configuration|one SELECT|HTTP"):
        find(folder, sql.format(folder=folder), tenant_id)
    assert {path.name for path in folder.iterdir()} == {"prj", "elsewhere.csv"}


def test_a_tenant_cannot_read_the_files_that_hold_its_calls(folder: Path) -> None:
    with pytest.raises(ValueError, match="disabled by configuration"):
        find(folder, f"SELECT seq FROM '{folder}/prj/a.parquet'", "ten_1")


async def test_an_error_says_what_was_meant(queries: CallQueries, folder: Path) -> None:
    with pytest.raises(PilotageError) as refused:
        await ask(queries, "SELECT modell FROM calls")
    assert refused.value.code == "invalid_query"
    assert '"model"' in refused.value.detail
    with pytest.raises(ValueError, match="CAST"):
        find(folder, "SELECT now()")


async def test_answers_have_an_end(folder: Path) -> None:
    queries = open_queries(folder, QueryLimits(most_rows=5, most_bytes=1000))
    five = await ask(queries, "SELECT seq FROM calls ORDER BY seq DESC")
    assert rows_of(five) == ["[299]", "[298]", "[297]", "[296]", "[295]"]
    assert five.is_cut
    wide = await ask(queries, "SELECT repeat('x', 400) FROM range(10)")
    assert (len(wide.rows), wide.is_cut) == (2, True)
    exact = await ask(queries, "SELECT seq FROM calls LIMIT 5")
    assert (len(exact.rows), exact.is_cut) == (5, False)
    with pytest.raises(PilotageError, match="from 1 to 5"):
        await queries.run(Asked(sql="FROM calls", most_rows=6), scope())


@pytest.mark.parametrize(
    ("sql", "timeout_s", "why"),
    [
        (FOR_EVER, 0.5, "longer than 0.5 s"),
        ("SELECT list(range) FROM range(1000000000)", None, "more than 128 MiB"),
    ],
)
async def test_a_query_that_takes_too_much_is_stopped(
    queries: CallQueries, sql: str, timeout_s: float | None, why: str
) -> None:
    with pytest.raises(PilotageError, match=why) as refused:
        await queries.run(Asked(sql=sql, timeout_s=timeout_s), scope())
    assert refused.value.code == "query_too_large"


async def test_a_query_ends_when_nobody_waits_and_only_a_few_run(queries: CallQueries) -> None:
    gone = asyncio.Event()

    async def wait_gone() -> None:
        await gone.wait()

    running = [
        asyncio.ensure_future(queries.run(Asked(sql=FOR_EVER), scope(), wait_gone))
        for _ in range(AT_ONCE)
    ]
    await asyncio.sleep(0)
    with pytest.raises(PilotageError, match="run already"):
        await ask(queries, "FROM calls")
    gone.set()
    for ended in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(ended, PilotageError)
        assert ended.code == "cancelled"
    assert len((await ask(queries, "FROM calls")).rows) == 300


async def test_a_time_leaves_only_the_calls_in_it(
    database: Database, queries: CallQueries, folder: Path
) -> None:
    async with database.write(SYSTEM) as tx:
        await store.insert_segments(tx, [segment("prj/a.parquet")])
    for since_us, until_us, rows in (
        (NOON_US, NOON_US + 1, [300]),
        (NOON_US + 1, None, []),
        (0, NOON_US, []),
    ):
        async with database.read(SYSTEM) as tx:
            there = await queries.find_scope(tx, since_us, until_us)
        assert [item.rows for item in there.segments] == rows
        for tenant_id in ("", "ten_1"):
            asked = Asked(sql="SELECT count(*) FROM calls", tenant_id=tenant_id)
            found = await queries.run(asked, replace(there, segments=scope().segments))
            seen = sum(rows) // (3 if tenant_id else 1)
            assert rows_of(found.answer) == [f"[{seen}]"]


async def test_calls_older_than_their_retention_are_gone_but_for_a_hold(
    database: Database, folder: Path
) -> None:
    is_held = False

    async def hold(_: Tx) -> bool:
        return is_held

    clock = ManualClock(NOON_US + 10)
    young = CallQueries(folder, clock, LIMITS, 10, is_held=hold)
    late = replace(segment("prj/a.parquet"), last_at_us=NOON_US + 5)
    async with database.write(SYSTEM) as tx:
        await store.insert_segments(tx, [late])

    async def count() -> list[str]:
        async with database.read(SYSTEM) as tx:
            there = await young.find_scope(tx)
        asked = Asked(sql="SELECT count(*) FROM calls")
        return rows_of((await young.run(asked, there)).answer)

    assert await count() == ["[300]"]
    clock.advance(1e-6)
    assert await count() == ["[0]"]
    is_held = True
    assert await count() == ["[300]"]


@pytest.mark.parametrize("tenant_id", ["", "ten_1"])
async def test_files_that_cannot_be_read_are_left_out_and_told_of(
    queries: CallQueries, folder: Path, tenant_id: str
) -> None:
    whole = (folder / "prj/a.parquet").read_bytes()
    middle, end = len(whole) // 2, b"\x10\x00\x00\x00PAR1"
    damaged = {
        "half": whole[:middle],
        "empty": b"",
        "zeros": whole[:4] + bytes(middle) + whole[middle + 4 :],
        "end": whole[: -len(end) - 16] + bytes(16) + end,
    }
    for name, content in damaged.items():
        (folder / "prj" / name).write_bytes(content)
    there = scope("prj/a.parquet", "prj/gone", *(f"prj/{name}" for name in damaged))
    found = await queries.run(Asked(sql="FROM calls", tenant_id=tenant_id), there)
    assert len(found.answer.rows) == (100 if tenant_id else 300)
    assert (found.segments, found.answer.missing) == (6, 5)
    with pytest.raises(PilotageError, match="Referenced column") as refused:
        await queries.run(Asked(sql="SELECT nothing FROM calls", tenant_id=tenant_id), there)
    assert str(folder) not in refused.value.detail


@pytest.mark.parametrize("tenant_id", ["", "ten_1"])
@pytest.mark.parametrize(
    "what",
    [
        "error('x')",
        "regexp_matches(feature, '(')",
        "strptime(feature, '%Y')",
        "(SELECT cost_nano FROM calls)",
        "max(seq + 1) * 9223372036854775807",
        "feature::INTEGER",
    ],
)
def test_a_mistake_in_a_query_makes_nobody_read_all_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str, tenant_id: str
) -> None:
    looks: list[object] = []
    monkeypatch.setattr(query_child, "find_damaged", looks.append)
    with pytest.raises(ValueError, match=r"Invalid Input|Out of Range|Conversion"):
        find(folder, f"SELECT {what} FROM calls", tenant_id)
    assert not looks


def test_a_query_learns_nothing_of_whose_machine_it_is_on(folder: Path) -> None:
    settings = rows_of(find(folder, "SELECT value FROM duckdb_settings()"))
    assert not [value for value in settings if str(Path.home()) in value]


async def test_a_query_that_cannot_start_says_so(queries: CallQueries, folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (sum(1 for _ in Path("/proc/self/fd").iterdir()), hard)
    )
    try:
        with pytest.raises(PilotageError, match="No process can be started") as refused:
            await ask(queries, "FROM calls")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused.value.code == "unavailable"
    assert len((await ask(queries, "FROM calls")).rows) == 300


# through the API


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "installation") as opened:
        yield opened


async def test_a_call_is_found_in_its_project_and_by_its_tenant(api: Api) -> None:
    project = (await api.show("/projects/default"))["id"]
    acme = (await api.make("/tenants", {"name": "acme"}))["id"]
    await api.make("/projects", {"name": "other"})
    now_us = api.clock.now_us()
    calls = [
        make_call(project_id=project, tenant_id=tenant, at_us=now_us, cost_nano=cost)
        for tenant, cost in ((acme, 1), (acme, 2), ("ten_else", 4))
    ]
    with open_writer(api.folder.spool) as spool:
        put_calls(spool, calls)
    sums = "SELECT count(*), CAST(sum(cost_nano) AS BIGINT) FROM calls"
    found = await poll(
        lambda: api.make("/queries", {"sql": sums}), lambda seen: seen["rows"][0][0] == 3
    )
    assert found["rows"] == [[3, 7]]
    assert (found["segments"], found["missing"], found["is_cut"]) == (1, 0, False)
    mine = await api.make("/queries", {"sql": sums, "tenant": "acme"})
    assert mine["rows"] == [[2, 3]]
    late = {"sql": sums, "since": rfc3339(now_us + 1)}
    assert (await api.make("/queries", late))["rows"] == [[0, None]]
    early = {"sql": sums, "until": rfc3339(now_us + 1)}
    assert (await api.make("/queries", early))["rows"] == [[3, 7]]
    other = await api.make("/queries", {"sql": sums}, params={"project": "other"})
    assert other["rows"] == [[0, None]]
    assert refusal(await post(api, {"sql": "FROM calls", "tenant": "nobody"})) == (404, "not_found")
    assert refusal(await post(api, {"sql": "FROM"})) == (400, "invalid_query")
    for wrong in ({"limit": 0}, {"since": "noon"}, {"until": "noon"}):
        assert refusal(await post(api, {"sql": "FROM calls", **wrong})) == (400, "invalid_request")


async def post(api: Api, body: Json) -> httpx.Response:
    return await api.http.post("/queries", json=body)


async def test_a_backup_brings_calls_back(api: Api, tmp_path: Path) -> None:
    project = (await api.show("/projects/default"))["id"]
    with open_writer(api.folder.spool) as spool:
        put_calls(spool, [make_call(project_id=project, at_us=api.clock.now_us())])
    count = {"sql": "SELECT count(*) FROM calls"}
    await poll(lambda: api.make("/queries", count), lambda seen: seen["rows"] == [[1]])
    started = await api.make("/backups", {"passphrase": "a long enough passphrase"})
    ended = await poll(
        lambda: api.show(f"/operations/{started['id']}"), lambda seen: seen["state"] != "running"
    )
    settings = msgspec.convert({"data_dir": str(tmp_path / "new")}, type=Settings)
    archive = api.folder.backups / ended["result"]["file"]
    await restore_backup(archive, settings, SystemClock(), "a long enough passphrase", Progress())
    async with open_there(settings) as restored:
        found = await restored.make("/queries", count)
        assert (found["rows"], found["missing"]) == ([[1]], 0)


async def test_hanging_up_ends_a_query(api: Api) -> None:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": msgspec.json.encode({"sql": FOR_EVER})},
        {"type": "http.disconnect"},
    ]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = {
        "authorization": f"Bearer {api.credentials.admin}",
        "content-type": "application/json",
    }
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": f"{PREFIX}/queries",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    async with asyncio.timeout(25):  # the query has 30 s
        await api.app(scope, receive, send)
    assert sent[0]["status"] == 503
    assert b'"cancelled"' in sent[1]["body"]

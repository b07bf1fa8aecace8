"""What every store of counters does: the same as the rules, in memory and in a real Valkey."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotage.gateway.counters.memory import MemoryStore
from pilotage.gateway.counters.types import (
    Answer,
    Ask,
    Draw,
    Row,
    SeedRow,
    Stage,
    Status,
)
from pilotage.gateway.counters.valkey import ValkeyStore
from pilotage.gateway.ports import CounterStore
from pilotage.kit.clock import SystemClock
from pilotage.kit.kv_valkey import ValkeyLink, parse_valkey_url
from valkey_server import ValkeyServer

BIG = 9_000_000 * 10**9  # the largest cap there is, in nano-USD


@pytest.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CounterStore]:
    if request.param == "memory":
        yield MemoryStore(SystemClock())
        return
    server: ValkeyServer = request.getfixturevalue("valkey")
    server.run("FLUSHALL")
    opened = open_valkey(server)
    yield opened
    opened.close()


def open_valkey(server: ValkeyServer) -> ValkeyStore:
    return ValkeyStore(ValkeyLink(parse_valkey_url(server.url), SystemClock(), 5.0))


class Speaker:
    """One owner, who says what it is told to."""

    def __init__(self, store: CounterStore, name: str = "a", life: int = 1) -> None:
        self.store = store
        self.name = name
        self.life = life
        self.seqs = count(1)
        self.acked = 0
        self.generation = ""

    def ask(self, stage: Stage = Stage.RUN, **more: object) -> Ask:
        values: dict[str, object] = {
            "owner": self.name,
            "life": self.life,
            "seq": next(self.seqs),
            "acked": self.acked,
            "generation": self.generation,
            "fresh_generation": f"gen_{self.name}_{self.life}",
            "stage": stage,
        }
        return Ask(**values | more)  # type: ignore[arg-type]

    async def say(self, stage: Stage = Stage.RUN, **more: object) -> Answer:
        ask = self.ask(stage, **more)
        answer = await self.store.exchange(ask)
        if answer.status is not Status.STALE:
            self.acked = ask.seq
        return answer

    async def register(self, *rows: Row, **more: object) -> Answer:
        self.generation = (await self.say()).generation
        if rows:
            await self.say(Stage.ROWS, rows=rows)
        return await self.say(Stage.DONE, **{"is_first": True} | more)


def want(key: str = "c", cap: int = 1000, need: int = 0, **more: int) -> Row:
    values = {"used": 0, "held": 0, "spare": 0, "least": need, "need": need, "want": need}
    return Row(key=key, cap=cap, **values | more)


async def test_nothing_is_granted_before_registration(store: CounterStore) -> None:
    a = Speaker(store)
    answer = await a.say(rows=(want(need=5),))
    assert (answer.status, answer.rows) == (Status.REGISTER, ())
    assert (await a.register()).status is Status.OPEN
    assert (await a.say(rows=(want(need=5),))).rows[0].granted == 5


async def test_grants_never_exceed_the_cap(store: CounterStore) -> None:
    a, b = Speaker(store, "a"), Speaker(store, "b")
    await a.register()
    await b.register()
    first = await a.say(rows=(want(need=600),))
    assert first.rows[0][:4] == (600, 0, 600, 600)
    second = await b.say(rows=(want(need=600),))
    assert second.rows[0] == (0, 0, 600, 600, True)
    third = await b.say(rows=(want(need=400),))
    assert third.rows[0].granted == 400
    done = await a.say(rows=(want(used=600),))
    assert done.rows[0][:4] == (0, 600, 400, 400)


async def test_a_stock_is_an_eighth_of_what_is_free_at_most(store: CounterStore) -> None:
    a = Speaker(store)
    await a.register()
    told = (await a.say(rows=(want(least=10, need=10, want=900),))).rows[0]
    assert told[:4] == (125, 0, 125, 125)


async def test_while_somebody_lacks_nobody_gets_a_stock(store: CounterStore) -> None:
    a, b = Speaker(store, "a"), Speaker(store, "b")
    await a.register()
    await b.register()
    assert (await a.say(rows=(want(need=2000),))).rows[0].is_low
    told = (await b.say(rows=(want(least=3, need=3, want=500),))).rows[0]
    assert (told.granted, told.is_low) == (3, True)


async def test_a_part_is_granted_where_it_helps_one(store: CounterStore) -> None:
    a = Speaker(store)
    await a.register()
    told = (await a.say(rows=(want(cap=100, least=30, need=150, want=150),))).rows[0]
    assert (told.granted, told.is_low) == (100, True)


async def test_an_old_word_changes_nothing(store: CounterStore) -> None:
    a = Speaker(store)
    await a.register()
    late = a.ask(rows=(want(used=1, held=900),))
    await a.say(rows=(want(used=5),))
    assert (await store.exchange(late)).status is Status.STALE
    assert (await a.say(rows=(want(used=5),))).rows[0][:4] == (0, 5, 0, 0)


async def test_a_lost_answer_costs_nothing(store: CounterStore) -> None:
    a, b = Speaker(store, "a"), Speaker(store, "b")
    await a.register()
    await b.register()
    await store.exchange(a.ask(rows=(want(need=800),)))  # granted, and never heard
    assert (await b.say(rows=(want(need=500),))).rows[0].granted == 0
    await a.say(rows=(want(),))
    assert (await b.say(rows=(want(need=500),))).rows[0].granted == 500


async def test_a_new_process_frees_what_the_old_one_held(store: CounterStore) -> None:
    a, b = Speaker(store, "a"), Speaker(store, "b")
    await a.register()
    await b.register()
    await a.say(rows=(want(need=600), want("other", need=7)))
    again = Speaker(store, "a", life=2)
    again.generation = a.generation
    assert (await a.say()).status is Status.OPEN
    assert (await again.say()).status is Status.REGISTER
    assert (await a.say()).status is Status.STALE
    await again.say(Stage.ROWS, rows=(want(used=450),))
    told = (await b.say(rows=(want(), want("other")))).rows
    assert [row[:3] for row in told] == [(0, 450, 0), (0, 0, 7)]
    await again.say(Stage.DONE, is_first=True)
    told = (await b.say(rows=(want(), want("other")))).rows
    assert [row[:3] for row in told] == [(0, 450, 0), (0, 0, 0)]


async def test_a_new_generation_waits_for_all_that_were_known(store: CounterStore) -> None:
    a, b = Speaker(store, "a"), Speaker(store, "b")
    answer = await a.register(want(used=300, held=50), is_first=False, expected=("a", "b"))
    assert (answer.status, answer.missing) == (Status.CLOSED, ("b",))
    closed = await a.say(rows=(want(used=300, held=50, need=5),))
    assert (closed.status, closed.rows[0].granted) == (Status.CLOSED, 0)
    assert (await b.register(want(used=600))).status is Status.OPEN
    told = (await a.say(rows=(want(used=300, held=50, need=51),))).rows[0]
    assert told[:3] == (0, 900, 50)


async def test_owners_that_are_gone_count_as_the_ledger_says(store: CounterStore) -> None:
    a = Speaker(store, "a")
    answer = await a.register(
        want(used=1), expected=("a",), gone=("z",), seeds=(SeedRow("c", "z", 700),)
    )
    assert answer.status is Status.OPEN
    assert (await a.say(rows=(want(used=1),))).rows[0].used == 701
    z = Speaker(store, "z")  # it was not gone: its own word counts, and never less
    await z.register(want(used=710))
    assert (await a.say(rows=(want(used=1),))).rows[0].used == 711


async def test_a_store_that_forgot_is_noticed(store: CounterStore) -> None:
    a = Speaker(store)
    await a.register()
    await a.say()
    a.acked += 5  # as if it had answered later words than it remembers
    for _ in range(5):
        next(a.seqs)
    ask = a.ask(acked=a.acked)
    before = a.generation
    a.acked = ask.seq
    answer = await store.exchange(ask._replace(fresh_generation="gen_new"))
    assert (answer.status, answer.generation) == (Status.REGISTER, "gen_new")
    assert before != "gen_new"


async def test_all_owners_are_told(store: CounterStore) -> None:
    a, b = Speaker(store, "a"), Speaker(store, "b")
    await a.register()
    await b.register()
    assert (await a.say(peers=1)).peers == ("a", "b")
    assert (await a.say(peers=2)).peers == ()


async def test_the_largest_cap_is_exact_to_the_nano(store: CounterStore) -> None:
    a = Speaker(store)
    await a.register(want(cap=BIG, used=BIG - 8))
    told = (await a.say(rows=(want(cap=BIG, used=BIG - 8, need=7),))).rows[0]
    assert told[:3] == (7, BIG - 8, 7)
    told = (await a.say(rows=(want(cap=BIG, used=BIG - 1, need=2),))).rows[0]
    assert told[:3] == (0, BIG - 1, 0)


async def test_a_bucket_is_full_at_first_and_takes_back(store: CounterStore) -> None:
    a = Speaker(store)
    await a.register()
    draw = Draw("r", amount=60, back=0, least=50, need=50, want=50)
    assert (await a.say(draws=(draw,))).draws[0][:2] == (50, 10)
    refused = (await a.say(draws=(draw,))).draws[0]
    assert refused[:2] == (0, 10)
    assert 38_000 <= refused.retry_ms <= 40_000
    back = (await a.say(draws=(Draw("r", 60, back=45, least=50, need=50, want=50),))).draws[0]
    assert back.granted == 50
    debt = (await a.say(draws=(Draw("r", 60, back=-30),))).draws[0]
    assert -26 <= debt.level <= -24


async def test_rows_that_lapse_do_so_after_their_time(store: CounterStore) -> None:
    a, b = Speaker(store, "a"), Speaker(store, "b")
    await a.register()
    await b.register()
    assert (await a.say(rows=(want(cap=1, need=1, lapse_ms=60_000),))).rows[0].granted == 1
    assert (await b.say(rows=(want(cap=1, need=1, lapse_ms=60_000),))).rows[0].granted == 0
    for _ in range(10_000):  # to whom a row of the last millisecond is old, it soon counts no more
        told = (await b.say(rows=(want(cap=1, need=1, lapse_ms=1),))).rows[0]
        if told.granted:
            break
    assert told[:3] == (1, 0, 1)


amounts = st.integers(0, 300)
row_parts = st.tuples(
    st.sampled_from(["x", "y"]), amounts, amounts, amounts, st.integers(0, 60), st.integers(0, 200)
)
steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["run"] * 6 + ["restart", "late", "lost", "draw"]),
        st.lists(row_parts, max_size=2, unique_by=lambda part: part[0]),
    ),
    max_size=25,
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps)
async def test_valkey_decides_as_the_rules_do(
    valkey: ValkeyServer, script: list[tuple[str, str, list[tuple[str, int, int, int, int, int]]]]
) -> None:
    valkey.run("FLUSHALL")
    twins: list[CounterStore] = [MemoryStore(SystemClock()), open_valkey(valkey)]
    heard: list[list[Answer]] = []
    for twin in twins:
        heard.append([answer async for answer in play(twin, script)])
        twin.close()
    assert heard[0] == heard[1]


async def play(
    store: CounterStore, script: list[tuple[str, str, list[tuple[str, int, int, int, int, int]]]]
) -> AsyncIterator[Answer]:
    speakers = {name: Speaker(store, name) for name in "abc"}
    lives = count(2)
    for name, what, parts in script:
        speaker = speakers[name]
        rows = tuple(make_row(*part) for part in parts)
        if what == "restart":
            speakers[name] = speaker = Speaker(store, name, next(lives))
        if not speaker.generation:
            yield await speaker.register(expected=("a", "b"))
        if what == "late":
            late = speaker.ask(rows=rows)
            yield await speaker.say()
            yield await store.exchange(late)
        elif what == "lost":
            yield await store.exchange(speaker.ask(rows=rows))
        elif what == "draw":
            draws = tuple(Draw(row.key, 1, 0, row.least % 2, 1, 1) for row in rows)
            yield hide_times(await speaker.say(draws=draws))
        else:
            yield await speaker.say(rows=rows, peers=2)


def make_row(key: str, used: int, held: int, spare: int, need: int, stock: int) -> Row:
    return Row(key, 500, used, held, min(spare, held), need // 2, need, need + stock)


def hide_times(answer: Answer) -> Answer:
    draws = tuple(draw._replace(retry_ms=0) for draw in answer.draws)
    return answer._replace(draws=draws)


def test_addresses() -> None:
    address = parse_valkey_url("valkeys://limits.bank:7000/3")
    assert address[:4] == ("limits.bank", 7000, 3, True)
    assert parse_valkey_url("valkey://10.0.0.1")[:4] == ("10.0.0.1", 6379, 0, False)
    for wrong in ("redis://h", "valkey://", "valkey://u:p@h/0", "valkey://h/x", "valkey://h/0?a=b"):
        with pytest.raises(ValueError, match=r"must be|holds more|names no"):
            parse_valkey_url(wrong)

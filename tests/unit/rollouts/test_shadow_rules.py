"""Comparisons of calls and copies: counted in any order, and read."""

import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.frames import Compared
from pilotage.core.gates.pairs import count_pairs
from pilotage.rollouts.shadows.rules import DAY_US, count, is_sound, merge, read
from pilotage.rollouts.shadows.types import Held, PairKey

KEY = PairKey("prj", "chat", "rol_1/0", "dep_a", "dep_b")
FRAMES = st.lists(
    st.builds(
        Compared,
        call_id=st.just("call"),
        at_us=st.integers(0, 3 * DAY_US),
        copy_id=st.just("copy"),
        project_id=st.just("prj"),
        tenant_id=st.just("ten"),
        alias=st.just("chat"),
        baseline=st.sampled_from(["dep_a", "dep_c"]),
        candidate=st.just("dep_b"),
        rollout=st.sampled_from(["", "rol_1/0"]),
        is_exact=st.booleans(),
        is_schema_kept=st.integers(-1, 1),
        similarity=st.integers(-1, 1_000_000),
        baseline_letters=st.integers(-1, 99),
        candidate_letters=st.integers(-1, 99),
        baseline_mark=st.sampled_from([0, 1000]),
        candidate_mark=st.sampled_from([0, 1000]),
        baseline_nano=st.integers(0, 9),
        candidate_nano=st.integers(0, 9),
        baseline_us=st.integers(-1, 99),
        candidate_us=st.integers(-1, 99),
    ),
    max_size=12,
)


def compared(**more: Any) -> Compared:  # noqa: ANN401
    frame = Compared(
        call_id="call",
        at_us=5,
        copy_id="copy",
        project_id="prj",
        tenant_id="ten",
        alias="chat",
        baseline="dep_a",
        candidate="dep_b",
        rollout="rol_1/0",
    )
    return msgspec.structs.replace(frame, **more)


@settings(max_examples=40)
@given(FRAMES, st.integers(0, 12), st.randoms())
def test_counts_are_the_same_in_any_order_and_portions(
    frames: list[Compared], cut: int, shuffled: random.Random
) -> None:
    whole = count(frames)
    turned = list(frames)
    shuffled.shuffle(turned)
    parts = [count(turned[:cut]), count(turned[cut:])]
    for place, held in whole.items():
        found = [part[place] for part in parts if place in part]
        total = merge(found[0], found[1]) if len(found) > 1 else found[0]
        assert total == held
        plain = msgspec.msgpack.encode(held)
        assert msgspec.msgpack.decode(plain, type=Held) == held
    assert sum(held.pairs for held in whole.values()) == len(frames)
    telling = [frame for frame in frames if frame.baseline_mark or frame.candidate_mark]
    assert sum(sum(held.marks.values()) for held in whole.values()) == len(telling)


@pytest.mark.parametrize(
    "wrong",
    [
        {"baseline_mark": -1},
        {"candidate_mark": 1001},
        {"similarity": 1_000_001},
        {"is_schema_kept": 2},
        {"candidate_us": 2**51},
        {"baseline_nano": -2},
    ],
)
def test_numbers_that_no_comparison_has_are_left_out(wrong: dict[str, int]) -> None:
    assert is_sound(compared())
    assert count([compared(**wrong)]) == {}


def test_what_is_read_of_counts() -> None:
    frames = [
        compared(
            is_exact=True,
            similarity=1_000_000,
            is_schema_kept=1,
            baseline_letters=10,
            candidate_letters=10,
            baseline_mark=1000,
            candidate_mark=1000,
            baseline_us=2_000,
            candidate_us=4_000,
            baseline_nano=5,
            candidate_nano=3,
        ),
        compared(
            similarity=500_000,
            is_schema_kept=0,
            baseline_letters=10,
            candidate_letters=30,
            baseline_mark=1000,
        ),
        compared(),
    ]
    [((key, day), held)] = count(frames).items()
    assert (key, day) == (KEY, 0)
    found = read(key, held)
    assert (found.pairs, found.exact, found.similarity) == (3, 0.5, 0.75)
    assert found.schema_kept == 0.5
    assert found.mark == pytest.approx(-1 / 2)  # of the two that one answered well
    assert (found.baseline_letters, found.candidate_letters) == (10.0, 20.0)
    assert found.baseline_ms == pytest.approx(2.0, rel=0.01)
    assert found.candidate_ms == pytest.approx(4.0, rel=0.01)
    assert (found.baseline_nano, found.candidate_nano) == (5, 3)
    assert held.faster == {-1000: 1}
    assert held.cheaper == {1000: 1, 0: 2}


def test_that_both_fail_is_no_sign_of_being_as_good() -> None:
    [held] = count([compared() for _ in range(1_000)]).values()
    assert (held.pairs, read(KEY, held).not_worse) == (1_000, 0.0)


def test_nothing_is_known_of_no_pairs() -> None:
    found = read(KEY, Held())
    assert (found.exact, found.similarity, found.schema_kept, found.mark) == (None,) * 4
    assert (found.baseline_ms, found.worse) == (None, 0.0)


@pytest.mark.slow
def test_a_drop_of_three_points_is_found_among_copies_at_the_stated_number() -> None:
    stated, found = count_pairs(0.03, 0.1), 0
    worse, better, equal = (
        compared(baseline_mark=baseline, candidate_mark=candidate)
        for baseline, candidate in ((1000, 0), (0, 1000), (1000, 1000))
    )
    for seed in range(40):
        coin, frames = random.Random(seed), []
        for _ in range(stated):
            point = coin.random()
            frames.append(worse if point < 0.065 else better if point < 0.1 else equal)
        [held] = count(frames).values()
        found += read(KEY, held).worse >= math.log(20)
    assert found / 40 >= 0.9

"""The fastest arm gets the calls; slow and unknown ones are tried by one call at a time."""

from hypothesis import given
from hypothesis import strategies as st

from made_calls import PROJECT, make_alias, make_arm
from pilotage.core.snapshot import TenantEntry
from pilotage.gateway.routing.residency import Allowed, allow_arms
from pilotage.gateway.routing.speeds import HALF_LIFE_S, MOST_ARMS, Speeds

TENANT = TenantEntry(id="ten_1", name="acme", project_id=PROJECT)


def make_arms(count: int = 2) -> Allowed:
    alias = make_alias(*(make_arm(f"dep_{n}") for n in range(count)))
    return allow_arms(alias.entry, TENANT)


def pick(speeds: Speeds, arms: Allowed, now_s: float, *, explores: bool = False) -> str:
    return speeds.pick(arms, now_s, is_stream=True, explores=explores)


def test_unknown_arms_are_tried_once_each_and_then_known_ones_preferred() -> None:
    speeds, arms = Speeds(), make_arms(3)
    assert [pick(speeds, arms, float(n)) for n in range(3)] == ["dep_0", "dep_1", "dep_2"]
    speeds.note("dep_1", 0.5, 3.0, is_stream=True)
    assert {pick(speeds, arms, 4.0) for _ in range(5)} == {"dep_1"}


def test_the_fastest_is_picked_until_it_becomes_slow() -> None:
    speeds, arms = Speeds(), make_arms()
    speeds.note("dep_0", 0.3, 0.0, is_stream=True)
    speeds.note("dep_1", 0.2, 0.0, is_stream=True)
    assert pick(speeds, arms, 0.0) == "dep_1"
    noted = 0
    while pick(speeds, arms, 0.0) == "dep_1":
        speeds.note("dep_1", 1.0, 0.0, is_stream=True)
        noted += 1
    assert noted == 1  # a fifth of a second's difference is seen at once


def test_an_arm_left_alone_is_tried_again_by_one_call() -> None:
    speeds, arms = Speeds(), make_arms()
    speeds.note("dep_0", 0.1, 0.0, is_stream=True)
    speeds.note("dep_1", 0.7, 0.0, is_stream=True)
    chosen = []
    for second in range(int(4 * HALF_LIFE_S)):
        chosen.append(pick(speeds, arms, float(second)))
        speeds.note(chosen[-1], 0.1 if chosen[-1] == "dep_0" else 0.7, second, is_stream=True)
    assert chosen.count("dep_1") == 1
    assert chosen.index("dep_1") > 2 * HALF_LIFE_S


def test_exploring_takes_the_arm_left_alone_longest() -> None:
    speeds, arms = Speeds(), make_arms(3)
    for n in range(3):
        speeds.note(f"dep_{n}", 0.1 * (n + 1), float(n), is_stream=True)
    assert pick(speeds, arms, 5.0, explores=True) == "dep_0"
    assert pick(speeds, arms, 6.0, explores=True) == "dep_1"
    assert pick(speeds, arms, 7.0, explores=True) == "dep_2"


def test_plain_and_streamed_answers_are_told_apart() -> None:
    speeds, arms = Speeds(), make_arms()
    for n, took_s in enumerate((0.1, 9.0)):
        speeds.note(f"dep_{n}", took_s, 0.0, is_stream=True)
        speeds.note(f"dep_{n}", 9.1 - took_s, 0.0, is_stream=False)
    assert speeds.pick(arms, 0.0, is_stream=True, explores=False) == "dep_0"
    assert speeds.pick(arms, 0.0, is_stream=False, explores=False) == "dep_1"


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=50))
def test_an_average_lies_between_what_was_seen(seen: list[float]) -> None:
    speeds = Speeds()
    for took_s in seen:
        speeds.note("dep_0", took_s, 0.0, is_stream=True)
    mean_s = speeds._speeds["dep_0", True].mean_s
    assert min(seen) * 0.999 <= mean_s <= max(seen) * 1.001


def test_memory_is_bounded_and_the_oldest_is_forgotten() -> None:
    speeds = Speeds()
    for n in range(MOST_ARMS + 10):
        speeds.note(f"dep_{n}", 1.0, float(n), is_stream=True)
    assert len(speeds._speeds) == MOST_ARMS
    assert ("dep_9", True) not in speeds._speeds
    assert ("dep_10", True) in speeds._speeds

"""What stopped replicas saved: the time between their runs, and nothing else."""

from pilotage.finops.costs.rules import HOUR_US
from pilotage.finops.costs.types import ReplicaTime
from pilotage.finops.insights.rules import find_idle_savings


def price_hour(replica: ReplicaTime, at_us: int) -> int:
    """Return a dollar an hour, two from the hundredth hour on; only chat has a price."""
    if replica.alias != "chat":
        return 0
    return 10**9 if at_us < 100 * HOUR_US else 2 * 10**9


def run(
    start_hour: float, end_hour: float, replica_id: str = "dep_a.0", alias: str = "chat"
) -> ReplicaTime:
    return ReplicaTime(
        id=f"{replica_id}/{start_hour}",
        replica_id=replica_id,
        project_id="prj",
        release="dep_a",
        alias=alias,
        version_id="",
        model="tiny",
        start_us=round(start_hour * HOUR_US),
        seen_us=round(end_hour * HOUR_US),
        booked_us=0,
    )


def test_the_time_between_two_runs_is_saved() -> None:
    times = [run(1, 3), run(8, 10), run(2, 4, "dep_a.1"), run(0, 9, "dep_b.0", "free")]

    (found,) = find_idle_savings(times, price_hour, 0, 100 * HOUR_US)

    assert (found.way, found.subject) == ("scale_to_zero", "chat")
    assert (found.with_nano, found.without_nano) == (6 * 10**9, 11 * 10**9)
    assert found.saved_nano == 5 * 10**9


def test_only_what_lies_in_the_span_counts() -> None:
    (found,) = find_idle_savings([run(1, 3), run(8, 10)], price_hour, 2 * HOUR_US, 9 * HOUR_US)

    assert (found.with_nano, found.without_nano) == (2 * 10**9, 7 * 10**9)


def test_a_stop_has_the_price_of_its_hours() -> None:
    times = [run(97, 98), run(103, 104)]

    (found,) = find_idle_savings(times, price_hour, 0, 200 * HOUR_US)

    assert found.with_nano == 10**9 + 2 * 10**9
    assert found.saved_nano == 2 * 10**9 + 3 * 2 * 10**9


def test_what_crashed_and_came_back_saved_nothing() -> None:
    times = [run(1, 2), run(2.01, 3), run(4, 5)]

    (found,) = find_idle_savings(times, price_hour, 0, 9 * HOUR_US)

    assert found.saved_nano == 10**9

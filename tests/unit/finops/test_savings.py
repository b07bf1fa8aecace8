"""What stopped replicas saved: the time between their runs, and nothing else."""

from pilotage.finops.costs.insight_rules import find_idle_savings
from pilotage.finops.costs.rules import HOUR_US
from pilotage.finops.costs.types import ReplicaTime

PRICE = {"chat": 1_000_000_000}


def run(
    start_hour: int, end_hour: int, replica_id: str = "dep_a.0", alias: str = "chat"
) -> ReplicaTime:
    return ReplicaTime(
        id=f"{replica_id}/{start_hour}",
        replica_id=replica_id,
        project_id="prj",
        release="dep_a",
        alias=alias,
        version_id="",
        model="tiny",
        start_us=start_hour * HOUR_US,
        seen_us=end_hour * HOUR_US,
        booked_us=0,
    )


def test_the_time_between_two_runs_is_saved() -> None:
    times = [run(1, 3), run(8, 10), run(2, 4, "dep_a.1"), run(0, 9, "dep_b.0", "free")]

    (found,) = find_idle_savings(times, PRICE, 0, 100 * HOUR_US)

    assert (found.way, found.subject) == ("scale_to_zero", "chat")
    assert (found.with_nano, found.without_nano) == (6 * 10**9, 11 * 10**9)
    assert found.saved_nano == 5 * 10**9


def test_only_what_lies_in_the_span_counts() -> None:
    (found,) = find_idle_savings([run(1, 3), run(8, 10)], PRICE, 2 * HOUR_US, 9 * HOUR_US)

    assert (found.with_nano, found.without_nano) == (2 * 10**9, 7 * 10**9)

"""What the Python API says of endpoints, and who gets which share."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.sdk.endpoint_config import (
    AutoScalingConfig,
    EndpointConfig,
    TrafficSplit,
    TrafficSplitStrategy,
)
from pilotage.sdk.shares import find_deployed, find_move, make_room


def deployed(*percents: float) -> list[dict[str, Any]]:
    return [
        {"id": f"dep_{n}", "model": f"model-{n}@1.0.0", "percent": percent}
        for n, percent in enumerate(percents)
    ]


def test_defaults_are_those_of_the_document() -> None:
    scaling = AutoScalingConfig()
    assert (scaling.min_replica_count, scaling.max_replica_count) == (1, 10)
    assert (scaling.target_accelerator_duty_cycle, scaling.scale_down_delay_minutes) == (60, 5)
    assert scaling.enable_scale_to_zero is False
    config = EndpointConfig(name="chat")
    assert (config.machine_type, config.accelerator_type) == ("n1-standard-4", None)
    assert config.auto_scaling == scaling
    assert config.traffic_split is None
    assert config.enable_request_logging is config.enable_container_logging is True
    assert config.validate()
    assert TrafficSplit(splits={"a": 100}).strategy is TrafficSplitStrategy.SINGLE


def test_both_spellings_are_one_thing() -> None:
    assert EndpointConfig(endpoint_name="chat") == EndpointConfig(name="chat")
    assert EndpointConfig(endpoint_name="chat").name == "chat"
    one, other = TrafficSplit(splits={"a": 100}), TrafficSplit(deployed_model_ids={"a": 100})
    assert one == other
    assert one.deployed_model_ids == other.splits == {"a": 100}
    with pytest.raises(ValueError, match="one thing"):
        EndpointConfig(name="a", endpoint_name="b")
    with pytest.raises(ValueError, match="one thing"):
        TrafficSplit(splits={"a": 100}, deployed_model_ids={"b": 100})
    with pytest.raises(ValueError, match="needs a name"):
        EndpointConfig()


@pytest.mark.parametrize(
    "wrong",
    [
        AutoScalingConfig(min_replica_count=0),
        AutoScalingConfig(min_replica_count=3, max_replica_count=2),
        AutoScalingConfig(min_replica_count=0, max_replica_count=0, enable_scale_to_zero=True),
        AutoScalingConfig(target_accelerator_duty_cycle=0),
        AutoScalingConfig(scale_down_delay_minutes=-1),
        TrafficSplit(),
        TrafficSplit(splits={"a": 50, "b": 49}),
        TrafficSplit(splits={"a": 150, "b": -50}),
        EndpointConfig(name="chat", accelerator_count=1),
        EndpointConfig(name="chat", auto_scaling=AutoScalingConfig(max_replica_count=0)),
        EndpointConfig(name="chat", traffic_split=TrafficSplit()),
    ],
)
def test_what_cannot_be_is_a_value_error(
    wrong: AutoScalingConfig | TrafficSplit | EndpointConfig,
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wrong.validate()


def test_a_model_is_named_by_id_version_or_name() -> None:
    there = [*deployed(50, 50), {"id": "dep_9", "model": "model-1@2.0.0", "percent": 0}]
    for name in ("dep_0", "model-0@1.0.0", "model-0"):
        assert find_deployed(there, name) == "dep_0"
    with pytest.raises(PilotageError) as absent:
        find_deployed(there, "model-7")
    assert (absent.value.code, "model-0@1.0.0" in absent.value.hint) == ("not_found", True)
    with pytest.raises(PilotageError) as several:
        find_deployed(there, "model-1")
    assert several.value.code == "conflict"


@given(
    st.lists(st.integers(1, 10_000), min_size=1, max_size=5),
    st.integers(0, 10_000),
)
def test_a_newcomer_gets_its_share_and_the_sum_is_all(points: list[int], wanted: int) -> None:
    total = sum(points)
    there = deployed(*(100 * each / total for each in points), 0)
    newcomer = there[-1]["id"]
    split = {name: float(share) for name, share in make_room(there, newcomer, wanted / 100).items()}
    assert split.get(newcomer, 0) == wanted / 100
    assert sum(split.values()) == pytest.approx(100)
    for item in there[:-1]:
        fair = item["percent"] * (100 - wanted / 100) / 100
        assert split.get(item["id"], 0) == pytest.approx(fair, abs=0.01 * (len(there) + 1))


def test_a_share_that_leaves_traffic_to_nobody_is_refused() -> None:
    for percent in (50, 120, -1):
        with pytest.raises(PilotageError) as refused:
            make_room(deployed(0), "dep_0", percent)
        assert refused.value.param == "traffic_percentage"
    assert make_room(deployed(0), "dep_0", 100) == {"dep_0": "100"}


def test_a_rollout_is_about_one_candidate_and_who_has_everything() -> None:
    assert find_move(deployed(100, 0), {"dep_0": 90, "dep_1": 10}) == ("dep_0", "dep_1", 10)
    with pytest.raises(PilotageError) as shared:
        find_move(deployed(50, 50), {"dep_0": 90, "dep_1": 10})
    assert shared.value.code == "conflict"
    for splits in ({"dep_0": 100.0}, {"dep_1": 50.0, "dep_2": 50.0}):
        with pytest.raises(PilotageError) as refused:
            find_move(deployed(100, 0, 0), splits)
        assert refused.value.code == "invalid_request"

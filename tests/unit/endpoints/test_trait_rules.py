"""What may be said of an endpoint, and selecting by labels."""

import pytest

from pilotage.core.errors import PilotageError
from pilotage.endpoints.trait_rules import (
    MOST_LABELS,
    check_same_place,
    check_traits,
    is_selected,
    read_selector,
)
from pilotage.endpoints.types import (
    PLAIN_TRAITS,
    Deployment,
    Endpoint,
    Machine,
    Provider,
    Traits,
    Upstream,
    locate,
)


def make_endpoint(traits: Traits = PLAIN_TRAITS) -> Endpoint:
    return Endpoint(
        id="end_1",
        rev=1,
        project_id="prj_1",
        name="chat",
        description="",
        max_output_tokens=0,
        salt="salt",
        split={},
        created_at_us=1,
        deleted_at_us=None,
        traits=traits,
    )


def make_deployment(upstream_id: str = "") -> Deployment:
    return Deployment(
        id="dep_1",
        rev=1,
        project_id="prj_1",
        endpoint_id="end_1",
        version_id="",
        model="m@1.0.0",
        artifact_sha256="",
        engine="",
        context_tokens=0,
        created_at_us=1,
        deleted_at_us=None,
        upstream_id=upstream_id,
    )


@pytest.mark.parametrize(
    ("traits", "param"),
    [
        (Traits(labels={"Team": "a"}), "labels.Team"),
        (Traits(labels={"team": "a" * 64}), "labels.team"),
        (Traits(labels={"team": "a\n"}), "labels.team"),
        (Traits(labels={f"l{n}": "" for n in range(MOST_LABELS + 1)}), "labels"),
        (Traits(display_name="a" * 129), "display_name"),
        (Traits(region="Here"), "region"),
        (Traits(region="local"), "region"),
        (Traits(machine=Machine(accelerators=-1)), "machine.accelerators"),
    ],
)
def test_what_cannot_be_is_refused(traits: Traits, param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_traits(traits)
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


def test_what_can_be_stays_as_it_is() -> None:
    traits = Traits(labels={"team": "help", "cost/centre": "é 1"}, region="eu-west4")
    assert check_traits(traits) is traits
    assert check_traits(PLAIN_TRAITS) is PLAIN_TRAITS


def test_an_endpoint_stays_where_it_is() -> None:
    check_same_place(Traits(region="eu"), Traits(region="eu", labels={"a": "b"}))
    for other in (Traits(region="us"), Traits(region="eu", is_dedicated=True)):
        with pytest.raises(PilotageError) as refused:
            check_same_place(Traits(region="eu"), other)
        assert refused.value.code == "conflict"


def test_a_selector_finds_who_has_all_of_it() -> None:
    endpoint = make_endpoint(Traits(labels={"team": "help", "tier": "a=b"}))
    assert is_selected(endpoint, read_selector([]))
    assert is_selected(endpoint, read_selector(["team=help", "tier=a=b"]))
    assert not is_selected(endpoint, read_selector(["team=help", "tier=a"]))
    for word in ("team", "=help"):
        with pytest.raises(PilotageError):
            read_selector([word])


def test_replicas_are_where_their_endpoint_is_and_upstreams_where_they_say() -> None:
    here, there = make_endpoint(), make_endpoint(Traits(region="eu-west4"))
    upstream = Upstream(
        id="upm_1",
        rev=1,
        project_id="prj_1",
        name="openai",
        created_at_us=1,
        provider=Provider.OPENAI,
        base_url="https://example.org",
        location="us",
    )
    assert locate(make_deployment(), {}, here) == "local"
    assert locate(make_deployment(), {}, there) == "eu-west4"
    assert locate(make_deployment("upm_1"), {"upm_1": upstream}, there) == "us"
    assert locate(make_deployment("upm_2"), {}, there) == ""

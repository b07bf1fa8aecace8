"""Limits as gateways are told of them, and what calls drew from their counters."""

from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Flag, Outcome
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.snapshot import LimitEntry
from pilotage.core.usage import Usage
from pilotage.finops.rules import (
    LimitOwner,
    check_limit,
    find_forget_at_us,
    is_counter_of,
    is_of_user,
    list_draws,
    list_subjects,
    make_charge,
    make_limit_entry,
)
from pilotage.finops.types import Action, Limit, LimitSpec, Measure, Per, StoreLoss
from pilotage.gateway.counters.windows import find_window

ENDED = Ended(
    call_id="c",
    at_us=1_773_144_000_000_000,
    project_id="prj",
    tenant_id="ten",
    key_id="key",
    alias="chat",
    outcome=Outcome.OK,
    status=200,
    usage=Usage(1, 2, 3, 4, 5),
    cost_nano=6,
    is_estimated=False,
    duration_us=1,
    ttft_us=1,
    chunks=1,
    attempts=1,
    user="alice",
    feature="search",
    upstream_id="ups",
)
SPEC = LimitSpec(measure=Measure.USD, amount="500", per=Per.MONTH)


def change(spec: LimitSpec, **more: object) -> LimitSpec:
    values = {name: getattr(spec, name) for name in LimitSpec.__dataclass_fields__}
    return LimitSpec(**values | more)


def test_a_limit_is_checked_as_a_whole() -> None:
    downgrade = change(SPEC, action=Action.DOWNGRADE, downgrade_to="small", endpoint="large")

    assert check_limit(SPEC) == 500 * 10**9
    assert check_limit(downgrade) == 500 * 10**9
    assert check_limit(change(SPEC, user="alice@example.com|é")) == 500 * 10**9


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"action": Action.DOWNGRADE}, "downgrade_to"),
        ({"downgrade_to": "small"}, "downgrade_to"),
        ({"action": Action.WARN, "downgrade_to": "small"}, "downgrade_to"),
        (
            {"action": Action.DOWNGRADE, "downgrade_to": "small", "endpoint": "small"},
            "downgrade_to",
        ),
        (
            {"measure": Measure.REQUESTS, "action": Action.DOWNGRADE, "downgrade_to": "small"},
            "action",
        ),
        ({"user": "a\nb"}, "user"),
        ({"user": "a" * 257}, "user"),
        ({"per": Per.MINUTE}, "per"),
        ({"amount": "free"}, "amount"),
    ],
)
def test_what_a_limit_cannot_be_is_named(more: dict[str, object], param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_limit(change(SPEC, **more))

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


def test_gateways_are_told_of_cost_in_nano_usd() -> None:
    limit = Limit(
        id="lim_1",
        rev=3,
        project_id="prj",
        name="monthly",
        measure=Measure.USD,
        amount=5,
        per=Per.MONTH,
        tenant_id="*",
        key_id="key",
        user="alice",
        endpoint="large",
        action=Action.DOWNGRADE,
        downgrade_to="small",
        on_store_loss=StoreLoss.OPEN,
        created_at_us=1,
    )

    assert make_limit_entry(limit) == LimitEntry(
        id="lim_1",
        project_id="prj",
        measure="cost",
        amount=5,
        per="month",
        tenant_id="*",
        key_id="key",
        user="alice",
        alias="large",
        action="downgrade",
        downgrade_to="small",
        on_store_loss="open",
    )


# counters


def test_a_call_draws_from_each_counter_in_its_measure() -> None:
    cost, tokens = "lim_1|cost|2026-11", "lim_2|tokens|total|user=a|b"
    requests = "lim_3|requests|2026-11-21|key=key"
    ended = msgspec.structs.replace(ENDED, counters=[cost, tokens, requests])

    assert list_draws(ended) == {cost: 6, tokens: 15, requests: 1}


def test_what_is_no_counter_of_use_is_passed_over() -> None:
    ended = msgspec.structs.replace(
        ENDED,
        cost_nano=0,
        counters=["lim|cost|total", "lim|concurrency|total", "lim", "", "lim|tokens|total|user=\0"],
    )

    assert list_draws(ended) == {}


@pytest.mark.parametrize(
    ("counter", "day"),
    [
        ("lim|cost|2026-11|tenant=t", "2026-12-03"),
        ("lim|cost|2026-12", "2027-01-03"),
        ("lim|tokens|2026-11-30|user=a|b", "2026-12-03"),
        ("lim|tokens|2024-02-28", "2024-03-02"),
    ],
)
def test_a_counter_is_kept_until_its_window_is_over_everywhere(counter: str, day: str) -> None:
    midnight = datetime.fromisoformat(f"{day}T00:00:00+00:00")

    assert find_forget_at_us(counter) == int(midnight.timestamp()) * 1_000_000


def test_a_counter_without_an_end_is_kept() -> None:
    assert find_forget_at_us("lim|cost|total") == 0
    assert find_forget_at_us("lim|cost|whenever it is") == 0


@pytest.mark.parametrize(
    ("counter", "limit", "is_theirs"),
    [
        ("lim|cost|total|tenant=ten_1|user=unseen", None, True),
        ("lim|cost|total|tenant=ten_2|user=bob", ("*", ""), False),
        ("lim|cost|total|tenant=ten_2|key=key_1|user=bob", None, False),
        ("lim|cost|total|user=unseen", ("ten_1", ""), True),
        ("lim|cost|total|user=bob", ("ten_2", ""), False),
        ("lim|cost|total|key=key_1|user=unseen", ("", "*"), True),
        ("lim|cost|total|key=key_2|user=bob", ("", "*"), False),
        ("lim|cost|total|user=unseen", ("", "key_1"), True),
        ("lim|cost|total|user=bob", ("", "key_2"), False),
        ("lim|cost|total|alias=chat|user=bob", ("", ""), True),
        ("lim|cost|total|user=b|user=ob", ("", ""), True),
        ("lim|cost|total|user=carol|tenant=ten_1", ("", ""), False),
        ("lim|cost|total|user=bob", None, False),  # a limit of another project
    ],
)
def test_whose_user_a_counter_is_of(
    counter: str, limit: tuple[str, str] | None, is_theirs: bool
) -> None:
    owner = LimitOwner(*limit) if limit else None

    found = is_counter_of(
        counter, owner, tenant_id="ten_1", key_ids={"key_1"}, users={"bob", "b|user=ob"}
    )

    assert found is is_theirs
    assert is_of_user(counter)


def test_a_counter_of_many_users_is_no_users() -> None:
    assert not is_of_user("lim|cost|total|tenant=ten_1")


@given(st.integers(0, 4_000_000_000), st.sampled_from(["day", "month"]))
def test_gateways_forget_it_at_the_same_time(now_s: int, per: str) -> None:
    window = find_window(per, "UTC", now_s * 1_000_000)

    assert find_forget_at_us(f"lim|cost|{window.name}") == window.forget_at_us


# charges


def test_a_charge_says_for_whom_and_what() -> None:
    flags = [Flag.RETRIED.value, Flag.FELL_BACK.value]
    charge = make_charge(msgspec.structs.replace(ENDED, flags=flags), "gateway-0")

    assert (charge.user, charge.feature, charge.upstream_id) == ("alice", "search", "ups")
    assert charge.flags == "retried,fell_back"


def test_a_copy_is_nobodys_bill() -> None:
    copy = make_charge(msgspec.structs.replace(ENDED, flags=[Flag.SHADOW.value]), "gateway-0")

    assert (copy.tenant_id, copy.key_id) == (SHADOW_TENANT, "")
    assert (copy.user, copy.feature) == ("", "")
    assert (copy.project_id, copy.alias, copy.cost_nano) == ("prj", "chat", 6)


# prices


@pytest.mark.parametrize(
    ("asked", "subjects"),
    [
        (("chat", "1.0.0", ""), ["chat@1.0.0", "chat"]),
        (("gpt-4o", "", "openai"), ["gpt-4o", "openai/gpt-4o"]),
        (("chat", "1.0.0", "openai"), ["chat@1.0.0", "chat", "openai/chat"]),
    ],
)
def test_the_most_specific_price_is_looked_for_first(
    asked: tuple[str, str, str], subjects: list[str]
) -> None:
    assert list_subjects(*asked) == subjects

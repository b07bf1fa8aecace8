"""The coin: what it is tossed for, and that anybody can toss it again."""

from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.dealing import deal, name_unit
from pilotage.core.snapshot import FULL_WEIGHT, AliasEntry, ArmEntry, choose_arm
from pilotage.core.usage import Rates

RATES = Rates(price_id="prc_1", input=1, output=2, cache_read=1, cache_write=1, reasoning=2)


def make_alias(split: dict[str, int]) -> AliasEntry:
    arms = [
        ArmEntry(id=arm, weight=split[arm], version_id="", model=arm, context_tokens=9, rates=RATES)
        for arm in sorted(split)
    ]
    return AliasEntry(
        project_id="prj_1",
        name="chat",
        created_at_us=0,
        salt="rol_1/0",
        max_output_tokens=9,
        arms=arms,
    )


@given(st.text(max_size=20), st.integers(0, FULL_WEIGHT))
def test_what_a_snapshot_deals_can_be_dealt_again(unit: str, weight: int) -> None:
    split = {"dep_b": weight, "dep_a": FULL_WEIGHT - weight}
    chosen = choose_arm(make_alias(split), unit)
    assert chosen is not None
    assert deal("rol_1/0", unit, split) == chosen.id


def test_nobody_is_dealt_where_nothing_has_weight() -> None:
    assert deal("rol_1/0", "call_1", {}) == ""
    assert deal("rol_1/0", "call_1", {"dep_a": 0}) == ""


def test_weights_are_shares_of_the_units() -> None:
    dealt = [deal("rol_1/0", f"call_{n}", {"a": 9_500, "b": 500}) for n in range(20_000)]
    assert abs(dealt.count("b") - 1_000) < 5 * (20_000 * 0.05 * 0.95) ** 0.5


def test_a_unit_is_a_hash_that_tenants_do_not_share() -> None:
    unit = name_unit("session", "ten_1", session="chat-7", user="ann")
    assert unit == "6d32a7a04063b8de"
    assert unit != name_unit("session", "ten_2", session="chat-7", user="ann")
    assert name_unit("user", "ten_1", user="chat-7") == unit
    assert name_unit("tenant", "ten_1", session="chat-7") == name_unit("tenant", "ten_1")
    assert name_unit("tenant", "ten_1") != name_unit("tenant", "ten_2")


def test_who_names_none_is_its_own_unit() -> None:
    assert name_unit("session", "ten_1", user="ann") == ""
    assert name_unit("user", "ten_1", session="chat-7") == ""
    assert name_unit("call", "ten_1", session="chat-7", user="ann") == ""
    assert name_unit("", "ten_1", session="chat-7", user="ann") == ""

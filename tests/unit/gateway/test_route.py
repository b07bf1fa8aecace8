"""Arms get their share, the same unit the same arm, and a moved weight moves only who must."""

from hypothesis import given
from hypothesis import strategies as st

from gateway_harness import make_rates
from pilotage.core.snapshot import FULL_WEIGHT, AliasEntry, ArmEntry, choose_arm

UNITS = [f"call_{n}" for n in range(4000)]
SIGMAS = 6


def make_alias(weights: list[int], salt: str = "s") -> AliasEntry:
    arms = [
        ArmEntry(
            id=f"dep_{n}",
            weight=weight,
            version_id="v",
            model="m",
            context_tokens=1,
            rates=make_rates(),
        )
        for n, weight in enumerate(weights)
    ]
    return AliasEntry(
        project_id="p", name="a", created_at_us=0, salt=salt, max_output_tokens=1, arms=arms
    )


def assign(weights: list[int], salt: str = "s") -> list[str]:
    alias = make_alias(weights, salt)
    return [arm.id if (arm := choose_arm(alias, unit)) else "" for unit in UNITS]


@st.composite
def splits(draw: st.DrawFn) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, FULL_WEIGHT), max_size=4)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, FULL_WEIGHT], strict=True)]


@given(splits(), st.text(max_size=5))
def test_every_arm_gets_its_share(weights: list[int], salt: str) -> None:
    assigned = assign(weights, salt)
    for n, weight in enumerate(weights):
        share = weight / FULL_WEIGHT
        spread = (len(UNITS) * share * (1 - share)) ** 0.5
        assert abs(assigned.count(f"dep_{n}") - len(UNITS) * share) <= SIGMAS * spread
    assert assigned == assign(weights, salt)


@given(st.integers(0, FULL_WEIGHT), st.integers(0, FULL_WEIGHT))
def test_a_moved_weight_moves_only_who_must(one: int, other: int) -> None:
    low, high = sorted((one, other))
    before, after = assign([low, FULL_WEIGHT - low]), assign([high, FULL_WEIGHT - high])
    moves = set(zip(before, after, strict=True))
    assert moves <= {("dep_0", "dep_0"), ("dep_1", "dep_1"), ("dep_1", "dep_0")}


def test_another_salt_is_another_split() -> None:
    assert assign([5000, 5000], "a") != assign([5000, 5000], "b")


def test_without_weight_there_is_no_arm() -> None:
    assert set(assign([0, 0])) == {""}

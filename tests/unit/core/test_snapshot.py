"""The Snapshot's parts: key tables against a dict, arms by weight, manifests."""

import hashlib
import struct
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.snapshot import (
    FULL_WEIGHT,
    SNAPSHOT_VERSION,
    AliasEntry,
    ArmEntry,
    Directory,
    KeyRecord,
    KeyTable,
    Manifest,
    SectionRef,
    TenantEntry,
    choose_arm,
    decode_directory,
    decode_manifest,
    encode_directory,
    encode_manifest,
    pack_digests,
    pack_keys,
    unpack_digests,
)
from pilotage.core.usage import Rates

# digests that are near each other, so that a search that is off by one shows
DIGESTS = st.integers(0, 40).map(lambda n: bytes(31) + bytes([n]))
RECORDS = st.dictionaries(
    DIGESTS,
    st.tuples(
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=16, max_size=16),
        st.integers(0, 2**62),
    ),
)


@given(RECORDS, DIGESTS)
def test_a_key_table_finds_what_a_dict_finds(
    model: dict[bytes, tuple[bytes, bytes, int]], wanted: bytes
) -> None:
    packed = pack_keys([KeyRecord(digest, *rest) for digest, rest in model.items()])
    for table in (KeyTable(packed), KeyTable(memoryview(packed))):
        assert len(table) == len(model)
        assert [table[index] for index in range(len(table))] == sorted(model)
        for digest in (*model, wanted):
            expected = KeyRecord(digest, *model[digest]) if digest in model else None
            assert table.find(digest) == expected


@given(RECORDS)
def test_the_bytes_of_a_key_table_do_not_depend_on_the_order(
    model: dict[bytes, tuple[bytes, bytes, int]],
) -> None:
    records = [KeyRecord(digest, *rest) for digest, rest in model.items()]

    assert pack_keys(records) == pack_keys(records[::-1])
    assert len(pack_keys(records)) == 80 * len(records)


def test_a_cut_key_table_is_refused() -> None:
    packed = pack_keys([KeyRecord(bytes(32), bytes(16), bytes(16), 0)])

    with pytest.raises(ValueError, match="79 bytes is cut"):
        KeyTable(packed[:-1])


@given(RECORDS)
def test_a_key_table_of_version_1_is_read(model: dict[bytes, tuple[bytes, bytes, int]]) -> None:
    layout = struct.Struct("<32s16s16sq")
    packed = b"".join(layout.pack(digest, *model[digest]) for digest in sorted(model))
    table = KeyTable(packed, version=1)
    assert len(table) == len(model)
    for digest, rest in model.items():
        assert table.find(digest) == KeyRecord(digest, *rest)


@given(st.frozensets(DIGESTS))
def test_revoked_digests_are_read_back(digests: frozenset[bytes]) -> None:
    packed = pack_digests(list(digests))

    assert unpack_digests(packed) == digests
    assert packed == pack_digests(sorted(digests, reverse=True))


def test_a_cut_list_of_digests_is_refused() -> None:
    with pytest.raises(ValueError, match="33 bytes is cut"):
        unpack_digests(bytes(33))


def make_alias(weights: list[int], salt: str = "salt") -> AliasEntry:
    rates = Rates(price_id="p", input=1, output=1, cache_read=1, cache_write=1, reasoning=1)
    arms = [
        ArmEntry(
            id=f"dep_{index}",
            weight=weight,
            version_id=f"ver_{index}",
            model=f"m@{index}.0.0",
            context_tokens=2048,
            rates=rates,
        )
        for index, weight in enumerate(weights)
    ]
    return AliasEntry(
        project_id="prj", name="chat", created_at_us=1, salt=salt, max_output_tokens=9, arms=arms
    )


SHARES = st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any)


def to_weights(shares: list[int]) -> list[int]:
    weights = [share * FULL_WEIGHT // sum(shares) for share in shares]
    weights[next(i for i, share in enumerate(shares) if share)] += FULL_WEIGHT - sum(weights)
    return weights


@given(SHARES, st.text(max_size=10))
def test_a_unit_has_one_arm_and_never_one_without_weight(shares: list[int], unit: str) -> None:
    alias = make_alias(to_weights(shares))
    arm = choose_arm(alias, unit)

    assert arm is not None
    assert arm.weight > 0
    assert choose_arm(alias, unit) is arm


@given(SHARES, st.text(max_size=10))
def test_an_arm_covers_its_part_of_the_hash(shares: list[int], unit: str) -> None:
    weights = to_weights(shares)
    digest = hashlib.sha256(f"salt|{unit}".encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64 * FULL_WEIGHT
    ends = [sum(weights[: index + 1]) for index in range(len(weights))]

    if min(abs(fraction - end) for end in ends) > 1e-6:  # doubles cannot tell what is nearer
        expected = next(index for index, end in enumerate(ends) if fraction < end)
        arm = choose_arm(make_alias(weights), unit)
        assert arm is not None
        assert arm.id == f"dep_{expected}"


def test_arms_get_their_shares_and_another_salt_deals_anew() -> None:
    units = [str(number) for number in range(4_000)]
    alias, resalted = make_alias([1_000, 3_000, 6_000]), make_alias([1_000, 3_000, 6_000], "other")
    chosen = [choose_arm(alias, unit) for unit in units]
    dealt = Counter(arm.id for arm in chosen if arm)

    assert dealt["dep_0"] == pytest.approx(400, abs=80)
    assert dealt["dep_1"] == pytest.approx(1_200, abs=120)
    moved = sum(
        1 for unit, arm in zip(units, chosen, strict=True) if choose_arm(resalted, unit) != arm
    )
    assert moved > 1_000


@settings(max_examples=20)
@given(st.integers(0, FULL_WEIGHT - 1))
def test_more_weight_takes_no_unit_away(weight: int) -> None:
    before = make_alias([weight, FULL_WEIGHT - weight])
    after = make_alias([weight + 1, FULL_WEIGHT - weight - 1])
    for number in range(50):
        first = choose_arm(before, str(number))
        if first is not None and first.id == "dep_0":
            second = choose_arm(after, str(number))
            assert second is not None
            assert second.id == "dep_0"


def test_without_weight_there_is_no_arm() -> None:
    assert choose_arm(make_alias([0, 0]), "unit") is None
    assert choose_arm(make_alias([]), "unit") is None


def make_manifest(oldest_gateway: int = SNAPSHOT_VERSION) -> Manifest:
    return Manifest(
        n=7,
        parent="ab" * 32,
        created_at_us=1,
        expires_at_us=2,
        oldest_gateway=oldest_gateway,
        covers=5,
        sections={"keys": SectionRef("cd" * 32, 72), "directory": SectionRef("ef" * 32, 9)},
    )


def test_a_manifest_is_one_text_and_is_read_back() -> None:
    manifest = make_manifest()
    turned = msgspec.structs.replace(
        manifest, sections=dict(reversed(list(manifest.sections.items())))
    )

    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert encode_manifest(turned) == encode_manifest(manifest)


def test_a_manifest_for_newer_gateways_is_refused() -> None:
    with pytest.raises(ValueError, match=f"7 needs a gateway of version {SNAPSHOT_VERSION + 1}"):
        decode_manifest(encode_manifest(make_manifest(SNAPSHOT_VERSION + 1)))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"n": 1}'])
def test_anything_else_is_no_manifest(text: str) -> None:
    with pytest.raises(ValueError, match="not a Snapshot manifest"):
        decode_manifest(text)


def test_a_directory_is_read_back() -> None:
    directory = Directory(
        tenants=[TenantEntry(id="ten_1", name="acme", project_id="prj")],
        aliases=[make_alias([FULL_WEIGHT])],
    )

    assert decode_directory(encode_directory(directory)) == directory


@pytest.mark.parametrize("section", [b"", b"\x00", msgspec.msgpack.encode({"tenants": 1})])
def test_anything_else_is_no_directory(section: bytes) -> None:
    with pytest.raises(ValueError, match="not a directory section"):
        decode_directory(section)

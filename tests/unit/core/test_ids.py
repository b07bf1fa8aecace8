"""Ids: UUIDv7 in base32hex behind a prefix."""

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.ids import (
    decode_uuid,
    encode_uuid,
    id_from_bytes,
    make_id,
    make_uuid7,
    uuid_bytes,
)

UUIDS = st.integers(0, 2**128 - 1)
TIMES_US = st.integers(0, (2**48 - 1) * 1000)
NOISE = st.binary(min_size=10, max_size=10)


@given(TIMES_US, NOISE)
def test_the_layout_is_that_of_a_uuid_of_version_7(now_us: int, noise: bytes) -> None:
    made = uuid.UUID(int=make_uuid7(now_us, noise))

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert int.from_bytes(made.bytes[:6], "big") == now_us // 1000


@given(TIMES_US, NOISE, st.integers(0, 73))
def test_every_one_of_74_random_bits_is_used(now_us: int, noise: bytes, bit: int) -> None:
    flipped = (int.from_bytes(noise, "big") ^ (1 << bit)).to_bytes(10, "big")

    assert make_uuid7(now_us, noise) != make_uuid7(now_us, flipped)


@given(UUIDS)
def test_the_text_is_lower_case_base32hex_without_padding(value: int) -> None:
    expected = base64.b32hexencode(value.to_bytes(16, "big")).decode().rstrip("=").lower()

    assert encode_uuid(value) == expected


@given(st.sampled_from(["key", "ten", "op"]), UUIDS)
def test_an_id_and_its_bytes_are_the_same_thing(prefix: str, value: int) -> None:
    made = f"{prefix}_{encode_uuid(value)}"

    assert decode_uuid(made) == value
    assert uuid_bytes(made) == value.to_bytes(16, "big")
    assert id_from_bytes(prefix, uuid_bytes(made)) == made


@given(UUIDS, UUIDS)
def test_ids_sort_like_their_bytes(first: int, second: int) -> None:
    assert (encode_uuid(first) < encode_uuid(second)) == (first < second)


@given(TIMES_US, TIMES_US, NOISE, NOISE)
def test_ids_of_different_milliseconds_sort_by_time(
    first_us: int, second_us: int, noise: bytes, other: bytes
) -> None:
    first, second = make_id("key", first_us, noise), make_id("key", second_us, other)

    if first_us // 1000 != second_us // 1000:
        assert (first < second) == (first_us < second_us)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "key_",
        "key_0",
        "key_" + "0" * 25,
        "key_" + "0" * 27,
        "key_" + "w" + "0" * 25,
        "key_" + "A" + "0" * 25,
        "key_" + "0" * 25 + "1",  # the last letter has two bits that no UUID has
        "key_" + "0" * 25 + "\N{FULLWIDTH DIGIT ZERO}",
    ],
)
def test_anything_else_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        decode_uuid(text)

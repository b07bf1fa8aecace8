"""Sealed bytes open for their owner, purpose and key alone; fingerprints say who is the same."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from pilotage.kit.sealing import (
    fingerprint,
    lock_box,
    make_key,
    make_letterbox,
    open_box,
    open_letter,
    post,
    read_key_number,
    read_letter_number,
    seal,
    unseal,
)

KEY = bytes(range(32))
NAMES = st.text(max_size=20)


@given(st.binary(max_size=2000), NAMES, NAMES, st.integers(0, 2**32 - 1))
def test_what_is_sealed_opens_and_names_its_key(
    plain: bytes, owner: str, purpose: str, number: int
) -> None:
    sealed = seal(KEY, number, owner, purpose, plain)

    assert unseal(KEY, owner, purpose, sealed) == plain
    assert read_key_number(sealed) == number
    assert len(sealed) == len(plain) + 33


def test_the_format_is_the_one_that_is_written_down() -> None:
    sealed = seal(KEY, 7, "ten_1", "label", b"Ada")

    assert sealed[:5] == b"\x01\x00\x00\x00\x07"
    bound = b"pilotage\0\0\0\5ten_1\0\0\0\5label\0\0\0\4\0\0\0\7"
    assert AESGCM(KEY).decrypt(sealed[5:17], sealed[17:], bound) == b"Ada"


@given(st.data())
def test_nothing_opens_where_one_bit_another_owner_or_purpose_is_wrong(data: st.DataObject) -> None:
    sealed = seal(KEY, 1, "ten_1", "label", b"Ada Lovelace")
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    flipped = bytearray(sealed)
    flipped[place // 8] ^= 1 << place % 8
    for key, owner, purpose, content in (
        (KEY, "ten_1", "label", bytes(flipped)),
        (KEY, "ten_2", "label", sealed),
        (KEY, "ten_1", "reply", sealed),
        (KEY, "ten_1l", "abel", sealed),
        (make_key(), "ten_1", "label", sealed),
        (KEY, "ten_1", "label", sealed[: data.draw(st.integers(0, len(sealed) - 1))]),
    ):
        with pytest.raises(ValueError, match="sealed"):
            unseal(key, owner, purpose, content)


def test_the_same_bytes_are_sealed_differently_each_time() -> None:
    assert len({seal(KEY, 1, "o", "p", b"Ada") for _ in range(50)}) == 50


def test_a_fingerprint_depends_on_key_owner_purpose_and_text_and_on_nothing_else() -> None:
    asked = [
        (KEY, "ten_1", "user", "alice"),
        (make_key(), "ten_1", "user", "alice"),
        (KEY, "ten_2", "user", "alice"),
        (KEY, "ten_1", "prompt", "alice"),
        (KEY, "ten_1", "user", "Alice"),
        (KEY, "ten_1", "user", "\ud800"),
    ]
    made = [fingerprint(*one) for one in asked]

    assert len(set(made)) == len(asked)
    assert made == [fingerprint(*one) for one in asked]
    assert made[0] == "1a14e0124bf51375b8c0e9b7fb48331f"  # what is stored must never change


@given(st.binary(max_size=2000), NAMES, NAMES, st.integers(0, 2**32 - 1))
def test_a_letter_is_posted_without_a_key_and_opens_with_it(
    plain: bytes, owner: str, purpose: str, number: int
) -> None:
    letterbox = make_letterbox(KEY, number, owner, "box")
    letter = post(letterbox, owner, purpose, plain)

    assert open_letter(KEY, owner, "box", purpose, letter) == plain
    assert read_letter_number(letter) == number
    assert post(letterbox, owner, purpose, plain) != letter
    for other in (
        (make_key(), owner, "box", purpose, letter),
        (KEY, owner + "x", "box", purpose, letter),
        (KEY, owner, "another box", purpose, letter),
        (KEY, owner, "box", purpose + "x", letter),
        (KEY, owner, "box", purpose, letter[:-1] + bytes([letter[-1] ^ 1])),
        (KEY, owner, "box", purpose, bytes([letter[0] ^ 1]) + letter[1:]),
        (KEY, owner, "box", purpose, bytes(32) + letter[32:]),
        (KEY, owner, "box", purpose, letter[:40]),
        (KEY, owner, "box", purpose, b""),
    ):
        with pytest.raises(ValueError, match=r"."):
            open_letter(*other)


@pytest.mark.parametrize("letterbox", ["", "1", "1.00", "x." + "05" * 32, "1." + "zz" * 32])
def test_what_is_no_letterbox_takes_nothing(letterbox: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        post(letterbox, "ten_1", "letter", b"Ada")


def test_a_box_opens_with_its_passphrase_only() -> None:
    box = lock_box("correct horse", b"the keys")

    assert b"the keys" not in box
    assert open_box("correct horse", box) == b"the keys"
    for passphrase, content in (
        ("Correct horse", box),
        ("correct horse", box[:-1] + bytes([box[-1] ^ 1])),
        ("correct horse", box[:12] + b"x" + box[13:]),
        ("correct horse", b"other"),
    ):
        with pytest.raises(ValueError, match="box"):
            open_box(passphrase, content)


def test_a_box_cannot_ask_for_endless_work() -> None:
    box = lock_box("p", b"k")
    for cost in ((63, 8, 1), (15, 255, 1), (15, 8, 255), (0, 8, 1)):
        with pytest.raises(ValueError, match="more work"):
            open_box("p", box[:8] + bytes(cost) + box[11:])

"""Credentials with a checksum, signatures by a key on disk."""

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.kit.crypto import (
    digest_secret,
    is_secret,
    is_signed,
    key_id_of,
    make_secret,
    open_signer,
)

PREFIX = "plt_live_"
LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


def test_a_secret_has_256_random_bits_and_a_checksum() -> None:
    made = {make_secret(PREFIX) for _ in range(200)}

    assert len(made) == 200
    for secret in made:
        assert re.fullmatch(PREFIX + f"[{LETTERS}]{{58}}", secret)
        assert is_secret(PREFIX, secret)
    used = [{secret[place] for secret in made} for place in range(len(PREFIX) + 1, 67)]
    assert all(len(letters) > 16 for letters in used)  # every place behind the first is random


def test_any_single_wrong_letter_is_caught() -> None:
    secret = make_secret(PREFIX)
    wrong = [
        secret[:place] + letter + secret[place + 1 :]
        for place in range(len(secret))
        for letter in map(chr, range(33, 127))
        if letter != secret[place]
    ]

    assert len(wrong) == 67 * 93
    assert [text for text in wrong if is_secret(PREFIX, text)] == []


def test_neighbours_in_the_wrong_order_are_caught() -> None:
    secret = make_secret(PREFIX)
    for place in range(len(secret) - 1):
        turned = secret[:place] + secret[place + 1] + secret[place] + secret[place + 2 :]
        assert turned == secret or not is_secret(PREFIX, turned)


@pytest.mark.parametrize("change", ["", "x", "short", "long", "upper", "other"])
def test_what_is_no_secret(change: str) -> None:
    secret = make_secret(PREFIX)
    texts = {
        "": "",
        "x": PREFIX + "x" * 58,
        "short": secret[:-1],
        "long": secret + "0",
        "upper": secret.upper(),
        "other": make_secret("plt_admin_"),
    }

    assert not is_secret(PREFIX, texts[change])


@given(st.text(max_size=80))
def test_no_text_of_a_stranger_breaks_the_check(text: str) -> None:
    assert not is_secret(PREFIX, text)
    assert not is_secret(PREFIX, PREFIX + text)


def test_a_secret_is_stored_as_its_sha256() -> None:
    assert digest_secret("plt_live_x") == hashlib.sha256(b"plt_live_x").digest()


def test_a_signing_key_is_made_once_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "snapshot.key"
    made, again = open_signer(path), open_signer(path)

    assert made.public == again.public
    assert made.key_id == key_id_of(made.public) == hashlib.sha256(made.public).hexdigest()[:16]
    assert path.stat().st_mode & 0o777 == 0o600
    assert bytes.fromhex(path.with_suffix(".pub").read_text()) == made.public
    assert open_signer(tmp_path / "other.key").public != made.public


def test_a_lost_public_half_is_written_again(tmp_path: Path) -> None:
    made = open_signer(tmp_path / "a.key")
    (tmp_path / "a.pub").unlink()

    assert open_signer(tmp_path / "a.key").public == made.public
    assert (tmp_path / "a.pub").read_text() == made.public.hex()


def test_a_signature_is_of_one_key_on_one_message(tmp_path: Path) -> None:
    signer, other = open_signer(tmp_path / "a.key"), open_signer(tmp_path / "b.key")
    signature = signer.sign(b"message")

    assert len(signature) == 64
    assert is_signed(signer.public, b"message", signature)
    assert not is_signed(signer.public, b"messagf", signature)
    assert not is_signed(other.public, b"message", signature)
    assert not is_signed(signer.public, b"message", signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not is_signed(signer.public, b"message", b"")

"""Signed notes and checkpoints: what was signed opens, nothing else does."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotage.audit.notes import (
    ED25519,
    Checkpoint,
    name_key,
    open_checkpoint,
    open_note,
    read_checkpoint,
    sign_note,
)

NAME = "audit.example/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
OTHERS_PUBLIC = OTHER.public_key().public_bytes_raw()
CHECKPOINT = Checkpoint(NAME, 70_000, bytes(32))
NOTE = sign_note(CHECKPOINT.to_text(), NAME, PUBLIC, KEY.sign)


def test_a_checkpoint_is_written_as_the_specification_says() -> None:
    text, signature = NOTE.split("\n\n")

    assert text == f"{NAME}\n70000\n{base64.b64encode(bytes(32)).decode()}"
    dash, name, encoded = signature.strip().split(" ")
    raw = base64.b64decode(encoded)
    assert (dash, name, len(raw)) == ("\u2014", NAME, 68)
    assert raw[:4] == name_key(NAME, PUBLIC)
    KEY.public_key().verify(raw[4:], f"{text}\n".encode())
    assert open_checkpoint(NOTE, NAME, PUBLIC) == CHECKPOINT


def test_the_key_id_of_a_known_key() -> None:
    key_of_the_go_checksum_database = "Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    raw = base64.b64decode(key_of_the_go_checksum_database)

    assert raw[:1] == ED25519
    assert name_key("sum.golang.org", raw[1:]).hex() == "033de0ae"


def test_further_signatures_may_stand_beside() -> None:
    witness = sign_note(CHECKPOINT.to_text(), "witness.example", b"w" * 32, OTHER.sign)
    both = witness + NOTE.split("\n\n")[1]

    assert open_checkpoint(both, NAME, PUBLIC) == CHECKPOINT


@pytest.mark.parametrize(
    ("note", "problem"),
    [
        (NOTE.replace("70000", "70001"), "does not match"),
        (NOTE.split("\n\n")[0] + "\n", "no signature"),
        (NOTE.replace("\u2014", "-"), "no signature"),
        (NOTE.replace(f"\u2014 {NAME}", "\u2014 somebody.else"), "no signature of"),
        (NOTE.replace(f"\u2014 {NAME} ", f"\u2014 {NAME} !"), "not base64"),
        (sign_note(CHECKPOINT.to_text(), NAME, PUBLIC, OTHER.sign), "does not match"),
        (
            sign_note(CHECKPOINT.to_text(), NAME, OTHERS_PUBLIC, OTHER.sign),
            "with this key",
        ),
    ],
)
def test_what_was_not_signed_does_not_open(note: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        open_note(note, NAME, PUBLIC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name\n1\n",
        f"{NAME}\n-1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n01\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{NAME}\n1\nno base64!\n",
    ],
)
def test_what_is_no_checkpoint_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint|no SHA-256|not base64"):
        read_checkpoint(text)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    other = Checkpoint("another.example/log", 1, bytes(32))

    with pytest.raises(ValueError, match="checkpoint of another"):
        open_checkpoint(sign_note(other.to_text(), NAME, PUBLIC, KEY.sign), NAME, PUBLIC)

"""What identifies people is replaced by tokens, and the rest of a text stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.pseudonyms import Pseudonyms

FOUND = [
    ("Write to Jürgen.Maier+x@mail.example.co.uk, please.", "EMAIL", "Jürgen.Maier+x@mail.example"),
    ("It is DE89 3704 0044 0532 0130 00 at that bank.", "IBAN", "3704"),
    ("gb29nwbk60161331926819 is hers", "IBAN", "60161331926819"),
    ("My card 4111 1111 1111 1111 2024 was refused", "CARD", "4111 1111 1111 1111"),
    ("amex 3782-822463-10005.", "CARD", "822463"),
    ("6011000990139424", "CARD", "6011000990139424"),
    ("Her SSN is 078-05-1120", "SSN", "078-05-1120"),
    ("IdNr 86 095 742 719", "TAX", "742"),
    ("VAT: DE 136695976", "TAX", "136695976"),
    ("from 192.168.17.4 today", "IP", "192.168"),
    ("call +49 (0)170 1234567 now", "PHONE", "1234567"),
    ("or 030/1234567", "PHONE", "1234567"),
    ("or 01701234567", "PHONE", "01701234567"),
    ("or (415) 555-2671", "PHONE", "555-2671"),
    ("or 0044 20 7946 0958", "PHONE", "7946"),
]
KEPT = [
    "The meeting is on 03.05.2024, or on 2024-05-03.",
    "Add 12345 and 67890123.",
    "Order XX89 1234 ABCD is no account, and 4111 1111 1111 1112 no card.",
    "0000 0000 0000 0000",
    "Version 1.2.3 costs 0.123456789 USD; tax number 12 345 678 901.",
    "Call me @home, section 007.",
    "",
]


@pytest.mark.parametrize(("text", "kind", "raw"), FOUND)
def test_what_gives_itself_away_becomes_a_token(text: str, kind: str, raw: str) -> None:
    pseudonyms = Pseudonyms()
    said = pseudonyms.replace(text)
    assert f"<{kind}_1>" in said
    assert raw not in said
    assert pseudonyms.counts == {kind.lower(): 1}
    assert pseudonyms.replace(said) == said


@pytest.mark.parametrize("text", KEPT)
def test_other_numbers_and_words_stay(text: str) -> None:
    assert Pseudonyms().replace(text) == text


def test_the_same_value_has_the_same_token() -> None:
    pseudonyms = Pseudonyms()
    said = pseudonyms.replace("a@x.de wrote to b@x.de: A@X.DE pays to DE89370400440532013000")
    assert said == "<EMAIL_1> wrote to <EMAIL_2>: <EMAIL_1> pays to <IBAN_1>"
    assert pseudonyms.replace("DE89 3704 0044 0532 0130 00") == "<IBAN_1>"


def test_texts_of_json_are_replaced_and_its_form_stays() -> None:
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "I am a@x.de"}]}],
        "tools": [{"function": {"name": "a@x.de", "parameters": {"b@x.de": [True, None]}}}],
        "card": 4111111111111111,
        "n": 3,
        "temperature": 0.5,
    }
    assert Pseudonyms().replace_all(body) == {
        "model": "chat",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "I am <EMAIL_1>"}]}],
        "tools": [{"function": {"name": "<EMAIL_1>", "parameters": {"<EMAIL_2>": [True, None]}}}],
        "card": "<CARD_1>",
        "n": 3,
        "temperature": 0.5,
    }


@given(st.text(), st.sampled_from(FOUND), st.text())
def test_nothing_around_it_lets_an_address_through(
    before: str, case: tuple[str, str, str], after: str
) -> None:
    said = Pseudonyms().replace(f"{before} ann@example.org {after}")
    assert "ann@example.org" not in said
    json.dumps(Pseudonyms().replace_all({"text": f"{before}{case[0]}{after}"}))

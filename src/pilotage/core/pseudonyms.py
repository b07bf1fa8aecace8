"""Putting tokens in the place of what identifies people, before a text is kept anywhere. Pure.

Found are things whose form gives them away: e-mail addresses, IBANs (ISO 13616, by their check
digits), card numbers (ISO/IEC 7812, by theirs), tax numbers (the German identification number and
VAT numbers by their form and, where there are some, check digits), US social security numbers, IP
addresses and telephone numbers. Names of people have no form and are not found. What looks like one
of these and is not becomes a token all the same, as that costs little.

The same value has the same token within the texts of one :class:`Pseudonyms`, so that who is meant
by whom stays clear; nothing tells which value a token stood for.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

EMAIL, IBAN, CARD, TAX, SSN, IP, PHONE = "email", "iban", "card", "tax", "ssn", "ip", "phone"
_PHONE_DIGITS = 7, 15  # ITU-T E.164 allows 15
_NINE = 9
_SEPARATORS = re.compile(r"[^0-9A-Za-z]")
_KEPT = frozenset({"role", "type", "model", "id", "name", "tool_call_id"})


class _Detector(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    is_one: Callable[[str], bool]


class Pseudonyms:
    """Replaces identifiers by tokens such as ``<EMAIL_1>``, numbered by kind as they occur."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many different values of each kind were replaced."""
        return dict(self._counts)

    def replace(self, text: str) -> str:
        """Return a text with tokens in it."""
        for detector in _list_detectors(text):
            text = detector.pattern.sub(partial(self._name, detector), text)
        return text

    def replace_all(self, value: Any) -> Any:  # noqa: ANN401 - whatever JSON a client sends
        """Return a JSON value with tokens in all its texts, names of fields included.

        What says how a request is meant (its model, roles, types, ids of tools) stays as it is.
        """
        if isinstance(value, str):
            return self.replace(value)
        if isinstance(value, list):
            return [self.replace_all(part) for part in value]
        if isinstance(value, dict):
            return {
                self.replace(name): part
                if name in _KEPT and isinstance(part, str) and not self._finds(part)
                else self.replace_all(part)
                for name, part in value.items()
            }
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._replace_number(value)
        return value

    def _name(self, detector: _Detector, found: re.Match[str]) -> str:
        said = found.group()
        if not detector.is_one(said):
            return said
        plain = said if detector.kind in (EMAIL, IP) else _SEPARATORS.sub("", said)
        key = detector.kind, plain.casefold()
        if key not in self._tokens:
            self._counts[detector.kind] = self._counts.get(detector.kind, 0) + 1
            self._tokens[key] = f"<{detector.kind.upper()}_{self._counts[detector.kind]}>"
        return self._tokens[key]

    def _finds(self, text: str) -> bool:
        return any(
            detector.is_one(found.group())
            for detector in _list_detectors(text)
            for found in detector.pattern.finditer(text)
        )

    def _replace_number(self, value: float) -> Any:  # noqa: ANN401
        """Return a number, or a token where its digits are a card's or a tax number's."""
        text = str(value)
        return self.replace(text) if self._finds(text) else value


def _list_detectors(text: str) -> list[_Detector]:
    """Return what may find something: addresses have an @, everything else has digits."""
    has_digits = _DIGIT.search(text) is not None
    return [
        detector
        for detector in _DETECTORS
        if (detector.kind == EMAIL and "@" in text) or (detector.kind != EMAIL and has_digits)
    ]


def list_digits(text: str) -> str:
    """Return the digits of a text."""
    return "".join(letter for letter in text if "0" <= letter <= "9")


def _is_iban(text: str) -> bool:
    """ISO 7064 MOD 97-10: letters count from A = 10, the first four letters go last."""
    plain = _SEPARATORS.sub("", text).upper()
    moved = "".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])
    return int(moved) % 97 == 1


def _is_card(text: str) -> bool:
    """Check the digit of Luhn (1960): every other digit counts twice, from the last but one."""
    digits = [int(digit) for digit in reversed(list_digits(text))]
    if len(set(digits)) == 1:
        return False
    doubled = (2 * digit - _NINE if 2 * digit > _NINE else 2 * digit for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_tax_number(text: str) -> bool:
    """Take VAT numbers by their form; check the German identification number by ISO 7064."""
    plain = _SEPARATORS.sub("", text)
    if not plain.isdecimal():
        return True
    return plain[0] != "0" and _find_check_digit(plain[:-1]) == int(plain[-1])


def _find_check_digit(digits: str) -> int:
    """ISO 7064 MOD 11,10."""
    product = 10
    for digit in digits:
        total = (int(digit) + product) % 10 or 10
        product = 2 * total % 11
    return (11 - product) % 10


def _is_phone(text: str) -> bool:
    """Take what is written as a number to dial: with a plus, or a leading 0, or in groups."""
    count = len(list_digits(text))
    return _PHONE_DIGITS[0] <= count <= _PHONE_DIGITS[1] and not _DATE.fullmatch(text.strip())


def _always(text: str) -> bool:
    del text
    return True


_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ]\d\d?[-./ ]\d\d?(?:[ T]\d\d?)?|\d\d?[-./ ]\d\d?[-./ ](?:19|20)\d\d"
)
_IBANS = {  # the countries of each length, by the registry of ISO 13616
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH CR HR LI LV",
    22: "BG BH DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_LOCAL = r"\w.!#$%&'*+/=?^`{|}~-"  # what stands before the @ of an address
_DETECTORS = (  # what is longer and surer comes first; each fails fast where it cannot begin
    _Detector(
        EMAIL,
        re.compile(rf"(?<![{_LOCAL}])[{_LOCAL}]++@[\w-]++(?:\.[\w-]++)+"),
        _always,
    ),
    _Detector(
        IBAN,
        re.compile(
            r"(?<![0-9A-Za-z])(?=[A-Za-z]{2}\d\d)(?i:"
            + "|".join(
                rf"(?:{'|'.join(countries.split())})\d\d(?:[ -]?[0-9A-Z]){{{length - 4}}}"
                for length, countries in _IBANS.items()
            )
            + r")(?![0-9A-Za-z])",
        ),
        _is_iban,
    ),
    _Detector(IP, re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"), _always),
    _Detector(
        CARD,
        re.compile(
            r"(?<!\d)(?=\d{4})(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?"
            r"|\d{4}([ -]?)\d{6}\2\d{4,5}|\d{13,19})(?!\d)"
        ),
        _is_card,
    ),
    _Detector(SSN, re.compile(r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)"), _always),
    _Detector(
        TAX,
        re.compile(
            r"(?<![0-9A-Za-z])(?=[A-Z]{2} ?[0-9A-Z]|\d\d)"
            r"(?:DE ?\d{9}|ATU ?\d{8}|(?:IT|HR|LV) ?\d{11}|ES ?[A-Z]?\d{7,8}[A-Z]?"
            r"|FR ?[0-9A-Z]{2} ?\d{9}|NL ?\d{9}B\d{2}|PL ?\d{10}|GB ?\d{9}"
            r"|\d{2} ?\d{3} ?\d{3} ?\d{3})(?![0-9A-Za-z])"
        ),
        _is_tax_number,
    ),
    _Detector(
        PHONE,
        re.compile(
            r"(?<![\w.+])(?=[+(\d])(?:"
            r"(?:\+|00)\d(?:[ ()/.-]{0,3}\d){5,13}(?!\d)"
            r"|\(?0\d{1,5}\)?(?:[ /.-]{1,2}\d{2,}){1,5}(?![\w])"
            r"|0\d{8,12}(?!\w)"
            r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\w))"
        ),
        _is_phone,
    ),
)
_DIGIT = re.compile(r"\d")

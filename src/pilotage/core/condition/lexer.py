"""From letters to words of the language, each with its place."""

import re
from enum import Enum, auto
from typing import NamedTuple

from pilotage.core.condition.types import ConditionError, Span

MAX_LETTERS = 2_000
MAX_WORDS = 250  # so that no tree is too deep to walk
KEYWORDS = frozenset({"and", "or", "unless", "for", "absent"})


class Kind(Enum):
    """What a word is."""

    NUMBER = auto()
    DURATION = auto()
    NAME = auto()
    KEYWORD = auto()
    STRING = auto()
    SIGN = auto()
    END = auto()


class Word(NamedTuple):
    """A word; of a string, ``text`` is what is between its quotes."""

    kind: Kind
    text: str
    span: Span


_WORD = re.compile(
    r"""
      (?P<DURATION> (?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+ (?![A-Za-z0-9_.]) )
    | (?P<NUMBER> \d+(?:\.\d+)? )
    | (?P<NAME> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<STRING> "[^"\n]*" | '[^'\n]*' )
    | (?P<SIGN> >=|<=|==|!=|=~|!~|[-+*/()\[\]{}<>=,%$] )
    """,
    re.ASCII | re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
# What people write who come from another language, and what is written here.
_FOREIGN = {
    "&": "Write and.",
    "|": "Write or.",
    "!": "Write unless, or turn the comparison round.",
    "~": 'Patterns are written alias=~"chat.*".',
    '"': "Close the string with the same quote.",
    "'": "Close the string with the same quote.",
    "≥": "Write >=.",
    "≤": "Write <=.",
    "≠": "Write !=.",
    "€": "Costs are in USD.",
    "^": "There are no powers.",
}


def split_words(text: str) -> list[Word]:
    """Return the words of a text, the last of which is its end; raise ConditionError."""
    if len(text) > MAX_LETTERS:
        raise ConditionError(
            f"a condition has at most {MAX_LETTERS} letters.",
            Span(MAX_LETTERS, len(text)),
            "Make several rules of it.",
        )
    words, at = [], _skip_space(text, 0)
    while at < len(text):
        found = _WORD.match(text, at)
        if found is None:
            letter = text[at]
            detail = f"{letter!r} has no meaning here."
            raise ConditionError(detail, Span(at, at + 1), _FOREIGN.get(letter, ""))
        words.append(_make_word(found))
        if len(words) > MAX_WORDS:
            raise ConditionError(
                f"a condition has at most {MAX_WORDS} words.",
                words[-1].span,
                "Make several rules of it.",
            )
        at = _skip_space(text, found.end())
    return [*words, Word(Kind.END, "", Span(len(text), len(text)))]


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _make_word(found: re.Match[str]) -> Word:
    kind, text, span = Kind[found.lastgroup or ""], found[0], Span(*found.span())
    if kind is Kind.STRING:
        return Word(kind, text[1:-1], span)
    if kind is Kind.NAME and text.lower() in KEYWORDS:
        return Word(Kind.KEYWORD, text.lower(), span)
    return Word(kind, text, span)

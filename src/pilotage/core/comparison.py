"""How alike two answers to the same request are, and whether one can be used at all. Pure.

Nothing here judges what is said: it says whether two texts are the same, of the same form, how much
of one is found in the other, and how long they are.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

READ_LETTERS = 8_000  # of the beginning of each text; comparing them takes some 10 ms at most
ALIKE = 1_000_000  # the similarity of equal texts
USABLE = 1_000  # the mark of an answer that can be used; one that cannot has 0
_GRAM = 3
_EDGE = " " * (_GRAM - 1)
_FORMS = 20  # elements of a list whose forms are looked at
_FORM_LETTERS = 32_000  # of a text whose form is looked at
_FORM_STEPS = 10_000  # values that are held against others, in some 10 ms at most
_FENCE = "```"


class Likeness(NamedTuple):
    """What two texts have in common.

    ``similarity`` is in millionths. ``is_schema_kept`` is None unless the first text is JSON with
    a structure (an object or a list). Letters are those of the whole texts.
    """

    is_exact: bool
    is_schema_kept: bool | None
    similarity: int
    first_letters: int
    second_letters: int


def compare(first: str, second: str) -> Likeness:
    """Return what two answers have in common; the first one is what the second is held against."""
    return Likeness(
        is_exact=first.strip() == second.strip(),
        is_schema_kept=keeps_schema(first, second),
        similarity=measure_similarity(first, second),
        first_letters=len(first),
        second_letters=len(second),
    )


def measure_similarity(first: str, second: str) -> int:
    """Return how alike two texts are, from 0 to 1,000,000.

    The coefficient of Dice (1945) and Sørensen (1948) on their runs of three letters, each as
    often as it occurs: ``2 |A and B| / (|A| + |B|)``. Case and kinds of white space do not matter.
    """
    one, other = _list_grams(first), _list_grams(second)
    if one == other:
        return ALIKE
    total = one.total() + other.total()
    return 2 * (one & other).total() * ALIKE // total


def keeps_schema(first: str, second: str) -> bool | None:
    """Say whether the second text is JSON of the first one's form; None if that has no structure.

    Objects need the same names, elements of a list one of the forms that the first list has, and
    values the same type; null may stand for anything. None, too, if finding out takes too long.
    """
    if len(first) > _FORM_LETTERS or len(second) > _FORM_LETTERS:
        return None
    model, value = read_json(first), read_json(second)
    if not isinstance(model, (dict, list)):
        return None
    try:
        return value is not None and _fits(model, value, iter(range(_FORM_STEPS)))
    except RecursionError:  # deeper than anything that somebody reads
        return False
    except _TooLongError:
        return None


def read_json(text: str) -> Any:  # noqa: ANN401 - whatever JSON a model writes
    """Return what a text says as JSON, in a fence or without; None if it is none."""
    text = text.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE):
        text = text.partition("\n")[2].removesuffix(_FENCE)
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def mark_answer(text: str, *, is_refusal: bool, wants_json: bool) -> int:
    """Return ``USABLE`` for an answer that can be used, 0 for one that cannot.

    It cannot if it says nothing, if it declines, or if it is no JSON where that was asked for.
    """
    if not text.strip() or is_refusal:
        return 0
    return 0 if wants_json and not isinstance(read_json(text), (dict, list)) else USABLE


def _list_grams(text: str) -> Counter[str]:
    plain = " ".join(text[:READ_LETTERS].casefold().split())
    padded = f"{_EDGE}{plain}{_EDGE}" if plain else ""
    return Counter(padded[start : start + _GRAM] for start in range(len(padded) - _GRAM + 1))


class _TooLongError(Exception):
    """There are no steps left."""


def _fits(model: Any, value: Any, steps: Iterator[int]) -> bool:  # noqa: ANN401
    if next(steps, None) is None:
        raise _TooLongError
    if model is None or value is None:
        return True
    if isinstance(model, dict):
        return (
            isinstance(value, dict)
            and model.keys() == value.keys()
            and all(_fits(part, value[name], steps) for name, part in model.items())
        )
    if isinstance(model, list):
        forms = model[:_FORMS]
        return isinstance(value, list) and (
            not forms or all(any(_fits(form, part, steps) for form in forms) for part in value)
        )
    return _find_type(model) == _find_type(value)


def _find_type(value: object) -> str:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, (int, float)) else type(value).__name__

"""Measures of calls, what is counted of them, and the references that windows are compared with."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from pilotage.core.drift import Shift
from pilotage.core.sketch import Sketch

MOST_WORDS = 64  # that are counted one by one; what comes later is counted together
OTHER = "(other)"
_LONGEST_WORD = 64


class Subject(StrEnum):
    """What a measure is a measure of."""

    PROMPT = "prompt"
    ANSWER = "answer"
    SPEED = "speed"


class Measure(StrEnum):
    """What is counted of calls; closed.

    Lengths in letters, languages and refusals are known only of the share of calls whose texts a
    tenant lets be measured, scores of those that somebody gave feedback on.
    """

    PROMPT_TOKENS = "prompt_tokens"
    PROMPT_LETTERS = "prompt_letters"
    PROMPT_LANGUAGE = "prompt_language"
    ANSWER_TOKENS = "answer_tokens"
    ANSWER_LETTERS = "answer_letters"
    ANSWER_LANGUAGE = "answer_language"
    FINISH_REASON = "finish_reason"
    REFUSAL = "refusal"
    SCORE = "score"
    DURATION = "duration"
    TTFT = "ttft"

    @property
    def subject(self) -> Subject:
        """What it is a measure of."""
        if self in _OF_PROMPTS:
            return Subject.PROMPT
        return Subject.SPEED if self in _OF_SPEED else Subject.ANSWER

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers; the others are words."""
        return self not in _WORDS


_OF_PROMPTS = {Measure.PROMPT_TOKENS, Measure.PROMPT_LETTERS, Measure.PROMPT_LANGUAGE}
_OF_SPEED = {Measure.DURATION, Measure.TTFT}
_WORDS = {
    Measure.PROMPT_LANGUAGE,
    Measure.ANSWER_LANGUAGE,
    Measure.FINISH_REASON,
    Measure.REFUSAL,
}


class AnswerKey(NamedTuple):
    """Whose answers: an endpoint's, by one version of a model; ids, but for the model's name."""

    project_id: str
    alias: str
    version_id: str
    model: str


class Held(msgspec.Struct, array_like=True):
    """The values of one measure: numbers or words. To merge is to add.

    Numbers are microseconds, tokens, letters, or millionths of a score.
    """

    numbers: Sketch = msgspec.field(default_factory=Sketch)
    words: dict[str, int] = {}

    @property
    def count(self) -> int:
        """How many values there are."""
        return self.numbers.count + sum(self.words.values())

    def add_word(self, word: str, count: int = 1) -> None:
        """Count a word."""
        word = word[:_LONGEST_WORD]
        if word not in self.words and len(self.words) >= MOST_WORDS:
            word = OTHER
        self.words[word] = self.words.get(word, 0) + count

    def merge(self, other: "Held") -> None:
        """Add what another has counted."""
        self.numbers.merge(other.numbers)
        for word, count in other.words.items():
            self.add_word(word, count)


class Place(NamedTuple):
    """Which cell a value is counted in: whose answer's, of what, and when its span begins."""

    key: AnswerKey
    measure: Measure
    at_us: int


Cells = dict[Place, Held]


class Frozen(msgspec.Struct, frozen=True, array_like=True):
    """The values of one measure from one time to before another, which change no more."""

    since_us: int
    until_us: int
    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What windows of a version's answers on an endpoint are compared with.

    Measures are frozen when there are enough values of them; ``is_automatic`` is false once a
    person chose the span.
    """

    id: str
    rev: int
    project_id: str
    alias: str
    version_id: str
    model: str
    is_automatic: bool
    frozen_at_us: int
    frozen_by: str
    measures: dict[Measure, Frozen]

    @property
    def key(self) -> AnswerKey:
        """Whose answers it is of."""
        return AnswerKey(self.project_id, self.alias, self.version_id, self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureShift:
    """How far a measure is from its reference over the window from a time on."""

    measure: Measure
    since_us: int
    shift: Shift


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far the answers of a version on an endpoint are from their reference, measure by measure.

    A measure with too few values in its window or its reference is not among ``shifts``.
    """

    reference: Reference
    until_us: int
    shifts: tuple[MeasureShift, ...]

    @property
    def reference_id(self) -> str:
        """The id of the reference."""
        return self.reference.id

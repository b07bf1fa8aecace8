"""What drift decides: what is counted of a call, which window is looked at, and what has moved."""

from collections.abc import Iterable, Mapping, Sequence

from pilotage.core.drift import LEAST_REFERENCE, Shift, compare_numbers, compare_words
from pilotage.core.frames import Ended, Flag, Measured, Outcome
from pilotage.monitoring.drift.types import (
    AnswerKey,
    Cells,
    Comparison,
    Frozen,
    Held,
    Measure,
    MeasureShift,
    Place,
    Reference,
    Subject,
)

SPAN_US = 30 * 60_000_000  # of a cell
KEPT_US = 35 * 24 * 3_600_000_000
WINDOW_US = 3_600_000_000  # that a comparison looks back at least
LONGEST_WINDOW_US = 24 * 3_600_000_000  # and at most, where fewer than ENOUGH values came
ENOUGH = 1_000
MOST_AT_ONCE = 500  # calls of one version that are counted of a batch; distributions need no more
_LAST_US = 253_402_300_799_000_000  # the last second of the year 9999
_MOST = 10**11  # of anything in one call: a day in microseconds, and millions of them add up


def floor(at_us: int) -> int:
    """Return when the span began that a time lies in."""
    return at_us - at_us % SPAN_US


def add_up(ended: Iterable[Ended], measured: Iterable[Measured]) -> Cells:
    """Return what is counted of some calls that went well, and of what was measured of texts.

    Copies that no client waited for are left out. Of a large batch a part is counted.
    """
    cells: Cells = {}
    counted: dict[tuple[str, str, str, str, int], int] = {}
    for call in ended:
        if call.outcome is not Outcome.OK or Flag.SHADOW in call.flags:
            continue
        at_us = floor(call.at_us)
        place = (call.project_id, call.alias, call.version_id, call.model, at_us)
        seen = counted.get(place, 0)
        if seen < MOST_AT_ONCE:
            counted[place] = seen + 1
            _count_call(cells, AnswerKey(*map(_clean, place[:4])), at_us, call)
    for frame in measured:
        if 0 <= frame.at_us <= _LAST_US:
            key = AnswerKey(
                *map(_clean, (frame.project_id, frame.alias, frame.version_id, frame.model))
            )
            _count_texts(cells, key, floor(frame.at_us), frame)
    return cells


def merge_into(cells: Cells, more: Mapping[Place, Held]) -> None:
    """Add cells to cells."""
    for place, held in more.items():
        cells.setdefault(place, Held()).merge(held)


def freeze(cells: Mapping[Place, Held], since_us: int, until_us: int) -> dict[Measure, Frozen]:
    """Return what the cells of one key hold of every measure that there is enough of."""
    merged: dict[Measure, Held] = {}
    for place, held in cells.items():
        merged.setdefault(place.measure, Held()).merge(held)
    return {
        measure: Frozen(since_us, until_us, held)
        for measure, held in sorted(merged.items())
        if held.count >= LEAST_REFERENCE
    }


def find_ripe(cells: Mapping[Place, Held], until_us: int) -> dict[Measure, Frozen]:
    """Return the first values of every measure of one key that there is enough of.

    Spans are taken whole, the oldest first, and no more of them than are needed.
    """
    first: dict[Measure, list[Place]] = {}
    for place in sorted(cells, key=lambda place: place.at_us):
        first.setdefault(place.measure, []).append(place)
    found: dict[Measure, Frozen] = {}
    for measure, places in sorted(first.items()):
        held = Held()
        for number, place in enumerate(places, start=1):
            held.merge(cells[place])
            if held.count >= LEAST_REFERENCE:
                end_us = place.at_us + SPAN_US if number < len(places) else until_us
                found[measure] = Frozen(places[0].at_us, end_us, held)
                break
    return found


def compare_all(
    references: Sequence[Reference], cells: Mapping[Place, Held], until_us: int
) -> list[Comparison]:
    """Compare the newest values of every key that has a reference with it."""
    by_key: dict[AnswerKey, Cells] = {}
    for place, held in cells.items():
        by_key.setdefault(place.key, {})[place] = held
    return [compare(reference, by_key.get(reference.key, {}), until_us) for reference in references]


def compare(reference: Reference, cells: Mapping[Place, Held], until_us: int) -> Comparison:
    """Compare the newest values of every measure with the reference.

    Limits are those of so many comparisons at once as there are measures with a reference.
    """
    tests = max(1, len(reference.measures))
    shifts: list[MeasureShift] = []
    for measure, frozen in reference.measures.items():
        spans = {place.at_us: held for place, held in cells.items() if place.measure is measure}
        since_us, window = take_window(spans, max(frozen.until_us, until_us - LONGEST_WINDOW_US))
        found = _compare(measure, frozen.held, window, tests)
        if found is not None:
            shifts.append(MeasureShift(measure=measure, since_us=since_us, shift=found))
    return Comparison(reference=reference, until_us=until_us, shifts=tuple(shifts))


def take_window(spans: Mapping[int, Held], since_us: int) -> tuple[int, Held]:
    """Return the newest values by spans, and since when: an hour of them, and 1,000 if there are.

    How far it looks back depends on how many values there are, and never on what they are.
    """
    window, newest = Held(), max(spans, default=0)
    begin_us = newest
    for at_us in sorted(spans, reverse=True):
        is_enough = window.count >= ENOUGH and newest - at_us >= WINDOW_US
        if at_us < since_us or is_enough:
            break
        window.merge(spans[at_us])
        begin_us = at_us
    return begin_us, window


def find_furthest(
    shifts: Sequence[MeasureShift], subjects: Iterable[Subject]
) -> MeasureShift | None:
    """Return the measure of some subjects that moved most by its own limit; None without any."""
    wanted = set(subjects)
    among = [shift for shift in shifts if shift.measure.subject in wanted]
    return max(among, key=lambda found: found.shift.calibrated, default=None)


def _compare(measure: Measure, reference: Held, window: Held, tests: int) -> Shift | None:
    if measure.is_number:
        return compare_numbers(reference.numbers, window.numbers, tests)
    return compare_words(reference.words, window.words, tests)


def _count_call(cells: Cells, key: AnswerKey, at_us: int, call: Ended) -> None:
    for measure, value in (
        (Measure.PROMPT_TOKENS, call.usage.prompt_tokens or -1),
        (Measure.ANSWER_TOKENS, call.usage.completion_tokens if call.usage.total else -1),
        (Measure.DURATION, call.duration_us),
        (Measure.TTFT, call.ttft_us),
    ):
        _add_number(cells, Place(key, measure, at_us), value)
    if call.finish_reason:
        _add_word(cells, Place(key, Measure.FINISH_REASON, at_us), call.finish_reason)


def _count_texts(cells: Cells, key: AnswerKey, at_us: int, frame: Measured) -> None:
    _add_number(cells, Place(key, Measure.PROMPT_LETTERS, at_us), frame.prompt_letters)
    _add_number(cells, Place(key, Measure.ANSWER_LETTERS, at_us), frame.answer_letters)
    if frame.prompt_language:
        _add_word(cells, Place(key, Measure.PROMPT_LANGUAGE, at_us), frame.prompt_language)
    if frame.answer_letters >= 0:
        refused = "refused" if frame.is_refusal else "answered"
        _add_word(cells, Place(key, Measure.REFUSAL, at_us), refused)
        _add_word(cells, Place(key, Measure.ANSWER_LANGUAGE, at_us), frame.answer_language)


def _add_number(cells: Cells, place: Place, value: int) -> None:
    if 0 <= value <= _MOST:
        cells.setdefault(place, Held()).numbers.add(value)


def _add_word(cells: Cells, place: Place, word: str) -> None:
    cells.setdefault(place, Held()).add_word(word)


def _clean(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")

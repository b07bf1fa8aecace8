"""What is counted of calls, which window is looked at, and what has moved."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import make_call
from pilotage.core.drift import LEAST_REFERENCE, NOTABLE
from pilotage.core.frames import Ended, Flag, Measured, Outcome
from pilotage.core.usage import Usage
from pilotage.monitoring.drift.rules import (
    ENOUGH,
    LONGEST_WINDOW_US,
    MOST_AT_ONCE,
    SPAN_US,
    add_up,
    compare,
    compare_all,
    find_furthest,
    find_ripe,
    floor,
    freeze,
    merge_into,
    take_window,
)
from pilotage.monitoring.drift.types import (
    MOST_WORDS,
    OTHER,
    AnswerKey,
    Cells,
    Frozen,
    Held,
    Measure,
    Place,
    Reference,
    Subject,
)

KEY = AnswerKey("prj_1", "chat", "ver_1", "tiny@1.0.0")
NOW_US = 1_000 * SPAN_US


def call(**more: object) -> Ended:
    values = {"alias": "chat", "version_id": "ver_1", "model": "tiny@1.0.0", "at_us": NOW_US + 5}
    made = make_call(project_id="prj_1")
    return msgspec.structs.replace(made, **(values | {"outcome": Outcome.OK} | more))


def texts(**more: object) -> Measured:
    made = Measured(
        call_id="call_1",
        at_us=NOW_US + 7,
        project_id="prj_1",
        tenant_id="ten_1",
        alias="chat",
        version_id="ver_1",
        model="tiny@1.0.0",
        prompt_letters=10,
        prompt_language="en",
        answer_letters=20,
        answer_language="de",
    )
    return msgspec.structs.replace(made, **more)


def held_by(cells: Cells) -> dict[Measure, Held]:
    assert {place.key for place in cells} <= {KEY}
    assert {place.at_us for place in cells} <= {NOW_US}
    return {place.measure: held for place, held in cells.items()}


def numbers(count: int, value: int = 100) -> Held:
    held = Held()
    for number in range(count):
        held.numbers.add(value + number % 50)
    return held


def make_reference(until_us: int = 0, **measures: Held) -> Reference:
    return Reference(
        **KEY._asdict(),
        id="ref_1",
        rev=1,
        is_automatic=True,
        frozen_at_us=0,
        frozen_by="system",
        measures={Measure(name): Frozen(0, until_us, held) for name, held in measures.items()},
    )


def test_a_call_counts_with_what_is_known_of_it() -> None:
    found = held_by(
        add_up(
            [
                call(
                    usage=Usage(input=7, output=3), duration_us=9, ttft_us=4, finish_reason="stop"
                ),
                call(usage=Usage(input=7), duration_us=9, ttft_us=-1, finish_reason=""),
                call(usage=Usage(), duration_us=-1, ttft_us=-1, finish_reason="x" * 99),
            ],
            [],
        )
    )
    assert found[Measure.PROMPT_TOKENS].count == 2
    assert (found[Measure.ANSWER_TOKENS].count, found[Measure.ANSWER_TOKENS].numbers.zeros) == (
        2,
        1,
    )
    assert (found[Measure.DURATION].count, found[Measure.TTFT].count) == (2, 1)
    assert found[Measure.FINISH_REASON].words == {"stop": 1, "x" * 64: 1}


@pytest.mark.parametrize(
    "other", [{"outcome": Outcome.UPSTREAM_CUT}, {"flags": [Flag.SHADOW.value]}]
)
def test_calls_that_failed_and_copies_do_not_count(other: dict[str, object]) -> None:
    assert add_up([call(**other)], []) == {}


def test_what_was_measured_of_texts_counts() -> None:
    found = held_by(add_up([], [texts(), texts(is_refusal=True, prompt_language="")]))
    assert found[Measure.PROMPT_LETTERS].count == 2
    assert found[Measure.PROMPT_LANGUAGE].words == {"en": 1}
    assert found[Measure.ANSWER_LANGUAGE].words == {"de": 2}
    assert found[Measure.REFUSAL].words == {"answered": 1, "refused": 1}


def test_what_is_unknown_of_texts_does_not() -> None:
    silent = texts(prompt_letters=-1, prompt_language="", answer_letters=-1, answer_language="")
    assert add_up([], [silent, texts(at_us=-1)]) == {}


def test_of_a_large_batch_a_part_counts() -> None:
    cells = add_up([call(finish_reason="stop")] * (MOST_AT_ONCE + 50), [])
    assert held_by(cells)[Measure.FINISH_REASON].count == MOST_AT_ONCE


def test_what_a_table_cannot_hold_is_replaced() -> None:
    cells = add_up([call(model="a\x00b", finish_reason="stop")], [])
    assert {place.key.model for place in cells} == {"a\N{REPLACEMENT CHARACTER}b"}


def test_words_beyond_the_first_are_counted_together() -> None:
    held = Held()
    for number in range(MOST_WORDS + 10):
        held.add_word(f"word {number}")
    assert len(held.words) == MOST_WORDS + 1
    assert held.words[OTHER] == 10


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30), st.integers(0, 30))
def test_parts_merge_to_the_whole(calls: list[tuple[bool, int]], cut: int) -> None:
    made = [
        call(at_us=NOW_US + span * SPAN_US, finish_reason="stop" if stops else "length")
        for stops, span in calls
    ]
    first = add_up(made[:cut], [])
    merge_into(first, add_up(made[cut:], []))
    assert first == add_up(made, [])


def test_the_newest_hour_is_enough_where_there_are_many() -> None:
    spans = {number * SPAN_US: numbers(ENOUGH) for number in range(10)}
    since_us, window = take_window(spans, 0)
    assert (since_us, window.count) == (8 * SPAN_US, 2 * ENOUGH)


def test_few_values_look_further_back_but_not_beyond_the_bound() -> None:
    spans = {number * SPAN_US: numbers(10) for number in range(10)}
    assert take_window(spans, 0)[1].count == 100
    assert take_window(spans, 4 * SPAN_US)[1].count == 60
    assert take_window({}, 0) == (0, Held())


def test_freezing_takes_measures_with_enough_values() -> None:
    cells = {
        Place(KEY, Measure.DURATION, 0): numbers(LEAST_REFERENCE - 1),
        Place(KEY, Measure.DURATION, SPAN_US): numbers(1),
        Place(KEY, Measure.TTFT, 0): numbers(LEAST_REFERENCE - 1),
    }
    frozen = freeze(cells, 3, 9)
    assert set(frozen) == {Measure.DURATION}
    assert (frozen[Measure.DURATION].since_us, frozen[Measure.DURATION].until_us) == (3, 9)
    assert frozen[Measure.DURATION].held.count == LEAST_REFERENCE


def test_a_measure_is_ripe_with_its_first_thousand_values() -> None:
    cells = {Place(KEY, Measure.DURATION, n * SPAN_US): numbers(600) for n in range(4)}
    cells |= {Place(KEY, Measure.TTFT, SPAN_US): numbers(LEAST_REFERENCE)}
    cells |= {Place(KEY, Measure.SCORE, 0): numbers(5)}
    found = find_ripe(cells, 9 * SPAN_US)
    assert set(found) == {Measure.DURATION, Measure.TTFT}
    assert found[Measure.DURATION].held.count == 1200
    assert (found[Measure.DURATION].since_us, found[Measure.DURATION].until_us) == (0, 2 * SPAN_US)
    assert found[Measure.TTFT].until_us == 9 * SPAN_US


def test_a_window_is_compared_measure_by_measure() -> None:
    english = Held(words={"en": 950, "de": 50})
    reference = make_reference(
        duration=numbers(1000), answer_language=english, ttft=numbers(1000), score=numbers(1000)
    )
    cells = {
        Place(KEY, Measure.DURATION, NOW_US): numbers(300, 500),
        Place(KEY, Measure.ANSWER_LANGUAGE, NOW_US): Held(words={"en": 285, "de": 15}),
        Place(KEY, Measure.TTFT, NOW_US): numbers(199),
    }
    found = compare(reference, cells, NOW_US + SPAN_US)
    others = {place._replace(key=KEY._replace(alias="mail")): held for place, held in cells.items()}
    assert compare_all([reference], cells | others, NOW_US + SPAN_US) == [found]
    shifts = {moved.measure: moved for moved in found.shifts}
    assert set(shifts) == {Measure.DURATION, Measure.ANSWER_LANGUAGE}
    assert shifts[Measure.DURATION].shift.is_shifted
    assert not shifts[Measure.ANSWER_LANGUAGE].shift.is_shifted
    furthest = find_furthest(found.shifts, Subject)
    assert furthest is shifts[Measure.DURATION]
    answers = find_furthest(found.shifts, [Subject.ANSWER])
    assert answers is shifts[Measure.ANSWER_LANGUAGE]
    assert answers.shift.calibrated < NOTABLE
    assert find_furthest(found.shifts, [Subject.PROMPT]) is None


def test_values_of_the_reference_itself_are_no_window() -> None:
    reference = make_reference(until_us=NOW_US, duration=numbers(1000))
    before = {Place(KEY, Measure.DURATION, NOW_US - SPAN_US): numbers(1000)}
    assert compare(reference, before, NOW_US + SPAN_US).shifts == ()


def test_values_older_than_a_day_are_no_window() -> None:
    reference = make_reference(duration=numbers(1000))
    old = {Place(KEY, Measure.DURATION, NOW_US): numbers(1000)}
    assert compare(reference, old, NOW_US + LONGEST_WINDOW_US).shifts != ()
    assert compare(reference, old, NOW_US + LONGEST_WINDOW_US + SPAN_US).shifts == ()


@pytest.mark.parametrize("measure", list(Measure))
def test_every_measure_has_a_subject_and_a_kind(measure: Measure) -> None:
    assert measure.subject in Subject
    assert measure.is_number is not (
        measure.value in {"prompt_language", "answer_language", "finish_reason", "refusal"}
    )


@given(st.integers(0, 10**17))
def test_a_span_begins_at_or_before_its_times(at_us: int) -> None:
    assert 0 <= at_us - floor(at_us) < SPAN_US

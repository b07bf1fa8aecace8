"""The six questions: answered from facts, and openly where there are none; pages safe to read."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.governance.facts import FORMS, check_fact
from pilotage.governance.page import escape_markdown, place_marks, write_html, write_markdown
from pilotage.governance.questions import Answer, Known, answer_all, list_people, summarise
from pilotage.governance.types import Decision, DecisionKind, Fact, FactKind

HOSTILE = (
    "<script>alert(1)</script>\"'&<img src=x onerror=y> ![a](javascript:b) `c` **d** | #e\n# f"
)
EXAMPLES: dict[str, dict[str, Any]] = {
    "version": {"side": "after", "version_id": "ver_2", "version": "tiny@1.1.0"}
    | {"artifact_sha256": "ab" * 32},
    "approval": {
        "approval_id": "apr_1",
        "action": "registry.version.promote:production",
        "requested_by": "usr_asks",
        "requested_at_us": 1,
        "reason": "passed the June suite",
        "subject_hash": "cd",
        "needed": 1,
        "votes": [
            {"by": "usr_two", "role": "approver", "verdict": "approve"}
            | {"reason": "read it", "at_us": 2}
        ],
    },
    "intervention": {"what": "freeze_override", "reason": "outage 17", "by": "usr_ops"},
    "schedule": {"release_id": "sch_1", "requested_by": "usr_asks"}
    | {"requested_at_us": 1, "planned_for_us": 3},
    "gate": {
        "name": "latency",
        "state": "failed",
        "value": "120",
        "threshold": "100",
        "unit": "ms",
    },
    "evidence": {"evidence_id": "ev_1", "kind": "eval.accuracy", "value": "0.9", "n": 100}
    | {"low": "0.85", "high": "0.94", "hash": "ef"},
    "data_class": {"data_class": "restricted", "tenants": ["acme"]},
    "risk": {"text": "longer answers", "source": "card"},
    "plan": {"way": "canary", "steps": ["1 %", "10 %"]},
    "weights": {"weights": {"tiny@1.1.0": "10"}, "step": 2},
    "look": {"metric": "errors", "n": 315, "statistic": "E = 21", "bound": "20", "verdict": "hold"},
    "verdict": {"verdict": "promote", "reason": "all four metrics"},
    "alert_rule": {"name": "burn", "condition": "1h/5m > 14.4"},
    "rollback": {"to": "tiny@1.0.0", "command": "pilotage endpoints split chat tiny@1.0.0=100"}
    | {"cost_nano": 1_500_000_000, "cost_basis": "prices"},
    "cost": {"what": "rollout", "cost_nano": 2_000_000_000, "is_estimated": True},
    "outcome": {"state": "succeeded", "detail": "24 h quiet"},
    "note": {"text": "see the wiki"},
}
DECISION = Decision(
    id="dec_1",
    rev=1,
    seq=9,
    project_id="prj_1",
    kind=DecisionKind.SPLIT,
    subject_id="end_1",
    subject="chat",
    before={"split": {"tiny@1.0.0": "100"}},
    after={"split": {"tiny@1.1.0": "100"}},
    evidence=(),
    revisions=(8,),
    reason="faster",
    by="usr_asks",
    at_us=1_700_000_000_000_000,
)


def known(*facts: tuple[str, dict[str, Any]], **names: str) -> Known:
    made = [
        Fact(
            decision_id="dec_1",
            number=number,
            seq=9 + number,
            project_id="prj_1",
            kind=FactKind(kind),
            content=check_fact(kind, content)[1],
            by="usr_asks",
            at_us=DECISION.at_us + number,
        )
        for number, (kind, content) in enumerate(facts, 1)
    ]
    return Known(decision=DECISION, facts=made, names=names)


def texts(answers: tuple[Answer, ...]) -> list[str]:
    return [line for answer in answers for line in (*answer.lines, *answer.missing)]


def test_every_kind_of_fact_has_a_form_and_is_shown() -> None:
    assert set(EXAMPLES) == set(FORMS) == set(FactKind)
    without = set(texts(answer_all(known())))

    for kind, content in EXAMPLES.items():
        shown = set(texts(answer_all(known((kind, content))))) - without
        assert shown, f"nothing is said of a fact of kind {kind}"


def test_without_facts_every_question_says_what_is_not_known() -> None:
    answers = answer_all(known())

    assert [answer.question for answer in answers] == [
        "What is changing?",
        "Who approved it?",
        "How is it deployed?",
        "What could go wrong?",
        "How will we know?",
        "How do we roll back?",
    ]
    assert all(answer.missing for answer in answers)
    assert all(
        line.startswith("No fact recorded: ") for answer in answers for line in answer.missing
    )


def test_with_every_fact_nothing_is_missing() -> None:
    whole = known(*EXAMPLES.items(), usr_two="Ada")

    answers = answer_all(whole)

    assert [answer.missing for answer in answers] == [()] * 6
    said = "\n".join(texts(answers))
    for expected in (
        'split: {"tiny@1.0.0":"100"} -> {"tiny@1.1.0":"100"}',
        f"after: tiny@1.1.0 (ver_2) artifact sha256 {'ab' * 32}",
        "approve by Ada (usr_two) as approver, 1970-01-01 00:00:00 UTC: read it",
        "Gate latency failed: 120 ms, threshold 100 ms",
        "Back to tiny@1.0.0: pilotage endpoints split chat tiny@1.0.0=100",
        "Undoing costs 1.50 USD, from prices",
        "Look at errors, n = 315: E = 21 against 20, hold",
    ):
        assert expected in said
    assert list_people(whole.decision, whole.facts) == {"usr_asks", "usr_two", "usr_ops"}


def test_a_fact_that_imitates_a_gap_is_a_fact() -> None:
    imitating = known(("risk", {"text": "No fact recorded: anything"}))

    risk = answer_all(imitating)[3]

    assert "Risk: No fact recorded: anything" in risk.lines
    assert "Risk" not in "".join(risk.missing)


def test_a_summary_is_one_line() -> None:
    assert summarise(DECISION) == (
        'split chat: split: {"tiny@1.0.0":"100"} -> {"tiny@1.1.0":"100"}'
    )


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def poison(value: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    if isinstance(value, dict):
        closed = {"side", "way", "state", "verdict", "what", "data_class"}
        return {name: item if name in closed else poison(item) for name, item in value.items()}
    if isinstance(value, list):
        return [poison(item) for item in value]
    return f"{value} {HOSTILE}" if isinstance(value, str) else value


def test_whatever_people_wrote_is_text_on_the_page() -> None:
    poisoned = known(*((kind, poison(content)) for kind, content in EXAMPLES.items()))
    hostile = Known(
        decision=replace(DECISION, subject=HOSTILE, reason=HOSTILE, before=HOSTILE, by=HOSTILE),
        facts=poisoned.facts,
        names={"usr_asks": HOSTILE},
    )
    clean, found = Tags(), Tags()
    clean.feed(write_html(known(*EXAMPLES.items())))

    page = write_html(hostile)

    found.feed(page)
    assert found.tags == clean.tags
    assert found.attributes == clean.attributes
    assert not {"script", "img", "iframe", "link", "a"} & found.tags
    assert "default-src 'none'" in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20


def test_whatever_people_wrote_is_text_in_markdown() -> None:
    page = write_markdown(known(*((kind, poison(content)) for kind, content in EXAMPLES.items())))

    for line in page.splitlines():
        bare = re.sub(r"\\.", "", line)
        assert "<" not in bare
        assert "[" not in bare
        assert "`" not in bare
        assert not re.match(r"#+ f", bare)
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert len(headings) == 8


@given(st.text(max_size=60))
def test_markdown_is_escaped_to_one_line_and_back(text: str) -> None:
    escaped = escape_markdown(text)

    assert len(escaped.splitlines()) <= 1
    assert re.sub(r"\\(.)", r"\1", escaped) == " ".join(text.split())


@given(st.lists(st.tuples(st.integers(0, 2**50), st.text(max_size=5)), max_size=30))
def test_marks_stay_on_the_timeline_in_order(events: list[tuple[int, str]]) -> None:
    marks = place_marks(events)

    assert len(marks) == len(events)
    assert all(0 < mark.x < 320 for mark in marks)
    assert [mark.x for mark in marks] == sorted(mark.x for mark in marks)
    assert [mark.at_us for mark in marks] == sorted(at_us for at_us, _ in events)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_fact_has_the_form_of_its_kind_and_nothing_else(kind: str) -> None:
    content = EXAMPLES[kind]
    for wrong in (content | {"unknown": 1}, {}, dict.fromkeys(content, 7.5)):
        with pytest.raises(PilotageError) as refused:
            check_fact(kind, wrong)
        assert (refused.value.code, refused.value.param) == ("invalid_request", "content")


def test_there_are_no_other_kinds_of_fact() -> None:
    with pytest.raises(PilotageError) as refused:
        check_fact("rumour", {})

    assert refused.value.param == "kind"
    assert "alert_rule" in refused.value.hint

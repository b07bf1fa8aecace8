"""The page of a decision for people: HTML that needs nothing else, or Markdown.

Everything in it was written by somebody: the templates escape whatever they are given, and the HTML
forbids itself scripts and foreign content.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from pilotage.governance.questions import Known, answer_all, show_time, summarise
from pilotage.governance.types import FactKind

WIDTH = 640  # of the timeline, in its own units
MARGIN = 10
ROW = 16
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&#~$!])")
_MARKS = {FactKind.WEIGHTS, FactKind.LOOK, FactKind.VERDICT, FactKind.OUTCOME, FactKind.NOTE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened, and where on the timeline."""

    at_us: int
    label: str
    x: int
    y: int


def write_html(known: Known) -> str:
    """Return the page as HTML."""
    return _open_html().get_template("decision.html.j2").render(_fill(known))


def write_markdown(known: Known) -> str:
    """Return the page as Markdown."""
    return _open_markdown().get_template("decision.md.j2").render(_fill(known))


def place_marks(events: Sequence[tuple[int, str]]) -> list[Mark]:
    """Place events along the timeline by their time; those of one time stand beside each other."""
    ordered = sorted(events)
    if not ordered:
        return []
    first, span = ordered[0][0], max(1, ordered[-1][0] - ordered[0][0])
    room = WIDTH // 2 - 2 * MARGIN
    return [
        Mark(
            at_us=at_us,
            label=f"{show_time(at_us)} {label}",
            x=MARGIN + (at_us - first) * room // span,
            y=MARGIN + row * ROW,
        )
        for row, (at_us, label) in enumerate(ordered)
    ]


def escape_markdown(text: object) -> str:
    """Return text that means itself in Markdown, on one line."""
    line = " ".join(str(text).split())
    escaped = _MARKDOWN.sub(r"\\\1", line)
    return re.sub(r"^([-+=]|\d+[.)])", r"\\\1", escaped)


def _fill(known: Known) -> dict[str, object]:
    marks = place_marks(_list_events(known))
    return {
        "decision": known.decision,
        "made_by": known.name(known.decision.by),
        "made_at": show_time(known.decision.at_us),
        "summary": summarise(known.decision),
        "answers": answer_all(known),
        "marks": marks,
        "width": WIDTH,
        "height": 2 * MARGIN + ROW * max(0, len(marks) - 1),
        "facts": len(known.facts),
    }


def _list_events(known: Known) -> list[tuple[int, str]]:
    decision = known.decision
    events = [(decision.at_us, f"{decision.kind}: in force")]
    for fact in known.facts:
        if fact.kind is FactKind.APPROVAL:
            events.append((fact.content["requested_at_us"], "approval asked"))
            events += [(vote["at_us"], vote["verdict"]) for vote in fact.content["votes"]]
        elif fact.kind is FactKind.SCHEDULE:
            events.append((fact.content["requested_at_us"], "planned"))
        elif fact.kind in _MARKS:
            events.append((fact.at_us, fact.kind.value))
    return events


@cache
def _open_html() -> Environment:
    return Environment(
        loader=PackageLoader("pilotage.governance"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _open_markdown() -> Environment:
    return Environment(
        loader=PackageLoader("pilotage.governance"),
        autoescape=False,  # noqa: S701 - Markdown has an escaping of its own, on every value
        finalize=escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""The board of quality: drift, feedback and what guards and checks found."""

from pilotage.monitoring.dashboards.series import ALIAS, PROJECT, WINDOW, ask
from pilotage.monitoring.dashboards.types import Board, Kind, Panel, Row, Unit


def make_quality() -> Board:
    """Describe the board on which an engineer sees whether answers are still good."""
    return Board(
        name="quality",
        uid="pilotage-quality",
        title="Pilotage / Quality",
        help="How answers change and what is thought of them. What nobody measures is empty.",
        variables=(PROJECT, ALIAS, WINDOW),
        rows=(_DRIFT, make_answers(), _GUARDS),
        since="now-7d",
    )


def make_answers() -> Row:
    """Describe what people and scorers say of answers."""
    return Row(
        title="Answers",
        panels=(
            _lines("Feedback", "feedback_score", "Of 0 to 1, as callers gave it."),
            _lines("Accuracy", "accuracy", "Share of judged answers that were right."),
            _lines("Hallucinations", "hallucination_rate", "Share of judged answers."),
            _lines("Toxicity", "toxicity_score", "Mean of judged answers."),
            _lines("Validation passed", "validation_pass_rate", "Share of checked answers."),
            _lines("Refused calls", "refusal_rate", "Share of calls that a rule or limit refused."),
        ),
    )


def _lines(title: str, metric: str, text: str) -> Panel:
    return Panel(
        title=title,
        kind=Kind.LINES,
        unit=Unit.SHARE,
        queries=(ask(metric),),
        help=text,
        most=1,
    )


_DRIFT = Row(
    title="Drift",
    panels=(
        Panel(
            title="Shift of predictions",
            kind=Kind.LINES,
            queries=(ask("prediction_distribution_shift"),),
            width=12,
            bad=0.1,
            help="Population stability index against the reference of the model version.",
        ),
        Panel(
            title="Largest drift of any measure",
            kind=Kind.LINES,
            queries=(ask("drift_score"),),
            width=12,
        ),
    ),
)
_GUARDS = Row(
    title="Guards",
    panels=(
        Panel(
            title="What guards did",
            kind=Kind.LINES,
            queries=(ask("guard_events"),),
            width=24,
        ),
    ),
)

"""A part that is refused because it could never hold does never hold, whatever the values."""

from random import Random

import pytest

from pilotage.core.condition import checks
from pilotage.core.condition.evaluator import evaluate
from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import ConditionError, Labels, MetricRef

SERIES = ('cost{alias=""}', "cost", 'cost{tenant!=""}', "error_rate", "budget")
WORLDS = 30


def test_what_is_refused_holds_in_no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(7)
    texts = [write_truth(chance, depth=chance.choice((1, 2, 2, 3))) for _ in range(800)]
    refused = [part for text in texts if (part := find_never(text))]
    taken = [text for text in texts if not find_error(text)]
    for check in ("check_comparison", "check_junction"):
        monkeypatch.setattr(checks, check, lambda _: None)
    assert [part for part in refused if does_hold(chance, part)] == []
    assert len(refused) > 150
    assert sum(does_hold(chance, text) for text in taken) > len(taken) * 0.75


def write_truth(chance: Random, depth: int) -> str:
    if depth:
        word = chance.choice(("and", "and", "unless", "or"))
        left, right = (write_truth(chance, chance.randrange(depth)) for _ in range(2))
        return f"({left}) {word} ({right})"
    one = chance.choice(SERIES)
    if chance.random() < 0.1:
        return f"absent({one})"
    op = chance.choice((">", ">=", "<", "<=", "==", "!="))
    limit = chance.choice(("0", "1", "1", "2", f"{one} * 2"))
    return f"{limit} {op} {one}" if chance.random() < 0.3 else f"{one} {op} {limit}"


def find_error(text: str) -> ConditionError | None:
    try:
        parse(text)
    except ConditionError as error:
        return error
    return None


def find_never(text: str) -> str:
    """Return the part of a text that is refused because it could never hold, "" if none is."""
    error = find_error(text)
    return text[error.start : error.end] if error and "never hold" in error.detail else ""


def does_hold(chance: Random, text: str) -> bool:
    """Say whether a condition holds in one of many worlds."""
    condition = parse(text)
    worlds = ({ref: draw(chance, ref) for ref in condition.metrics} for _ in range(WORLDS))
    return any(evaluate(condition, world.__getitem__) for world in worlds)


def draw(chance: Random, ref: MetricRef) -> dict[Labels, float]:
    most = 1 if ref.name == "error_rate" else 3
    made: dict[Labels, float] = {}
    for _ in range(chance.randrange(4)):
        labels = tuple((label, chance.choice("ab")) for label in ref.by)
        made[labels] = chance.choice((0, 0.5, 1, 1.5, 2, 3)) % (most + 0.5)
    return made

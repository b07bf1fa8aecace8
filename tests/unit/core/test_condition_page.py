"""The reference page of conditions says what the language does."""

import re
from pathlib import Path

import pytest
import yaml

from pilotage.core.condition.parser import parse
from pilotage.core.condition.prometheus import to_prometheus
from pilotage.core.condition.types import ConditionError

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "conditions.md").read_text()
EXAMPLES, MISTAKE, NEVER = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES.splitlines())
def test_the_examples_are_conditions(text: str) -> None:
    assert parse(text).text == text


@pytest.mark.parametrize("text", NEVER.splitlines())
def test_the_examples_of_what_never_holds_are_refused(text: str) -> None:
    with pytest.raises(ConditionError):
        parse(text)


def test_the_mistake_is_told_as_it_is_shown() -> None:
    text, marks, told = MISTAKE.splitlines()
    with pytest.raises(ConditionError) as refused:
        parse(text)
    assert refused.value.point_at(text) == f"{text}\n{marks}"
    assert str(refused.value) == told


def test_the_rule_of_prometheus_is_what_is_exported() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)\n```", PAGE, re.DOTALL)
    condition = parse("error_rate > 1% for 2m")
    rule = to_prometheus("error_spike", condition, project="default", labels={}, annotations={})
    assert yaml.safe_load(shown) == {name: rule[name] for name in ("alert", "expr", "for")}


def test_words_in_running_text_are_conditions_too() -> None:
    shown = [text for text in re.findall(r"`([^`\n]+)`", PAGE) if re.search(r"\w .*[<>] ", text)]
    assert len(shown) >= 4
    for text in shown:
        assert parse(text).metrics

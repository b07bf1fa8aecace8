"""Alert rules and objectives in files: what is checked before anything happens."""

from typing import Any

import msgspec
import pytest

from pilotage.cli.objects.kinds import AlertRuleObject, Object, SloObject
from pilotage.core.errors import PilotageError

RULE = {"name": "slow", "condition": "p95_latency>2000ms for 300s"}
SLO = {"name": "chat", "objective": "99.9"}
WRONG: list[tuple[type[Object], dict[str, Any], str]] = [
    (AlertRuleObject, {"condition": "p95_latncy > 2s"}, "is no metric"),
    (AlertRuleObject, {"name": "Slow"}, "is not a name"),
    (AlertRuleObject, {"team": "The Team"}, "is not a name"),
    (AlertRuleObject, {"keep_firing_for": "soon"}, "keep_firing_for: not a duration"),
    (SloObject, {"objective": "100"}, "objective: 100 is no percentage"),
    (SloObject, {"objective": "NaN"}, "objective: NaN is no percentage"),
    (SloObject, {"indicator": "latency"}, "threshold"),
    (SloObject, {"threshold": "2s"}, "threshold"),
    (SloObject, {"endpoint": "no name"}, "is not a model name"),
    (SloObject, {"team": "The Team"}, "is not a name"),
    (SloObject, {"min_bad": "0"}, "min_bad"),
]


def read(kind: type[Object], **fields: object) -> Any:  # noqa: ANN401 - an object of any kind
    base = RULE if kind is AlertRuleObject else SLO
    made = msgspec.convert(base | fields, kind, strict=False)
    made.check()
    return made


@pytest.mark.parametrize(("kind", "fields", "said"), WRONG)
def test_what_cannot_be_is_refused(kind: type[Object], fields: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, PilotageError), match=said):
        read(kind, **fields)


def test_conditions_and_durations_are_compared_in_their_one_written_form() -> None:
    rule = read(AlertRuleObject, keep_firing_for="60s")
    slo = read(SloObject, indicator="ttft", threshold="1500ms", enabled="false")

    assert rule.body["condition"] == "p95_latency > 2s for 5m"
    assert (rule.body["keep_firing_for"], rule.body["severity"]) == ("1m", "warning")
    assert "metric_type" not in rule.body
    assert (slo.body["threshold"], slo.body["enabled"]) == ("1s500ms", False)
    assert read(AlertRuleObject, keep_firing_for="0s").body["keep_firing_for"] == ""

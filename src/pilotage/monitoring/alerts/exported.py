"""Rules as Prometheus reads them, from a file."""

import logging
from collections.abc import Sequence

from pilotage.core.condition.parser import parse
from pilotage.core.condition.prometheus import Rule, make_rule_file, to_prometheus
from pilotage.core.errors import PilotageError
from pilotage.monitoring.alerts.types import AlertRule

INTERVAL_US = 5_000_000
_LOG = logging.getLogger("pilotage.alerts")


def write_rules(rules: Sequence[AlertRule], project: str) -> dict[str, object]:
    """Return the content of a rule file: the enabled rules of a project, by its name.

    Names, labels and annotations are those that notices have, so that either way to be told says
    the same. Rules whose condition cannot be read any more are left out, and logged.
    """
    written = [_write(rule, project) for rule in rules if rule.is_enabled]
    group = [rule for rule in written if rule is not None]
    return make_rule_file({f"pilotage-{project}": group}, INTERVAL_US)


def _write(rule: AlertRule, project: str) -> Rule | None:
    try:
        condition = parse(rule.condition)
    except PilotageError as wrong:
        _LOG.error("the rule %s is not exported: %s", rule.name, wrong.detail)
        return None
    labels = rule.labels | {"severity": rule.severity.value}
    if rule.team:
        labels["team"] = rule.team
    annotations = {"summary": rule.summary or f"{rule.name}: {rule.condition}"}
    if rule.runbook:
        annotations["runbook_url"] = rule.runbook
    return to_prometheus(
        rule.name,
        condition,
        project=project,
        labels=labels,
        annotations=annotations,
        keep_firing_us=rule.keep_firing_us,
    )

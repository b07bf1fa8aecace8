"""A condition as an alerting rule of Prometheus, over the gauges of the control plane's /metrics.

Each metric is asked for by the labels that its series have in a condition and by no other, and
``max by`` leaves those alone: what a scrape adds (``instance``, ``job``) must not keep two
metrics apart. The values stay as they are, so a rule holds there when the condition holds here.
"""

from collections.abc import Mapping, Sequence

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.labels import list_labels
from pilotage.core.condition.types import (
    Absence,
    Condition,
    Many,
    Match,
    MetricRef,
    Negation,
    Node,
    Number,
    Pairing,
    Series,
)
from pilotage.core.condition.writer import write_decimal, write_sides
from pilotage.core.duration import format_duration

Rule = dict[str, str | dict[str, str]]


def to_prometheus(
    name: str,
    condition: Condition,
    *,
    project: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    keep_firing_us: int = 0,
) -> Rule:
    """Return a rule as Prometheus 2.42 and later read it from the YAML of a rule file.

    ``labels`` and ``annotations`` are plain texts: what looks like a template in them is none.
    """
    rule: Rule = {"alert": name, "expr": write_expr(condition, project)}
    if condition.for_us:
        rule["for"] = format_duration(condition.for_us)
    if keep_firing_us:
        rule["keep_firing_for"] = format_duration(keep_firing_us)
    rule["labels"] = {"project": project} | _escape(labels)
    rule["annotations"] = _escape(annotations)
    return rule


def make_rule_file(groups: Mapping[str, Sequence[Rule]], interval_us: int) -> dict[str, object]:
    """Return the content of a rule file: groups of rules by name, looked at once per interval."""
    interval = format_duration(interval_us)
    return {
        "groups": [
            {"name": name, "interval": interval, "rules": [*rules]}
            for name, rules in groups.items()
        ]
    }


def write_expr(condition: Condition, project: str) -> str:
    """Return what PromQL says for a condition of a project."""
    return _write(condition.root, project)


def _write(node: Node, project: str) -> str:
    match node:
        case Number():
            return write_decimal(node.value)
        case Series():
            return f"max by ({', '.join(node.ref.by)}) ({_write_selector(node.ref, project)})"
        case Negation():
            return f"-({_write(node.of, project)})"
        case Absence():
            kept = ", ".join(list_labels(node) or ())
            return f"max by ({kept}) (absent({_write_selector(node.ref, project)}))"
        case _:
            left, right = write_sides(node, lambda side: _write(side, project))
            return f"{left} {node.op}{_write_pairing(node.pairing)} {right}"


def _write_selector(ref: MetricRef, project: str) -> str:
    metric = METRICS[ref.name]
    matchers = [f'project="{project}"']
    if ref.window_us:
        matchers.append(f'window="{format_duration(ref.window_us)}"')
    # An equal sign beside another filter of its label would cost absent() that label.
    fixed = {each.label for each in ref.filters if each.match is Match.EQUAL}
    matchers += [
        f'{label}!=""' if label in ref.by else f'{label}=""'
        for label in metric.labels
        if label not in fixed
    ]
    matchers += [f'{each.label}{each.match}"{each.value}"' for each in ref.filters]
    return f"{metric.gauge}{{{', '.join(dict.fromkeys(matchers))}}}"


def _write_pairing(pairing: Pairing | None) -> str:
    if pairing is None or pairing.on is None:
        return ""
    group = f" group_{pairing.many}()" if pairing.many is not Many.NEITHER else ""
    return f" on({', '.join(pairing.on)}){group}"


def _escape(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text.replace("{{", '{{"{{"}}') for name, text in texts.items()}

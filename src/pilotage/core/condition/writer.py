"""A condition in its one written form: the same for all texts that say the same."""

from collections.abc import Callable
from decimal import Decimal

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.types import (
    Absence,
    Arithmetic,
    Comparison,
    Condition,
    Junction,
    MetricRef,
    Negation,
    Node,
    Number,
    Series,
)
from pilotage.core.condition.units import (
    BYTES,
    RATIO,
    REQUESTS,
    REQUESTS_PER_SECOND,
    SECONDS,
    TOKENS,
    TOKENS_PER_SECOND,
    USD,
    Unit,
)
from pilotage.core.duration import format_duration

_SUFFIXES: dict[Unit, str] = {
    SECONDS: "s",
    USD: " USD",
    BYTES: "B",
    REQUESTS: " req",
    TOKENS: " tokens",
    REQUESTS_PER_SECOND: " req/s",
    TOKENS_PER_SECOND: " tokens/s",
}
# Stronger operators are read first, equally strong ones from the left; as in PromQL.
_STRENGTHS = {
    "or": 1,
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys((">", ">=", "<", "<=", "==", "!="), 3),
    **dict.fromkeys("+-", 4),
    **dict.fromkeys("*/", 5),
}


def write_condition(condition: Condition) -> str:
    """Write a condition such that :func:`parse` reads the same from it."""
    held = f" for {format_duration(condition.for_us)}" if condition.for_us else ""
    return write_node(condition.root) + held


def write_node(node: Node) -> str:
    """Write a part of a condition; parts that say the same are the same text."""
    match node:
        case Number():
            return _write_number(node.value, node.unit)
        case Series():
            return write_ref(node.ref)
        case Negation():
            inner = write_node(node.of)
            return f"-({inner})" if isinstance(node.of, Arithmetic) else f"-{inner}"
        case Absence():
            return f"absent({write_ref(node.ref)})"
        case _:
            left, right = write_sides(node, write_node)
            return f"{left} {node.op} {right}"


def write_sides(
    node: Arithmetic | Comparison | Junction, write: Callable[[Node], str]
) -> tuple[str, str]:
    """Return the sides of an operator, in brackets where they would be read otherwise."""
    return _wrap(node.left, node, write), _wrap(node.right, node, write)


def write_ref(ref: MetricRef) -> str:
    """Write what is asked for of a metric, with its window only where it is not the usual one."""
    filters = ", ".join(f'{each.label}{each.match}"{each.value}"' for each in ref.filters)
    is_usual = ref.window_us == METRICS[ref.name].window_us
    window = "" if is_usual else f"[{format_duration(ref.window_us)}]"
    return ref.name + (f"{{{filters}}}" if filters else "") + window


def write_decimal(value: Decimal) -> str:
    """Write a number in plain digits: no exponent, no zeros at its end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _write_number(value: Decimal, unit: Unit | None) -> str:
    if unit == RATIO:
        return f"{write_decimal(value * 100)}%"
    return write_decimal(value) + (_SUFFIXES[unit] if unit is not None else "")


def _wrap(side: Node, of: Arithmetic | Comparison | Junction, write: Callable[[Node], str]) -> str:
    text = write(side)
    if not isinstance(side, Arithmetic | Comparison | Junction):
        return text
    inner, outer = _STRENGTHS[side.op], _STRENGTHS[of.op]
    is_weaker = inner < outer or (inner == outer and side is of.right)
    return f"({text})" if is_weaker else text

"""Which series of two sides belong together, told from their labels before there are values."""

from pilotage.core.condition.types import (
    Absence,
    Arithmetic,
    Comparison,
    ConditionError,
    Junction,
    Many,
    Match,
    MetricRef,
    Negation,
    Node,
    Number,
    Pairing,
    Quantity,
    Series,
    Span,
)


def is_constant(node: Node) -> bool:
    """Say whether a quantity has one value and no series."""
    match node:
        case Number():
            return True
        case Negation():
            return is_constant(node.of)
        case Arithmetic():
            return is_constant(node.left) and is_constant(node.right)
        case _:
            return False


def list_labels(node: Node) -> tuple[str, ...] | None:
    """Return the labels that each series of a node has; None where not all have the same."""
    match node:
        case Number():
            return ()
        case Series():
            return node.ref.by
        case Negation():
            return list_labels(node.of)
        case Absence():
            return tuple(sorted(find_fixed(node)))
        case Junction(op="or"):
            left, right = list_labels(node.left), list_labels(node.right)
            return left if left == right else None
        case Junction():
            return list_labels(node.left)
        case _:
            return _list_joined(node)


def find_fixed(node: Node) -> dict[str, str]:
    """Return the labels that are the same for all series of a node, with their values."""
    match node:
        case Number():
            return {}
        case Series() | Absence():
            return _find_fixed_by(node.ref)
        case Negation():
            return find_fixed(node.of)
        case Junction(op="or"):
            left, right = find_fixed(node.left), find_fixed(node.right)
            return dict(left.items() & right.items())
        case Junction():
            return find_fixed(node.left)
        case _:
            fixed = find_fixed(node.left) | find_fixed(node.right)
            return {name: fixed[name] for name in list_labels(node) or () if name in fixed}


def pair_quantities(left: Quantity, right: Quantity, span: Span) -> Pairing | None:
    """Return which series are reckoned with which, None where one side is constant.

    A label that both sides fix, each to a value of its own, tells them apart and does not pair
    them: ``p95_latency{arm="new"} > p95_latency{arm="old"}``. A side with fewer labels than the
    other belongs to several series of it. Raises ConditionError where neither has all labels of
    the other.
    """
    if is_constant(left) or is_constant(right):
        return None
    ours, theirs = list_labels(left) or (), list_labels(right) or ()
    shared = _list_shared(left, right)
    apart = _list_apart(left, right)
    more, fewer = set(ours) - set(shared) - apart, set(theirs) - set(shared) - apart
    if more and fewer:
        raise ConditionError(
            f"the series on the left have the labels {_name(ours)}, those on the right "
            f"{_name(theirs)}, so it is not clear which belong together.",
            span,
            "Filter both sides by the same labels, or take one side together with, for example, "
            f'{min(fewer)}="".',
        )
    if more or fewer:
        return Pairing(shared, Many.LEFT if more else Many.RIGHT)
    return Pairing(None if ours == theirs == shared else shared)


def pair_truths(left: Node, right: Node, op: str, span: Span) -> Pairing:
    """Return which series of two truths belong together; raise ConditionError if that is unclear.

    ``or`` takes the series of both sides as they are; the others look at the labels that both have.
    """
    if op == "or":
        return Pairing(None)
    ours, theirs = list_labels(left), list_labels(right)
    if ours is None or theirs is None:
        raise ConditionError(
            f"the sides of an or have different labels, so it is not clear what {op} looks at.",
            span,
            f"Write the {op} once for each side of the or.",
        )
    shared = _list_shared(left, right)
    return Pairing(None if ours == theirs == shared else shared)


def _list_joined(node: Arithmetic | Comparison) -> tuple[str, ...] | None:
    if node.pairing is None:
        return list_labels(node.right if is_constant(node.left) else node.left)
    if node.pairing.many is Many.RIGHT:
        return list_labels(node.right)
    if node.pairing.many is Many.LEFT or node.pairing.on is None:
        return list_labels(node.left)
    return node.pairing.on


def _find_fixed_by(ref: MetricRef) -> dict[str, str]:
    return {
        each.label: each.value for each in ref.filters if each.match is Match.EQUAL and each.value
    }


def _list_apart(left: Node, right: Node) -> set[str]:
    ours, theirs = find_fixed(left), find_fixed(right)
    return {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}


def _list_shared(left: Node, right: Node) -> tuple[str, ...]:
    ours, theirs = list_labels(left) or (), list_labels(right) or ()
    return tuple(sorted((set(ours) & set(theirs)) - _list_apart(left, right)))


def _name(labels: tuple[str, ...]) -> str:
    return " and ".join(labels) or "none"

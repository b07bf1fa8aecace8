"""Two versions side by side: what differs, whether it is more than noise, and a sentence of it.

A metric that one version lacks is missing, never zero. Shares of change are relative to the first
version: 234.5 to 175.9 ms is 25 % faster (a quarter of the time is gone), an accuracy of 0.92 to
0.966 is 5 % more accurate, which is 4.6 percentage points.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

from pilotage.registry.metrics import RATIO, Direction, Family, find_meaning, find_unit, in_unit
from pilotage.registry.types import Evidence

MOST_NAMED = 5  # metrics that a sentence names
_WHOLE_FROM = 10  # percent; below, tenths are said
_MOST_SAID = 1_000_000  # percent
_FARTHEST = 300  # powers of ten that a share of change may have: what a double can hold


class Verdict(StrEnum):
    """What the second version is in a metric, compared with the first."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    NOISE = "within_noise"
    CHANGED = "changed"  # nobody knows which way is better
    MISSING = "missing"  # one of them was not measured
    UNLIKE = "units_differ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric of two versions, ``b`` in the unit of ``a``.

    ``difference`` is b - a with its 95 % interval ``low`` to ``high`` where both have one;
    ``percent`` is it relative to a (None if a is nothing beside it), ``points`` it in percentage
    points where both are shares. What was given without a unit is in the metric's usual one.
    """

    name: str
    kind: str
    unit: str
    direction: Direction
    family: Family
    verdict: Verdict
    a: Decimal | None
    b: Decimal | None
    difference: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    percent: Decimal | None = None
    points: Decimal | None = None
    n_a: int | None = None
    n_b: int | None = None
    is_same_data: bool | None = None


def compare(
    a: Iterable[Evidence],
    b: Iterable[Evidence],
    kind: str,
    given: Mapping[str, Direction] | None = None,
) -> list[Difference]:
    """Return the metrics of a kind that either version has, by name."""
    of_a = {item.subject: item for item in a if item.kind == kind}
    of_b = {item.subject: item for item in b if item.kind == kind}
    return [
        _compare_one(of_a.get(name), of_b.get(name), (of_b | of_a)[name], given or {})
        for name in sorted(of_a.keys() | of_b.keys())
    ]


def recommend(differences: Sequence[Difference]) -> str:
    """Say in a sentence what version_b is; what the sentence leaves open stands behind it."""
    better = _list_phrases(differences, Verdict.BETTER)
    worse = _list_phrases(differences, Verdict.WORSE)
    same = _names(differences, Verdict.EQUAL) + _names(differences, Verdict.NOISE)
    changed = _names(differences, Verdict.CHANGED)
    if better or worse:
        what = ", but ".join(_join(phrases) for phrases in (better, worse) if phrases)
    elif same:
        what = f"not measurably different from version_a in {_join(same)}"
    elif changed:
        what = f"different from version_a in {_join(changed)}: nobody knows which way is better"
    else:
        what = "not comparable with version_a: no metric is known of both"
    is_said = {Verdict.CHANGED: not (better or worse or same)}
    is_said |= dict.fromkeys((Verdict.EQUAL, Verdict.NOISE), not (better or worse))
    remarks = _list_remarks(differences, is_said)
    return "; ".join([f"version_b is {what}", *remarks])


def _compare_one(
    a: Evidence | None, b: Evidence | None, named: Evidence, given: Mapping[str, Direction]
) -> Difference:
    meaning = find_meaning(named.subject, named.unit, named.kind, given)
    missing = Difference(
        name=named.subject,
        kind=named.kind,
        unit=find_unit(named.subject, named.unit, named.kind),
        direction=meaning.direction,
        family=meaning.family,
        verdict=Verdict.MISSING,
        a=a.value if a else None,
        b=b.value if b else None,
        n_a=a.n if a else None,
        n_b=b.n if b else None,
    )
    if a is None or b is None or a.value is None or b.value is None:
        return missing
    there = _in_unit_of(a, b)
    if there is None or there.value is None:
        return replace(missing, verdict=Verdict.UNLIKE)
    difference = there.value - a.value
    low, high = _find_interval(a, there)
    return replace(
        missing,
        b=there.value,
        verdict=_judge(difference, low, high, meaning.direction),
        difference=difference,
        low=low,
        high=high,
        percent=_find_percent(a.value, difference),
        points=_find_points(missing.unit, difference),
        is_same_data=_is_same_data(a, b),
    )


def _in_unit_of(a: Evidence, b: Evidence) -> Evidence | None:
    unit, own = (find_unit(item.subject, item.unit, item.kind) for item in (a, b))
    value, low, high = (
        None if number is None else in_unit(number, own, unit)
        for number in (b.value, b.low, b.high)
    )
    return None if value is None else replace(b, unit=a.unit, value=value, low=low, high=high)


def _find_interval(a: Evidence, b: Evidence) -> tuple[Decimal | None, Decimal | None]:
    """Return the interval of b - a from the intervals of both, whatever shape these have.

    The method of variance estimates recovery: G. Y. Zou, A. Donner, Statistics in Medicine 27
    (2008) 1693, equation 2: b - a - sqrt((b - low_b)^2 + (high_a - a)^2), and so on. It takes the
    two for independent, which is wide of the truth for runs on the same cases.
    """
    numbers = (a.value, a.low, a.high, b.value, b.low, b.high)
    if any(number is None for number in numbers):
        return None, None
    value_a, low_a, high_a, value_b, low_b, high_b = (number or Decimal(0) for number in numbers)
    middle = value_b - value_a
    low = middle - ((value_b - low_b) ** 2 + (high_a - value_a) ** 2).sqrt()
    high = middle + ((high_b - value_b) ** 2 + (value_a - low_a) ** 2).sqrt()
    return low, high


def _judge(
    difference: Decimal, low: Decimal | None, high: Decimal | None, direction: Direction
) -> Verdict:
    if difference == 0:
        return Verdict.EQUAL
    if low is not None and high is not None and low <= 0 <= high:
        return Verdict.NOISE
    if direction is Direction.UNKNOWN:
        return Verdict.CHANGED
    is_better = (difference > 0) == (direction is Direction.HIGHER)
    return Verdict.BETTER if is_better else Verdict.WORSE


def _find_percent(value: Decimal, difference: Decimal) -> Decimal | None:
    percent = difference / abs(value) * 100 if value else None
    return percent if percent is None or percent.adjusted() < _FARTHEST else None


def _find_points(unit: str, difference: Decimal) -> Decimal | None:
    return {"%": difference, RATIO: difference * 100}.get(unit)


def _is_same_data(a: Evidence, b: Evidence) -> bool | None:
    if not a.dataset_version_id or not b.dataset_version_id:
        return None
    return a.dataset_version_id == b.dataset_version_id


_WORDS = {
    (Family.ACCURACY, Verdict.BETTER): "more accurate",
    (Family.ACCURACY, Verdict.WORSE): "less accurate",
    (Family.TIME, Verdict.BETTER): "faster",
    (Family.TIME, Verdict.WORSE): "slower",
    (Family.COST, Verdict.BETTER): "cheaper",
    (Family.COST, Verdict.WORSE): "more expensive",
}
_REMARKS = {
    Verdict.EQUAL: "equal",
    Verdict.NOISE: "within noise",
    Verdict.CHANGED: "changed",
}
_SPOKEN_FIRST = ("accuracy", "latency_p95", "latency_p50", "cost_per_1m_tokens")


def _list_phrases(differences: Sequence[Difference], verdict: Verdict) -> list[str]:
    """Return a phrase for each family, of the metric that people ask for first, and each other."""
    phrases = []
    said: set[Family] = set()
    for item in sorted(differences, key=_rank):
        if item.verdict is not verdict or item.family in said:
            continue
        if item.family is not Family.OTHER:
            said.add(item.family)
        is_divided = any(
            other.family is item.family is not Family.OTHER
            and {other.verdict, verdict} == {Verdict.BETTER, Verdict.WORSE}
            for other in differences
        )
        phrases.append(_phrase(item, has_name=is_divided))
    return phrases


def _rank(item: Difference) -> tuple[int, int, str]:
    spoken = _SPOKEN_FIRST.index(item.name) if item.name in _SPOKEN_FIRST else len(_SPOKEN_FIRST)
    return list(Family).index(item.family), spoken, item.name


def _phrase(item: Difference, *, has_name: bool) -> str:
    share = "" if item.percent is None else f"{_percent(abs(item.percent))} "
    words = _WORDS.get((item.family, item.verdict))
    if words is None:
        return f"{share}{item.verdict.value} in {item.name}"
    return f"{share}{words} ({item.name})" if has_name else f"{share}{words}"


def _percent(share: Decimal) -> str:
    """Write whole percents from 10 on, tenths below: 25%, 4.3%, 5%."""
    if share > _MOST_SAID:
        return f"more than {_MOST_SAID}%"
    tenths = share.quantize(Decimal("0.1"), ROUND_HALF_UP)
    if tenths == 0:
        return "less than 0.1%"
    whole = share.quantize(Decimal(1), ROUND_HALF_UP)
    return f"{whole if tenths >= _WHOLE_FROM or tenths == whole else tenths}%"


def _list_remarks(differences: Sequence[Difference], is_said: Mapping[Verdict, bool]) -> list[str]:
    """Return what stands behind the sentence, but for the verdicts that it names itself."""
    missing = [item for item in differences if item.verdict is Verdict.MISSING]
    remarks = {
        text: [] if is_said[verdict] else _names(differences, verdict)
        for verdict, text in _REMARKS.items()
    } | {
        "missing for version_a": [item.name for item in missing if item.a is None],
        "missing for version_b": [item.name for item in missing if item.b is None],
        "measured on different data": [
            item.name for item in differences if item.is_same_data is False
        ],
        "units differ": _names(differences, Verdict.UNLIKE),
    }
    return [f"{text}: {_join(names)}" for text, names in remarks.items() if names]


def _names(differences: Sequence[Difference], verdict: Verdict) -> list[str]:
    return [item.name for item in differences if item.verdict is verdict]


def _join(words: Sequence[str]) -> str:
    if len(words) > MOST_NAMED:
        words = [*words[: MOST_NAMED - 1], f"{len(words) - MOST_NAMED + 1} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

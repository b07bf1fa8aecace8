"""Random conditions that make sense, and random values of what they ask for."""

from dataclasses import dataclass, field
from random import Random

from pilotage.core.condition.catalogue import METRICS, Metric
from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import Condition, ConditionError, Labels, Match, MetricRef
from pilotage.core.condition.units import RATIO, SECONDS, USD, Unit

NAMES = {
    "alias": ("chat", "code", "mail"),
    "tenant": ("acme", "beta"),
    "arm": ("new", "old"),
    "version": ("ver_1", "ver_2"),
    "model": ("small", "large"),
    "feature": ("search", "faq"),
    "measure": ("length", "language"),
    "slo": ("fast", "right"),
}
# Few, so that values meet thresholds, and each other.
_AMOUNTS: dict[Unit, tuple[float, ...]] = {
    SECONDS: (0.0, 0.1, 0.5, 1.0, 2.0, 3.5),
    RATIO: (0.0, 0.005, 0.01, 0.1, 0.5, 1.0),
    USD: (0.0, 0.1, 1.0, 10.0, 99.5),
}
_OTHER_AMOUNTS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0)
_NUMBERS: dict[Unit, tuple[str, ...]] = {
    SECONDS: ("100ms", "0.5s", "1s", "2s", "3500 ms"),
    RATIO: ("0.5%", "1%", "0.1", "50 %", "1.5"),
    USD: ("$0.1", "1 USD", "10", "99.5 $"),
}
_OTHER_NUMBERS = ("0", "0.5", "1", "2", "5", "10", "100")
_FACTORS = ("2", "0.5", "1.2", "150%", "0")
_WINDOWS = ("", "", "", "[5m]", "[1h]")
_FOR = ("", "", " for 15s", " for 20s", " for 45s", " for 1m", " for 1m30s")
_COMPARATORS = (">", ">", ">=", "<", "<=", "==", "!=")
_UNITS = tuple(dict.fromkeys(metric.unit for metric in METRICS.values()))


@dataclass
class Writer:
    """Writes texts, most of which are conditions, from a source of chance."""

    chance: Random
    refused: int = field(default=0)

    def make(self) -> Condition:
        """Return a condition; count those that were refused on the way."""
        while True:
            text = self._truth(self.chance.choice((0, 0, 1, 1, 2))) + self.chance.choice(_FOR)
            try:
                return parse(text)
            except ConditionError:
                self.refused += 1

    def _truth(self, depth: int) -> str:
        if depth:
            word = self.chance.choice(("and", "and", "or", "unless"))
            left, right = self._truth(depth - 1), self._truth(self.chance.randrange(depth))
            text = f"{left} {word} {right}"
            return f"({text})" if self.chance.random() < 0.3 else text
        if self.chance.random() < 0.1:
            return f"absent({self._series(self.chance.choice(_UNITS))})"
        if self.chance.random() < 0.1:
            return self._contrast()
        unit = self.chance.choice(_UNITS)
        left, right = self._quantity(unit, 2), self._quantity(unit, 1)
        return f"{left} {self.chance.choice(_COMPARATORS)} {right}"

    def _contrast(self) -> str:
        """Return a comparison of two values of one label."""
        metric = self.chance.choice([each for each in METRICS.values() if each.labels])
        label = self.chance.choice(metric.labels)
        one, other = self.chance.sample(NAMES[label], 2)
        factor = self.chance.choice(_FACTORS)
        comparator = self.chance.choice(_COMPARATORS)
        sides = (f'{metric.name}{{{label}="{name}"}}' for name in (one, other))
        return f"{next(sides)} {comparator} {factor} * {next(sides)}"

    def _quantity(self, unit: Unit, depth: int) -> str:
        kind = self.chance.random() if depth else self.chance.random() / 2
        if kind < 0.3:
            return self._series(unit)
        if kind < 0.5:
            return self.chance.choice(_NUMBERS.get(unit, _OTHER_NUMBERS))
        inner = self._quantity(unit, depth - 1)
        if kind < 0.65:
            return f"({inner}) {self.chance.choice('*/')} {self.chance.choice(_FACTORS)}"
        if kind < 0.75:
            return f"{self.chance.choice(_FACTORS)} * {inner}"
        if kind < 0.8:
            return f"-{inner}"
        if kind < 0.9 and unit == RATIO:
            other = self.chance.choice(_UNITS)
            return f"{self._series(other)} / {self._series(other)}"
        return f"({inner} {self.chance.choice('+-')} {self._quantity(unit, depth - 1)})"

    def _series(self, unit: Unit) -> str:
        name = self.chance.choice([each.name for each in METRICS.values() if each.unit == unit])
        metric = METRICS[name]
        window = self.chance.choice(_WINDOWS) if metric.window_us else ""
        return f"{name}{self._filters(metric)}{window}"

    def _filters(self, metric: Metric) -> str:
        labels = [label for label in metric.labels if self.chance.random() < 0.25]
        filters = ", ".join(f"{label}{self._filter(label)}" for label in labels)
        return f"{{{filters}}}" if filters else ""

    def _filter(self, label: str) -> str:
        one, other = self.chance.sample(NAMES[label], 2)
        return self.chance.choice(
            (
                f'="{one}"',
                f'="{one}"',
                '=""',
                '!=""',
                f'!="{one}"',
                f'=~"{one}|{other}"',
                f'=~"{one[0]}.*"',
                f'=~".+{one[-1]}|"',
                f'!~".{one[1:]}"',
            )
        )


def draw_series(chance: Random, ref: MetricRef) -> list[Labels]:
    """Return labels of series of a metric: those a reference is about, and some beside them."""
    labels = METRICS[ref.name].labels
    fixed = {each.label: each.value for each in ref.filters if each.match is Match.EQUAL}
    beside = tuple(label for label in labels if chance.random() < 0.3)
    made: set[Labels] = {()} if chance.random() < 0.5 else set()
    for by in (ref.by, ref.by, ref.by, tuple(sorted(beside))):
        likely = fixed if chance.random() < 0.7 else {}
        made.add(tuple((label, likely.get(label) or chance.choice(NAMES[label])) for label in by))
    return sorted(made)


def draw_values(chance: Random, metric: Metric, steps: int) -> list[float | None]:
    """Return a value for each step, None where there is none; most stay for a while."""
    amounts = _AMOUNTS.get(metric.unit, _OTHER_AMOUNTS)
    value: float | None = chance.choice(amounts)
    values = []
    for _ in range(steps):
        if chance.random() < 0.35:
            value = None if chance.random() < 0.2 else chance.choice(amounts)
        values.append(value)
    return values

"""A strict reader of Prometheus' text format 0.0.4, for pages that others must be able to read.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import math
import re
from collections.abc import Mapping

_HELP = re.compile(r"# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\\n]|\\\\|\\n)*)")
_TYPE = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
_SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_PARTS = {"_bucket", "_sum", "_count"}

Labels = frozenset[tuple[str, str]]


class Page:
    """What a page says; reading it fails on anything that the format does not allow."""

    def __init__(self, text: str) -> None:
        assert text.endswith("\n")
        self.kinds: dict[str, str] = {}
        self.series: dict[tuple[str, Labels], float] = {}
        self._current = ""
        self._known: set[tuple[str, Labels]] = set()
        lines = iter(text[:-1].split("\n"))
        for line in lines:
            if line.startswith("#"):
                self._read_heading(line, next(lines))
            else:
                self._read_series(line)
        for name, kind in self.kinds.items():
            if kind == "histogram":
                self._check_histogram(name)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have these labels."""
        wanted = set(labels.items())
        return sum(
            value for (each, own), value in self.series.items() if each == name and wanted <= own
        )

    def values(self, name: str, label: str) -> set[str]:
        """Return the values that a label of a metric has."""
        return {dict(own)[label] for each, own in self.series if each == name}

    def _read_heading(self, first: str, second: str) -> None:
        said, typed = _HELP.fullmatch(first), _TYPE.fullmatch(second)
        assert said, first
        assert typed, second
        assert said[1] == typed[1]
        assert said[1] not in self.kinds, f"a second heading of {said[1]}"
        self.kinds[said[1]] = typed[2]
        self._current = said[1]

    def _read_series(self, line: str) -> None:
        match = _SERIES.fullmatch(line)
        assert match, line
        name, inside, number = match.groups(default="")
        labels = _LABEL.findall(inside)
        assert ",".join(f'{key}="{value}"' for key, value in labels) == inside, line
        assert len(dict(labels)) == len(labels), f"a label twice: {line}"
        suffix = name.removeprefix(self._current)
        is_histogram = self.kinds[self._current] == "histogram"
        assert suffix in _PARTS if is_histogram else name == self._current, f"out of place: {line}"
        meant = (name, frozenset(pair for pair in labels if pair[1]))  # an empty label is none
        assert meant not in self._known, f"a series twice: {line}"
        self._known.add(meant)
        self.series[name, frozenset(labels)] = float(number)

    def _check_histogram(self, name: str) -> None:
        buckets: dict[Labels, dict[float, float]] = {}
        for (each, own), value in self.series.items():
            if each == f"{name}_bucket":
                bounds: Mapping[str, str] = dict(own)
                rest = frozenset(pair for pair in own if pair[0] != "le")
                buckets.setdefault(rest, {})[float(bounds["le"])] = value
        for rest, counts in buckets.items():
            ordered = [counts[bound] for bound in sorted(counts)]
            assert ordered == sorted(ordered), f"{name}: buckets that are not cumulative"
            assert counts[math.inf] == self.series[f"{name}_count", rest]
            assert (f"{name}_sum", rest) in self.series

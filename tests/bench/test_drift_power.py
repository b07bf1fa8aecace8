"""How often drift is seen where there is none, and how often where there is some.

The table that is printed is the one in docs/explanation/drift.md.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from pilotage.core.drift import (
    choose_bounds,
    choose_words,
    compare_counts,
    count_bins,
    count_words,
)
from pilotage.core.sketch import SCALE, Sketch

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
SIZES = (200, 300, 500, 1000, 5000)
REFERENCES = (1000, 10_000)
WINDOWS = 25  # that each reference is compared with
ALLOWED = 0.002

NUMBERS: dict[str, Draw] = {
    "latency, log-normal 0.8": lambda rng, n: rng.lognormal(13, 0.8, n),
    "latency, Pareto 1.5": lambda rng, n: (rng.pareto(1.5, n) + 1) * 1e5,
    "length, geometric": lambda rng, n: rng.geometric(1 / 60, n).astype(float),
    "length, cut at 256": lambda rng, n: np.minimum(rng.geometric(1 / 200, n), 256.0),
    "length, 3 % empty": lambda rng, n: np.where(rng.random(n) < 0.03, 0, rng.lognormal(5, 1, n)),
    "small counts, Poisson 3": lambda rng, n: rng.poisson(3, n).astype(float),
    "scores of five values": lambda rng, n: rng.choice(
        [0.0, 2.5e5, 5e5, 7.5e5, 1e6], n, p=[0.03, 0.02, 0.05, 0.2, 0.7]
    ),
}
ZIPF = 1 / np.arange(1, 40)
WORDS: dict[str, list[float]] = {
    "six languages": [0.8, 0.1, 0.05, 0.03, 0.01, 0.01],
    "39 topics, Zipf": list(ZIPF / ZIPF.sum()),
    "16 topics, equal": [1 / 16] * 16,
    "refusals, 1 %": [0.99, 0.01],
}
SHIFTS: dict[str, tuple[Draw, Draw]] = {
    f"length + {share} sd": (
        lambda rng, n: rng.lognormal(5, 1, n),
        lambda rng, n, share=share: rng.lognormal(5 + share, 1, n),  # type: ignore[misc]
    )
    for share in (0.2, 0.3, 0.5, 1.0)
}
OTHER_WORDS: dict[str, tuple[list[float], list[float]]] = {
    "refusals 1 -> 5 %": ([0.99, 0.01], [0.95, 0.05]),
    "refusals 1 -> 10 %": ([0.99, 0.01], [0.9, 0.1]),
    "refusals 5 -> 20 %": ([0.95, 0.05], [0.8, 0.2]),
    "a tenth in a new language": ([0.9, 0.1, 0], [0.81, 0.09, 0.1]),
}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_false_alarms_are_two_in_a_thousand_at_most_at_every_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(20261121)
    lines = [_head("no drift: false alarms, %")]
    worst = 0.0
    for name in [*NUMBERS, *WORDS]:
        for m in REFERENCES:
            found = []
            for n in SIZES:
                often = 400 if n <= 300 else 60  # where it happens at all
                if name in NUMBERS:
                    same = NUMBERS[name]
                    found.append(_share_of_numbers(rng, same, same, m, n, often))
                else:
                    found.append(_share_of_words(rng, WORDS[name], WORDS[name], m, n, often))
            worst = max(worst, *found)
            lines.append(_row(f"{name}, m = {m}", found, 2))
    lines.append(_head("drift: found, %, m = 1000"))
    power: dict[str, list[float]] = {}
    for name, (before, after) in SHIFTS.items():
        power[name] = [_share_of_numbers(rng, before, after, 1000, n, 20) for n in SIZES]
    for name, (was, now) in OTHER_WORDS.items():
        power[name] = [_share_of_words(rng, was, now, 1000, n, 20) for n in SIZES]
    lines += [_row(name, found, 0) for name, found in power.items()]
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert worst <= ALLOWED
    assert power["length + 0.5 sd"][-1] >= 0.99
    assert power["length + 1.0 sd"][0] >= 0.99


def _share_of_numbers(
    rng: np.random.Generator, before: Draw, after: Draw, m: int, n: int, references: int
) -> float:
    """Return the share of windows of a world that are a shift from a reference of another."""
    alarms = 0
    for _ in range(references):
        reference = _sketch(before(rng, m))
        bounds = choose_bounds(reference)
        expected = count_bins(reference, bounds)
        for observed in _count_windows(after(rng, n * WINDOWS), bounds):
            alarms += compare_counts(expected, observed).is_shifted
    return alarms / (references * WINDOWS)


def _share_of_words(
    rng: np.random.Generator,
    before: list[float],
    after: list[float],
    m: int,
    n: int,
    references: int,
) -> float:
    alarms = 0
    for _ in range(references):
        reference = _name(rng.multinomial(m, before))
        words = choose_words(reference, min(n, m))
        expected = count_words(reference, words)
        for _ in range(WINDOWS):
            observed = count_words(_name(rng.multinomial(n, after)), words)
            alarms += compare_counts(expected, observed).is_shifted
    return alarms / (references * WINDOWS)


def _sketch(values: NDArray[np.float64]) -> Sketch:
    """Return what a sketch holds after these values were added, rounded down."""
    whole = np.floor(values)
    above = whole[whole > 0]
    buckets, counts = np.unique(np.ceil(np.log2(above) * 2**SCALE).astype(int), return_counts=True)
    held = dict(zip(buckets.tolist(), counts.tolist(), strict=True))
    return Sketch(zeros=int((whole == 0).sum()), total=int(above.sum()), buckets=held)


def _count_windows(values: NDArray[np.float64], bounds: list[int]) -> list[list[int]]:
    """Return what ``count_bins`` does of each of the windows that the values are dealt to."""
    with np.errstate(divide="ignore"):
        buckets = np.ceil(np.log2(np.floor(values)) * 2**SCALE)
    bins = np.searchsorted(np.asarray(bounds, dtype=float), np.maximum(buckets, bounds[0]))
    size = len(bounds) + 1
    windows = np.repeat(np.arange(WINDOWS), len(values) // WINDOWS)
    counts = np.bincount(windows * size + bins, minlength=WINDOWS * size)
    return list(counts.reshape(WINDOWS, size).tolist())


def _name(counts: NDArray[np.int64]) -> dict[str, int]:
    return {str(word): count for word, count in enumerate(counts.tolist())}


def _head(title: str) -> str:
    return f"{title:<44}" + "".join(f"{f'n={n}':>9}" for n in SIZES)


def _row(name: str, shares: list[float], decimals: int) -> str:
    return f"{name:<44}" + "".join(f"{100 * share:9.{decimals}f}" for share in shares)

"""Pages in Prometheus' text format and exports in OTLP's JSON say what was counted."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exposition import Page
from pilotage.gateway.telemetry.table import DURATION
from pilotage.monitoring.exports.exposition import parse, render
from pilotage.monitoring.exports.otlp import encode_metrics
from pilotage.monitoring.exports.types import Family, FamilyKind, Sample

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
LABELS = st.dictionaries(st.sampled_from(["alias", "project", "le_", "x"]), TEXTS).map(
    lambda found: tuple(sorted(found.items()))
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def family(name: str, *samples: Sample, kind: FamilyKind = FamilyKind.GAUGE) -> Family:
    return Family(name=name, kind=kind, help="Something.", samples=samples)


@given(st.dictionaries(LABELS, NUMBERS, min_size=1, max_size=5))
def test_what_is_written_is_read_back_to_the_last_digit(series: dict[object, float]) -> None:
    made = family("pilotage_x", *(Sample(labels, value) for labels, value in series.items()))  # type: ignore[arg-type]

    assert list(parse(render([made]).decode())) == [made]


def test_a_strict_reader_takes_the_page() -> None:
    first = family("a_total", Sample((("q", 'say "\\n"\n'),), 3.0), kind=FamilyKind.COUNTER)
    page = Page(render([first, family("empty"), family("b", Sample((("q", ""),), 0.25))]).decode())

    assert page.kinds == {"a_total": "counter", "b": "gauge"}
    assert page.total("a_total") == 3
    assert page.total("b") == 0.25


@pytest.mark.parametrize(
    "page", ["nonsense", "# HELP a\n", "# HELP a b\n# TYPE a gauge\nother 1\n", "# HELP a b\na 1\n"]
)
def test_what_is_no_page_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match=r"metric|sample"):
        list(parse(page))


def test_otlp_has_each_kind_as_the_protocol_wants_it() -> None:
    gauge = family("pilotage_ready", Sample((("slot", "s0"),), 1.0))
    counter = family("pilotage_calls_total", Sample((), 7.0), kind=FamilyKind.COUNTER)
    body = encode_metrics(
        [gauge, counter, family("none")], {"service.name": "pilotage-control"}, 1_000_000, 2_000_000
    )

    (resource,) = msgspec.json.decode(body)["resourceMetrics"]
    (attribute,) = resource["resource"]["attributes"]
    assert attribute == {"key": "service.name", "value": {"stringValue": "pilotage-control"}}
    ready, calls = resource["scopeMetrics"][0]["metrics"]
    assert ready["gauge"]["dataPoints"] == [
        {
            "attributes": [{"key": "slot", "value": {"stringValue": "s0"}}],
            "startTimeUnixNano": "1000000000",
            "timeUnixNano": "2000000000",
            "asDouble": 1.0,
        }
    ]
    assert calls["sum"]["isMonotonic"] is True
    assert calls["sum"]["aggregationTemporality"] == 2
    assert calls["sum"]["dataPoints"][0]["asDouble"] == 7.0


def test_otlp_counts_between_the_bounds_of_a_histogram() -> None:
    page = (
        f"{DURATION.heading}"
        f'{DURATION.name}_bucket{{slot="s",le="0.1"}} 2\n'
        f'{DURATION.name}_bucket{{slot="s",le="1"}} 5\n'
        f'{DURATION.name}_bucket{{slot="s",le="+Inf"}} 6\n'
        f'{DURATION.name}_sum{{slot="s"}} 4.5\n'
        f'{DURATION.name}_count{{slot="s"}} 6\n'
    )

    (metric,) = msgspec.json.decode(encode_metrics(parse(page), {}, 0, 1))["resourceMetrics"][0][
        "scopeMetrics"
    ][0]["metrics"]

    (point,) = metric["histogram"]["dataPoints"]
    assert point["explicitBounds"] == [0.1, 1]
    assert point["bucketCounts"] == ["2", "3", "1"]
    assert point["count"] == "6"
    assert point["sum"] == 4.5
    assert point["attributes"] == [{"key": "slot", "value": {"stringValue": "s"}}]


def test_numbers_that_json_cannot_hold_are_left_out() -> None:
    made = family("a", Sample((), math.nan), Sample((("b", "c"),), math.inf), Sample((), 1.0))

    points = msgspec.json.decode(encode_metrics([made], {}, 0, 1))["resourceMetrics"][0][
        "scopeMetrics"
    ][0]["metrics"][0]["gauge"]["dataPoints"]

    assert [point["asDouble"] for point in points] == [1.0]

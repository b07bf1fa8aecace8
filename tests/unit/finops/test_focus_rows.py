"""FOCUS rows: what each column must be, and sums that lose nothing."""

import csv
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.usage import Rates, Tier
from pilotage.finops.chargeback.files import to_csv, to_parquet
from pilotage.finops.chargeback.rules import (
    COLUMNS,
    COSTS,
    make_rows,
    sum_rows,
    to_usd,
)
from pilotage.finops.chargeback.types import FocusRow, Names
from pilotage.finops.costs.types import CostEntry, CostKind, CostLine, Share

NAMES = Names(
    account="default",
    tenants={"ten_a": "acme"},
    upstreams={"ups_a": ("gpu", "openai")},
    is_closed=False,
)
RATES = Rates(
    price_id="prc",
    input=150_000_001,
    cache_read=75_000_000,
    cache_write=0,
    output=600_000_000,
    reasoning=600_000_000,
    tiers=[
        Tier(over=200_000, input=3, cache_read=3, cache_write=3, output=5, reasoning=5),
    ],
)
LINE = CostLine(
    project_id="prj",
    day="2026-03-10",
    tenant_id="ten_a",
    key_id="",
    user="",
    feature="search",
    alias="chat",
    arm="dep_a",
    version_id="",
    model="gpu/gpt-4o-mini",
    upstream_id="ups_a",
    price_id="prc",
    band=0,
    corrects="",
    calls=3,
    input_tokens=1_000_003,
    cache_read_tokens=7,
    cache_write_tokens=0,
    output_tokens=11,
    reasoning_tokens=0,
    cost_nano=160_000_000,
    estimated_nano=0,
)
ENTRY = CostEntry(
    id="cst",
    project_id="prj",
    kind=CostKind.IDLE,
    source="s",
    start_us=1_773_140_400_000_000,
    end_us=1_773_144_000_000_000,
    cost_nano=355_000_000,
    quantity=500_000,
    unit="hours",
    unit_price="0.71",
    alias="chat",
    created_at_us=0,
    created_by="system",
    shares=(Share(day="2026-03-10", cost_nano=355_000_000, quantity=500_000),),
)


def book(corrects: str = "", **more: Any) -> CostEntry:  # noqa: ANN401 - any field of it
    """Return an entry of one share."""
    made = replace(ENTRY, **more)
    share = Share(
        day="2026-03-10", cost_nano=made.cost_nano, quantity=made.quantity, corrects=corrects
    )
    return replace(made, shares=(share,))


def rows_of(
    lines: Sequence[CostLine] = (), entries: Sequence[CostEntry] = (), rates: Rates | None = RATES
) -> list[FocusRow]:
    return list(make_rows(lines, entries, {"prc": rates} if rates else {}, NAMES))


def test_a_class_of_tokens_is_a_row_whose_cost_is_quantity_times_price() -> None:
    rows = rows_of([LINE])

    usage = [row for row in rows if row["ChargeCategory"] == "Usage"]
    assert [row["x_TokenClass"] for row in usage] == ["input", "cache_read", "output"]
    for row in usage:
        product = row["PricingQuantity"] * row["ListUnitPrice"]  # type: ignore[operator]
        assert {row[name] for name in COSTS} == {product}
        assert row["ConsumedQuantity"] == row["PricingQuantity"] * 1_000_000  # type: ignore[operator]
        assert row["SkuPriceId"] == f"gpu/gpt-4o-mini/{row['x_TokenClass']}"


def test_every_row_has_every_column_and_what_may_not_be_null() -> None:
    rows = rows_of([LINE, replace(LINE, tenant_id="", price_id="gone")], [ENTRY])

    never_null = {*COSTS, "BillingAccountId", "BillingCurrency", "BillingPeriodStart"} | {
        "BillingPeriodEnd",
        "ChargeCategory",
        "ChargeDescription",
        "ChargePeriodStart",
        "ChargePeriodEnd",
        "InvoiceIssuerName",
        "ProviderName",
        "PublisherName",
        "ServiceCategory",
        "ServiceName",
        "ServiceSubcategory",
    }
    of_usage = {"ConsumedQuantity", "ConsumedUnit", "ListUnitPrice", "PricingCategory"} | {
        "PricingQuantity",
        "PricingUnit",
        "SkuId",
        "SkuMeter",
        "SkuPriceId",
    }
    for row in rows:
        assert tuple(sorted(row)) == tuple(sorted(COLUMNS))
        assert not [name for name in never_null if row[name] is None]
        if row["ChargeCategory"] == "Usage":
            assert not [name for name in of_usage if row[name] is None]
    assert rows[0]["SubAccountName"] == "acme"
    assert rows[0]["ProviderName"] == "OpenAI"
    assert str(rows[0]["BillingPeriodEnd"]) == "2026-04-01 00:00:00+00:00"


@given(
    st.lists(
        st.tuples(
            st.integers(-(10**9), 10**9),
            st.integers(-(10**9), 10**9),
            st.integers(-(10**15), 10**15),
            st.sampled_from(["prc", "gone"]),
            st.sampled_from([0, 200_000]),
        ),
        max_size=8,
    ),
    st.lists(
        st.tuples(
            st.sampled_from([kind for kind in CostKind if kind is not CostKind.CALLS]),
            st.integers(-(10**12), 10**12),
            st.integers(-(10**15), 10**15),
            st.sampled_from(["", "0.71", "0.000000001"]),
        ),
        max_size=8,
    ),
)
def test_rows_add_up_to_lines_and_entries(
    lines: Sequence[tuple[int, int, int, str, int]],
    entries: Sequence[tuple[CostKind, int, int, str]],
) -> None:
    made = [
        replace(
            LINE,
            input_tokens=read,
            output_tokens=written,
            cost_nano=nano,
            price_id=price,
            band=band,
        )
        for read, written, nano, price, band in lines
    ]
    booked = [
        book(kind=kind, quantity=quantity, cost_nano=nano, unit_price=price)
        for kind, quantity, nano, price in entries
    ]

    rows = rows_of(made, booked)

    total = sum(line.cost_nano for line in made) + sum(entry.cost_nano for entry in booked)
    assert sum_rows(rows) == to_usd(total * 1_000_000) == Decimal(total).scaleb(-9)


def test_long_prompts_have_the_price_of_their_size() -> None:
    usage = rows_of([replace(LINE, band=200_000)])[0]

    assert usage["ListUnitPrice"] == Decimal("0.000000003")
    assert usage["SkuPriceId"] == "gpu/gpt-4o-mini/input/above-200000"


def test_calls_at_a_price_that_nobody_knows_are_one_adjustment() -> None:
    (row,) = rows_of([LINE], rates=None)

    assert (row["ChargeCategory"], row["BilledCost"]) == ("Adjustment", Decimal("0.16"))
    assert row["SkuId"] is None
    assert row["PricingQuantity"] is None


@pytest.mark.parametrize(("corrects", "charge_class"), [("", None), ("2026-02", "Correction")])
def test_only_what_takes_back_another_month_is_a_correction(
    corrects: str, charge_class: str | None
) -> None:
    rows = rows_of([replace(LINE, corrects=corrects)], [book(corrects=corrects)])

    assert {row["ChargeClass"] for row in rows} == {charge_class}
    assert {row["x_CorrectsPeriod"] for row in rows} == {corrects or None}


def test_a_replicas_hour_is_compute() -> None:
    (row,) = rows_of([], [replace(ENTRY, is_spot=True)])

    assert row["ServiceCategory"] == "Compute"
    assert (row["PricingQuantity"], row["PricingUnit"]) == (Decimal("0.5"), "hours")
    assert row["BilledCost"] == Decimal("0.355")
    assert row["SkuPriceId"] == "idle/chat/spot"
    assert row["PricingCategory"] == "Dynamic"
    assert str(row["ChargePeriodStart"]) == "2026-03-10 11:00:00+00:00"


def test_a_charge_shorter_than_a_second_has_a_period_that_ends_after_it_begins() -> None:
    start_us = ENTRY.start_us + 250_000

    (row,) = rows_of([], [replace(ENTRY, start_us=start_us, end_us=start_us + 1)])

    assert str(row["ChargePeriodStart"]) == "2026-03-10 11:00:00+00:00"
    assert str(row["ChargePeriodEnd"]) == "2026-03-10 11:00:01+00:00"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_text_is_a_formula_in_a_spreadsheet(text: str) -> None:
    rows = rows_of([], [book(note=text, cost_nano=-1, quantity=0)])

    (shown,) = csv.DictReader(io.StringIO(to_csv(rows).decode()))

    assert shown["ChargeDescription"] == f"'{text}"
    assert shown["BilledCost"] == "-0.000000001"  # a number stays one
    assert read_parquet(to_parquet(rows)) == (text, Decimal("-0.000000001"))


def read_parquet(content: bytes) -> tuple[str, Decimal]:
    """Return what another program reads of a Parquet file with one row."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect() as connection:
        file.write(content)
        file.flush()
        statement = f"SELECT ChargeDescription, BilledCost FROM read_parquet('{file.name}')"
        ((about, cost),) = connection.execute(statement).fetchall()
    return about, cost


def test_amounts_are_written_without_zeros() -> None:
    assert [str(to_usd(finer)) for finer in (0, 1, -(10**15), 15 * 10**14)] == [
        "0",
        "1E-15",
        "-1",
        "1.5",
    ]


def test_calls_that_cost_what_their_tokens_do_need_no_adjustment() -> None:
    exact = replace(LINE, input_tokens=0, cache_read_tokens=0, output_tokens=5, cost_nano=3_000)

    (row,) = rows_of([exact])

    assert (row["ChargeCategory"], row["BilledCost"]) == ("Usage", Decimal("0.000003"))


def test_what_counts_in_another_month_has_a_row_of_its_own() -> None:
    shares = (
        Share(day="2026-03-30", cost_nano=1),
        Share(day="2026-03-31", cost_nano=2),
        Share(day="2026-04-01", cost_nano=3),
        Share(day="2026-04-01", cost_nano=4, corrects="2026-02"),
    )
    noon, morning = 1_774_872_000_000_000, 1_775_034_000_000_000  # of the 30th and the 1st
    entry = replace(ENTRY, unit_price="", shares=shares, start_us=noon, end_us=morning)

    rows = rows_of([], [entry])

    assert [
        (
            str(row["ChargePeriodStart"])[:16],
            str(row["ChargePeriodEnd"])[:16],
            row["BilledCost"],
            row["x_CorrectsPeriod"],
        )
        for row in rows
    ] == [
        ("2026-03-30 12:00", "2026-04-01 00:00", Decimal("3E-9"), None),
        ("2026-04-01 00:00", "2026-04-01 09:00", Decimal("3E-9"), None),
        ("2026-04-01 00:00", "2026-04-01 09:00", Decimal("4E-9"), "2026-02"),
    ]


def test_rows_say_whether_their_month_is_closed() -> None:
    for is_closed, said in ((True, "true"), (False, "false")):
        rows = make_rows([LINE], [ENTRY], {}, replace(NAMES, is_closed=is_closed))

        assert {row["x_PeriodClosed"] for row in rows} == {said}

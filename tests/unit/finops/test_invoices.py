"""A provider's invoice beside the ledger: what is read, and where the two differ."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from pilotage.core.errors import PilotageError
from pilotage.finops.chargeback.invoice_rules import (
    MOST_LINES,
    normalize_model,
    read_invoice,
    reconcile,
)
from pilotage.finops.chargeback.types import FocusRow, InvoiceLine, Match

SIMPLE = """date,model,cost,line_item
2026-03-01,gpt-4o-2024-08-06,1.50,"gpt-4o, input"
2026-03-01,gpt-4o-2024-08-06,$2.25,"gpt-4o, output"
2026-03-02T00:00:00Z,gpt-4o-mini,"1,000.75",cached input
2026-04-01,gpt-4o,9,output
"""


# Of OpenAI's console: a day without charges has empty columns.
OPENAI = """start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item
1772323200,1772409600,2026-03-01T00:00:00+00:00,2026-03-02T00:00:00+00:00,0.8958740,usd,"o3, input"
1772323200,1772409600,2026-03-01T00:00:00+00:00,2026-03-02T00:00:00+00:00,0.5,usd,"o3, cached input"
1772323200,1772409600,2026-03-01T00:00:00+00:00,2026-03-02T00:00:00+00:00,4.0,usd,"o3, output"
1772409600,1772496000,2026-03-02T00:00:00+00:00,2026-03-03T00:00:00+00:00,,,
"""
# Of Anthropic's console, and the names of its cost report.
ANTHROPIC = """usage_date_utc,model,workspace,token_type,cost_usd
2026-03-01,claude-sonnet-4-20250514,Default,input_no_cache,3
2026-03-01,claude-sonnet-4-20250514,Default,input_cache_write_5m,0.5
2026-03-01,claude-sonnet-4-20250514,Default,input_cache_read,0.25
2026-03-01,claude-sonnet-4-20250514,Default,output,1
"""


def row(
    day: int, model: str, token_class: str | None, cost: str, corrects: str | None = None
) -> FocusRow:
    return {
        "ChargePeriodStart": datetime(2026, 3, day, tzinfo=UTC),
        "ResourceName": model,
        "x_TokenClass": token_class,
        "x_CorrectsPeriod": corrects,
        "BilledCost": Decimal(cost),
    }


def test_lines_are_read_by_the_names_providers_use() -> None:
    lines = read_invoice(SIMPLE)

    assert lines[0] == InvoiceLine(
        period="2026-03-01", model="gpt-4o", token_class="input", amount=Decimal("1.50")
    )
    assert [line.token_class for line in lines] == ["input", "output", "cache_read", "output"]
    assert lines[2].amount == Decimal("1000.75")


def test_a_focus_file_is_an_invoice_too() -> None:
    (line,) = read_invoice(
        "\ufeffBilledCost,ChargePeriodStart,ResourceName,SkuMeter\n"
        "0.000000000000001,2026-03-01T00:00:00Z,acme/claude-sonnet-4-20250514,Cache Write Tokens\n"
    )

    assert (line.model, line.token_class) == ("claude-sonnet-4", "cache_write")
    assert line.amount == Decimal("1E-15")


def test_each_line_has_its_difference_and_their_sum_is_the_whole() -> None:
    invoice = read_invoice(SIMPLE)
    rows = [
        row(1, "gpu/gpt-4o", "input", "1.50"),
        row(1, "gpu/gpt-4o", "output", "2.00"),
        row(1, "gpu/gpt-4o", None, "0.000000001"),
        row(3, "gpu/o3", "reasoning", "4"),
    ]

    found = reconcile(invoice, rows, "2026-03")

    assert [(item.period, item.model, item.token_class, item.match) for item in found.items] == [
        ("2026-03-01", "gpt-4o", "", Match.ONLY_RECORDED),
        ("2026-03-01", "gpt-4o", "input", Match.SAME),
        ("2026-03-01", "gpt-4o", "output", Match.DIFFERS),
        ("2026-03-02", "gpt-4o-mini", "cache_read", Match.ONLY_INVOICED),
        ("2026-03-03", "o3", "output", Match.ONLY_RECORDED),
    ]
    assert found.invoiced == sum(line.amount for line in invoice if line.period < "2026-04")
    assert found.recorded == sum(Decimal(str(item["BilledCost"])) for item in rows)
    assert sum(item.difference for item in found.items) == found.invoiced - found.recorded
    assert found.items[2].difference == Decimal("0.25")
    assert (found.outside_lines, found.outside) == (1, Decimal(9))


def test_an_invoice_of_months_without_classes_is_compared_by_months() -> None:
    invoice = read_invoice("month,model,usd\n2026-03,gpt-4o,3.5\n")
    rows = [row(1, "gpt-4o", "input", "1.5"), row(9, "gpt-4o@1.0.0", "output", "2")]

    (found,) = reconcile(invoice, rows, "2026-03").items

    assert (found.period, found.match, found.difference) == ("2026-03", Match.SAME, Decimal(0))


def test_days_with_a_month_among_them_are_compared_by_months() -> None:
    invoice = read_invoice("date,model,usd\n2026-03-01,o3,1\n2026-03,o3,2\n2026-03-09,o3,3\n")

    (found,) = reconcile(invoice, [row(1, "o3", "input", "6")], "2026-03").items

    assert (found.period, found.match, found.invoiced) == ("2026-03", Match.SAME, Decimal(6))


def test_lines_of_other_months_are_told_of_and_not_lost() -> None:
    found = reconcile(read_invoice("date,model,cost\n2026-02-01,gpt-4o,7\n"), [], "2026-03")

    assert not found.items
    assert (found.outside_lines, found.outside) == (1, Decimal(7))


def test_a_correction_counts_to_the_month_that_it_corrects() -> None:
    rows = [
        row(1, "o3", "input", "5"),
        row(1, "o3", "input", "-2", corrects="2026-03"),  # of whichever later day
    ]

    months = reconcile(read_invoice("month,model,usd\n2026-03,o3,3\n"), rows, "2026-03")
    days = reconcile(read_invoice("date,model,usd\n2026-03-01,o3,5\n"), rows, "2026-03")

    assert [item.match for item in months.items] == [Match.SAME]
    assert [(item.period, item.match, item.recorded) for item in days.items] == [
        ("2026-03", Match.ONLY_RECORDED, Decimal(-2)),
        ("2026-03-01", Match.SAME, Decimal(5)),
    ]


def test_an_export_of_openai_is_read_as_it_is() -> None:
    lines = read_invoice(OPENAI)

    assert {(line.period, line.model) for line in lines} == {("2026-03-01", "o3")}
    assert [line.token_class for line in lines] == ["input", "cache_read", "output"]


def test_an_export_of_anthropic_is_read_as_it_is() -> None:
    lines = read_invoice(ANTHROPIC)

    assert {(line.period, line.model) for line in lines} == {("2026-03-01", "claude-sonnet-4")}
    classes = ["input", "cache_write", "cache_read", "output"]
    assert [line.token_class for line in lines] == classes
    rows = [
        row(1, "anthropic/claude-sonnet-4-20250514", name, cost)
        for name, cost in zip(classes, ("3", "0.5", "0.25", "1"), strict=True)
    ]
    assert {item.match for item in reconcile(lines, rows, "2026-03").items} == {Match.SAME}


@pytest.mark.parametrize(
    ("said", "token_class"),
    [
        ("uncached_input_tokens", "input"),
        ("Non-cached input", "input"),
        ("input (not cached)", "input"),
        ("prompt_cache_miss_tokens", "input"),
        ("Prompt Tokens", "input"),
        ("cache_creation.ephemeral_5m_input_tokens", "cache_write"),
        ("Prompt Caching Write", "cache_write"),
        ("cache_read_input_tokens", "cache_read"),
        ("Cached Input Tokens", "cache_read"),
        ("Thinking Text Output", "reasoning"),
        ("output_tokens", "output"),
        ("completion", "output"),
        ("web search", ""),
    ],
)
def test_classes_of_tokens_are_told_by_the_names_they_have(said: str, token_class: str) -> None:
    (line,) = read_invoice(f"date,model,cost,token_type\n2026-03-01,a,1,{said}\n")

    assert line.token_class == token_class


@pytest.mark.parametrize(
    ("meters", "classes"),
    [
        (("input", "output"), {"input": Match.SAME, "output": Match.SAME}),
        (
            ("input", "reasoning"),
            {
                "input": Match.SAME,
                "output": Match.ONLY_RECORDED,
                "reasoning": Match.DIFFERS,
            },
        ),
    ],
)
def test_reasoning_is_output_where_an_invoice_does_not_tell_it_apart(
    meters: tuple[str, str], classes: dict[str, Match]
) -> None:
    invoice = read_invoice(
        f"date,model,token_type,cost\n2026-03-01,o3,{meters[0]},2\n2026-03-01,o3,{meters[1]},32\n"
    )
    rows = [
        row(1, "o3", "input", "2"),
        row(1, "o3", "output", "8"),
        row(1, "o3", "reasoning", "24"),
    ]

    found = reconcile(invoice, rows, "2026-03")

    assert {item.token_class: item.match for item in found.items} == classes


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("", "period"),
        ("date,cost\n2026-03-01,1\n", "model"),
        ("date,model\n2026-03-01,a\n", "amount"),
        ("date,model,cost\nyesterday,a,1\n", "period"),
        ("date,model,cost\n2026-03-01,a,much\n", "amount"),
        ('date,model,cost\n2026-03-01,a,"12,34"\n', "amount"),
        ("date,model,cost\n2026-03-01,a,NaN\n", "amount"),
        ("date,model,cost\n2026-03-01,a,1e30\n", "amount"),
        ("date,model,cost\n2026-03-01,a\n", "amount"),
        ("date,model,cost\n2026-13-45,a,1\n", "period"),
        ("date,model,cost\n2026-03-011,a,1\n", "period"),
        ("date,model,cost\n2026-03-01,a,1e-900000\n", "amount"),
    ],
)
def test_what_is_no_invoice_is_refused_by_line_and_column(text: str, param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        read_invoice(text)

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)
    assert refused.value.hint


@pytest.mark.parametrize("rest", ["x" * 200_000, "2026-03-02,a,1\n"])
def test_a_quotation_mark_without_its_end_is_refused(rest: str) -> None:
    with pytest.raises(PilotageError, match="is not CSV") as refused:
        read_invoice(f'date,model,cost\n"2026-03-01,a,7\n{rest}')

    assert (refused.value.code, refused.value.status) == ("invalid_request", 400)


def test_an_invoice_has_a_longest() -> None:
    with pytest.raises(PilotageError, match="more than"):
        read_invoice("date,model,cost\n" + "2026-03-01,a,1\n" * (MOST_LINES + 1))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("tiny@1.0.0", "tiny"),
        (" Claude-Sonnet-4-20250514 ", "claude-sonnet-4"),
        ("publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
    ],
)
def test_models_are_the_same_without_upstream_version_and_date(name: str, model: str) -> None:
    assert normalize_model(name) == model

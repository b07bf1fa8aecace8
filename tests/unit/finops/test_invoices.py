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


def row(day: int, model: str, token_class: str | None, cost: str) -> FocusRow:
    return {
        "ChargePeriodStart": datetime(2026, 3, day, tzinfo=UTC),
        "ResourceName": model,
        "x_TokenClass": token_class,
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

    assert [(item.period, item.model, item.token_class, item.match) for item in found] == [
        ("2026-03-01", "gpt-4o", "", Match.ONLY_RECORDED),
        ("2026-03-01", "gpt-4o", "input", Match.SAME),
        ("2026-03-01", "gpt-4o", "output", Match.DIFFERS),
        ("2026-03-02", "gpt-4o-mini", "cache_read", Match.ONLY_INVOICED),
        ("2026-03-03", "o3", "reasoning", Match.ONLY_RECORDED),
    ]
    invoiced = sum(line.amount for line in invoice if line.period < "2026-04")
    recorded = sum(Decimal(str(item["BilledCost"])) for item in rows)
    assert sum(item.difference for item in found) == invoiced - recorded
    assert found[2].difference == Decimal("0.25")


def test_an_invoice_of_months_without_classes_is_compared_by_months() -> None:
    invoice = read_invoice("month,model,usd\n2026-03,gpt-4o,3.5\n")
    rows = [row(1, "gpt-4o", "input", "1.5"), row(9, "gpt-4o@1.0.0", "output", "2")]

    (found,) = reconcile(invoice, rows, "2026-03")

    assert (found.period, found.match, found.difference) == ("2026-03", Match.SAME, Decimal(0))


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("", "period"),
        ("date,cost\n2026-03-01,1\n", "model"),
        ("date,model\n2026-03-01,a\n", "amount"),
        ("date,model,cost\nyesterday,a,1\n", "period"),
        ("date,model,cost\n2026-03-01,a,much\n", "amount"),
        ("date,model,cost\n2026-03-01,a,NaN\n", "amount"),
        ("date,model,cost\n2026-03-01,a,1e30\n", "amount"),
        ("date,model,cost\n2026-03-01\n", "amount"),
    ],
)
def test_what_is_no_invoice_is_refused_by_line_and_column(text: str, param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        read_invoice(text)

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)
    assert refused.value.hint


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

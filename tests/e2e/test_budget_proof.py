"""Budgets cannot be overrun: four processes, a real Valkey, kill -9, pauses, lost memory.

The program is tests/support/budget_proof.py; a mistake planted in the rules must fail it.
"""

import pytest

from budget_proof import check, prove


@pytest.mark.timeout(240)
def test_a_hundred_thousand_operations_overrun_no_budget() -> None:
    report = prove(100_000)
    check(report)
    assert report.operations >= 90_000
    assert report.restarts == 1
    assert report.kills >= 3
    assert report.judged_refusals > 20


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_million_operations_overrun_no_budget() -> None:
    report = prove(1_000_000)
    check(report)
    assert report.operations >= 900_000

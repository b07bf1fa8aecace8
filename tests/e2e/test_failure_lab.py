"""The table of failures in the reference is what really happens: every line is provoked again."""

import os
from pathlib import Path

import pytest

from failure_lab import list_cases, open_lab, read_rows, run_fault
from failure_lab_around import run_around

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "failures.md"
FIX = "run: make failures"

pytestmark = pytest.mark.timeout(300)


async def test_faults_of_an_upstream_come_to_what_the_reference_says(tmp_path: Path) -> None:
    known = set(read_rows(PAGE))
    async with open_lab(tmp_path) as serving:
        rows = [
            str(await run_fault(serving, fault, is_stream=is_stream))
            for fault, is_stream in list_cases()
        ]
    assert [row for row in rows if row not in known] == [], FIX


async def test_other_failures_come_to_what_the_reference_says(tmp_path: Path) -> None:
    known = set(read_rows(PAGE))
    rows = [str(row) async for row in run_around(tmp_path)]
    assert [row for row in rows if row not in known] == [], FIX


def test_the_reference_lists_every_fault() -> None:
    rows = read_rows(PAGE)
    around = 16 if os.geteuid() == 0 else 15
    assert len(rows) >= len(list_cases()) + around
    assert len(set(rows)) == len(rows)

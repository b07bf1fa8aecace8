"""What gates say: each form of check, and what holds for all of them."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.registry.gates import (
    DAY_US,
    KINDS,
    Check,
    Form,
    GateFacts,
    GateState,
    assess,
    check_policy,
    describe_failures,
    evaluate,
)
from pilotage.registry.types import Evidence, NamedVersion, Stage

NOW_US = 1_700_000_000_000_000
PASSED, FAILED, NOT_EVALUATED = GateState
VERSION = NamedVersion(
    id="ver_1",
    rev=1,
    project_id="prj_1",
    model_id="mdl_1",
    model_name="tiny",
    version="1.0.0",
    artifact_sha256="ab" * 32,
    source="manual",
    license="",
    description="",
    context_tokens=0,
    created_at_us=0,
    created_by="usr_1",
    deleted_at_us=None,
)


def known(kind: str, subject: str = "", value: str | None = None, **more: object) -> Evidence:
    """Return evidence that is a day old."""
    numbers: dict[str, Any] = {
        name: Decimal(str(more.pop(name))) for name in ("low", "high") if name in more
    }
    return Evidence(
        id="ev_1",
        project_id="prj_1",
        version_id="ver_1",
        created_at_us=NOW_US - DAY_US,
        created_by="usr_1",
        kind=kind,
        subject=subject,
        value=None if value is None else Decimal(value),
        **numbers,
        **more,  # type: ignore[arg-type]
    )


def measured(value: str, subject: str = "accuracy", **more: object) -> Evidence:
    return known("metric.performance", subject, value, **more)


def facts(*evidence: Evidence, **more: object) -> GateFacts:
    return GateFacts(
        version=VERSION,
        evidence=evidence,
        now_us=NOW_US,
        **{"size_bytes": 1000} | more,  # type: ignore[arg-type]
    )


ACCURATE = Check(name="accuracy", min=Decimal("0.9"))
FAST = Check(name="latency_p95", max=Decimal(250))
OPEN = Check(name="licence", allowed=("MIT",))
BALANCED = Check(name="metric", subject="f1", min=Decimal("0.9"))
SHORT = Check(name="metric", subject="queue", max=Decimal(250))
NO_WORSE = Check(name="not_worse", subject="accuracy", tolerance_percent=Decimal(2))
NO_SLOWER = Check(name="not_worse", subject="latency_p95", tolerance_percent=Decimal(10))


@pytest.mark.parametrize(
    ("check", "evidence", "state"),
    [
        (Check(name="artifact_size"), [], PASSED),
        (Check(name="artifact_size", max=Decimal(1000)), [], PASSED),
        (Check(name="artifact_size", max=Decimal(999)), [], FAILED),
        (Check(name="scan_format"), [], NOT_EVALUATED),
        (Check(name="scan_format"), [known("scan.format", "gguf", passed=True)], PASSED),
        (Check(name="scan_format"), [known("scan.format", "pickle", passed=False)], FAILED),
        (Check(name="security_scan"), [known("scan.security")], NOT_EVALUATED),
        (
            Check(name="safety"),
            [
                known("eval.safety", "toxicity", passed=True),
                known("eval.safety", "jailbreak", passed=False),
            ],
            FAILED,
        ),
        (
            Check(name="safety"),
            [
                known("eval.safety", "toxicity", passed=True),
                known("eval.safety", "jailbreak", passed=True, expires_at_us=NOW_US),
            ],
            NOT_EVALUATED,
        ),
        (Check(name="evaluation", subject="june"), [known("eval.june", passed=True)], PASSED),
        (Check(name="evaluation", subject="june"), [known("eval.may", passed=True)], NOT_EVALUATED),
        (Check(name="licence"), [], NOT_EVALUATED),
        (Check(name="licence"), [known("licence", "MIT", passed=True)], PASSED),
        (Check(name="licence"), [known("licence", "LicenseRef-x", passed=False)], FAILED),
        (Check(name="licence", allowed=("mit",)), [known("licence", "MIT")], PASSED),
        (
            Check(name="licence", allowed=("MIT",)),
            [known("licence", "MIT"), known("licence", "GPL-3.0-only")],
            FAILED,
        ),
        (OPEN, [known("licence", "MIT", passed=False)], FAILED),
        (OPEN, [known("licence", "MIT", passed=False, expires_at_us=NOW_US)], FAILED),
        (OPEN, [known("licence", "MIT", expires_at_us=NOW_US)], NOT_EVALUATED),
        (OPEN, [known("licence", "MIT", expires_at_us=NOW_US + 1)], PASSED),
        (
            Check(name="licence", allowed=("MIT",), max_age_days=1),
            [replace(known("licence", "MIT"), created_at_us=NOW_US - DAY_US - 1)],
            NOT_EVALUATED,
        ),
        (ACCURATE, [], NOT_EVALUATED),
        (ACCURATE, [measured("0.9")], PASSED),
        (ACCURATE, [measured("0.899999")], FAILED),
        (ACCURATE, [measured("91", unit="%")], PASSED),
        (ACCURATE, [measured("91", unit="ms")], NOT_EVALUATED),
        (ACCURATE, [known("eval.accuracy", "accuracy", "0.95")], NOT_EVALUATED),
        (BALANCED, [measured("0.93", "f1")], PASSED),
        (BALANCED, [measured("12", "f1", unit="%")], FAILED),
        (SHORT, [measured("200", "queue")], PASSED),
        (SHORT, [measured("0.5", "queue", unit="ratio")], PASSED),
        (SHORT, [measured("200", "queue", unit="min")], NOT_EVALUATED),
        (FAST, [measured("251", "latency_p95")], FAILED),
        (FAST, [measured("0.25", "latency_p95", unit="s")], PASSED),
        (FAST, [measured("0.251", "latency_p95", unit="s")], FAILED),
        (
            Check(name="accuracy", min=Decimal("0.9"), by_interval=True),
            [measured("0.92", low="0.89", high="0.95")],
            FAILED,
        ),
        (
            Check(name="accuracy", min=Decimal("0.9"), by_interval=True),
            [measured("0.92", low="0.9", high="0.95")],
            PASSED,
        ),
        (
            Check(name="accuracy", min=Decimal("0.9"), by_interval=True),
            [measured("0.92")],
            NOT_EVALUATED,
        ),
        (Check(name="accuracy", min=Decimal("0.9"), min_n=100), [measured("1")], NOT_EVALUATED),
        (Check(name="accuracy", min=Decimal(0), min_n=100), [measured("1", n=100)], PASSED),
        (Check(name="accuracy", min=Decimal(0), max_age_days=1), [measured("1")], PASSED),
        (
            Check(name="accuracy", min=Decimal(0), max_age_days=1),
            [replace(measured("1"), created_at_us=NOW_US - DAY_US - 1)],
            NOT_EVALUATED,
        ),
    ],
)
def test_a_gate_says_what_the_evidence_says(
    check: Check, evidence: list[Evidence], state: GateState
) -> None:
    assert evaluate(check, facts(*evidence)).state is state


@pytest.mark.parametrize(
    ("check", "before", "now", "state"),
    [
        (NO_WORSE, None, "0.1", PASSED),
        (NO_WORSE, "0.9", "0.95", PASSED),
        (NO_WORSE, "0.9", "0.882", PASSED),
        (NO_WORSE, "0.9", "0.881", FAILED),
        (NO_SLOWER, "100", "110", PASSED),
        (NO_SLOWER, "100", "111", FAILED),
        (NO_SLOWER, "100", "50", PASSED),
        (Check(name="not_worse", subject="colour"), "1", "1", NOT_EVALUATED),
    ],
)
def test_a_candidate_may_be_a_little_worse_than_the_version_in_the_stage(
    check: Check, before: str | None, now: str, state: GateState
) -> None:
    baseline = None if before is None else [measured(before, check.subject)]
    found = facts(measured(now, check.subject), baseline=baseline, baseline_ref="tiny@0.9.0")

    assert evaluate(check, found).state is state


def test_a_comparison_without_a_number_on_both_sides_is_none() -> None:
    for here, there in (([], [measured("1")]), ([measured("1")], [])):
        found = evaluate(NO_WORSE, facts(*here, baseline=there, baseline_ref="tiny@0.9.0"))
        assert found.state is NOT_EVALUATED
        assert "there is no evidence" in found.detail
    unlike = facts(measured("1", unit="ms"), baseline=[measured("1", unit="%")])
    assert evaluate(NO_WORSE, unlike).detail == "their units differ"
    lower = facts(measured("60", unit="%"), baseline=[measured("0.92")])
    assert evaluate(NO_WORSE, lower).state is FAILED


def test_with_intervals_the_worst_that_may_be_counts() -> None:
    strict = Check(
        name="not_worse", subject="accuracy", tolerance_percent=Decimal(2), by_interval=True
    )
    wide = [measured("0.9", low="0.8", high="1.0")]
    narrow = [measured("0.9", low="0.895", high="0.905")]
    assert evaluate(strict, facts(*wide, baseline=wide)).state is FAILED
    assert evaluate(strict, facts(*narrow, baseline=narrow)).state is PASSED
    assert evaluate(strict, facts(measured("0.9"), baseline=narrow)).state is NOT_EVALUATED


def test_old_numbers_of_the_baseline_count() -> None:
    check = Check(
        name="not_worse", subject="accuracy", tolerance_percent=Decimal(2), max_age_days=5
    )
    old = replace(measured("0.9"), created_at_us=0)
    assert evaluate(check, facts(measured("0.9"), baseline=[old])).state is PASSED
    assert evaluate(check, facts(old, baseline=[measured("0.9")])).state is NOT_EVALUATED


REPLAYED = Check(name="replay")
BOUNDED = Check(name="replay", min=Decimal("-0.03"), min_n=100)


def replayed(subject: str = "usable", *, low: str = "-0.02", **more: Any) -> Evidence:  # noqa: ANN401
    return known("replay", subject, "0.0", **{"low": low, "high": "0.02", "unit": "ratio"} | more)


@pytest.mark.parametrize(
    ("check", "evidence", "state"),
    [
        (REPLAYED, [], NOT_EVALUATED),
        (REPLAYED, [replayed(passed=True)], PASSED),
        (REPLAYED, [replayed(passed=False)], FAILED),
        (REPLAYED, [replayed(passed=None)], NOT_EVALUATED),
        (REPLAYED, [replayed("exact", passed=True)], NOT_EVALUATED),
        (REPLAYED, [replayed(passed=True), replayed("exact", passed=False)], PASSED),
        (Check(name="replay", subject="exact"), [replayed("exact", passed=True)], PASSED),
        (BOUNDED, [replayed(passed=True, n=100)], PASSED),
        (BOUNDED, [replayed(passed=True, n=99)], NOT_EVALUATED),
        (BOUNDED, [replayed(passed=True, n=100, low="-0.5")], FAILED),
        (BOUNDED, [replayed(passed=None, n=100)], NOT_EVALUATED),
    ],
)
def test_a_replay_passes_by_its_own_margin_and_by_the_bounds_of_the_policy(
    check: Check, evidence: list[Evidence], state: GateState
) -> None:
    found = evaluate(check, facts(*evidence))
    assert found.state is state
    measure = check.subject or "usable"
    wanted = f"pilotage replay start ENDPOINT tiny@1.0.0 --measure {measure}"
    assert found.command == ("" if state is PASSED else wanted)


def test_what_others_host_has_no_file_to_look_at_unless_somebody_did() -> None:
    hosted = replace(VERSION, artifact_sha256=None)
    scan, size = Check(name="scan_format"), Check(name="artifact_size")
    there = replace(facts(), version=hosted, size_bytes=None)
    assert [item.state for item in assess([scan, size], there)] == [PASSED, PASSED]
    scanned = replace(there, evidence=[known("scan.format", passed=False)])
    assert evaluate(scan, scanned).state is FAILED
    assert evaluate(size, facts(size_bytes=None)).state is NOT_EVALUATED


ANY_CHECK = st.sampled_from(
    [
        Check(
            name=name,
            subject="accuracy" if name in ("metric", "cost", "not_worse", "evaluation") else "",
            min=Decimal("0.5") if kind.form is Form.MEASURED else None,
        )
        for name, kind in KINDS.items()
    ]
)


@given(ANY_CHECK)
def test_without_evidence_no_gate_of_evidence_passes(check: Check) -> None:
    found = evaluate(check, facts(baseline=[]))
    assert (found.state is PASSED) == (KINDS[check.name].form is Form.SIZE)
    if not found.has_passed:
        assert "tiny@1.0.0" in found.command
        assert check.label in describe_failures([found])


@given(st.lists(ANY_CHECK, unique_by=lambda check: check.label), st.randoms())
def test_gates_do_not_depend_on_each_other(checks: list[Check], order: object) -> None:
    there = facts(measured("0.7"), known("scan.format", passed=True))
    together = {item.name: item for item in assess(checks, there)}
    alone = {check.label: evaluate(check, there) for check in checks}
    assert together == alone


@given(st.decimals(0, 1, places=4), st.decimals(0, 1, places=4), st.decimals(0, 1, places=4))
def test_a_stricter_bound_never_lets_more_through(
    value: Decimal, one: Decimal, other: Decimal
) -> None:
    loose, strict = sorted((one, other))
    there = facts(measured(str(value)))
    if evaluate(Check(name="accuracy", min=strict), there).has_passed:
        assert evaluate(Check(name="accuracy", min=loose), there).has_passed


def test_what_failed_is_said_in_one_sentence() -> None:
    results = assess([ACCURATE, FAST, Check(name="artifact_size")], facts(measured("0.8")))
    assert describe_failures(results) == (
        "accuracy failed (0.8 ratio, asked for at least 0.9 ratio); latency_p95 could not be "
        "evaluated (asked for at most 250 ms, there is no evidence metric.performance of "
        "latency_p95)"
    )


@pytest.mark.parametrize(
    ("stage", "checks", "approvals"),
    [
        (Stage.DEVELOPMENT, [], 0),
        (Stage.PRODUCTION, [], 0),
        (Stage.STAGING, [], 11),
        (Stage.STAGING, [Check(name="nothing")], 0),
        (Stage.STAGING, [Check(name="accuracy")], 0),
        (Stage.STAGING, [Check(name="metric", min=Decimal(1))], 0),
        (Stage.STAGING, [Check(name="card"), Check(name="card")], 0),
        (Stage.STAGING, [Check(name="accuracy", min=Decimal(2), max=Decimal(1))], 0),
        (Stage.STAGING, [Check(name="accuracy", min=Decimal("NaN"))], 0),
        (Stage.STAGING, [Check(name="card", tolerance_percent=Decimal(-1))], 0),
        (Stage.STAGING, [Check(name="card", min_n=0)], 0),
        (
            Stage.STAGING,
            [Check(name="metric", subject=f"m{n}", min=Decimal(1)) for n in range(51)],
            0,
        ),
    ],
)
def test_what_no_policy_can_be_is_refused(
    stage: Stage, checks: list[Check], approvals: int
) -> None:
    with pytest.raises(PilotageError) as refused:
        check_policy(stage, checks, approvals)
    assert refused.value.code == "invalid_request"


def test_a_policy_may_ask_for_every_check() -> None:
    checks = [
        Check(
            name=name,
            subject="accuracy" if name in ("metric", "cost", "not_worse", "evaluation") else "",
            max=Decimal(1) if kind.form is Form.MEASURED else None,
        )
        for name, kind in KINDS.items()
    ]
    assert check_policy(Stage.PRODUCTION, checks, 1) == tuple(checks)

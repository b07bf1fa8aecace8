"""Approvals as a state machine: who may say what, and what follows from it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.governance import rules
from pilotage.governance.types import (
    Approval,
    ApprovalAsk,
    ApprovalState,
    Subject,
    Verdict,
    Vote,
)

NOW = 1_000_000
PEOPLE = ("asks", "made", "one", "two", "three")
ROLES = {"one": {"approver"}, "two": {"approver", "admin"}, "three": {"admin"}} | {
    "asks": {"approver"},
    "made": {"approver"},
}
ENDED = {"rejected", "withdrawn", "revoked", "used"}
ASK = ApprovalAsk(action="registry.version.promote:production", subject="tiny", reason="June")
ASKED = Approval(
    id="apr_1",
    rev=1,
    project_id="prj_1",
    action=ASK.action,
    subject_id="ver_1",
    subject="tiny@1.0.0",
    subject_hash="ab",
    authors=("made",),
    reason="June",
    evidence=(),
    needed=1,
    role="approver",
    requested_by="asks",
    requested_at_us=0,
    expires_at_us=2 * NOW,
    state=ApprovalState.PENDING,
    votes=(),
)


def word(by: str, verdict: Verdict, at_us: int = NOW) -> Vote:
    return Vote(by=by, role="approver", verdict=verdict, reason="looked", at_us=at_us)


def say(approval: Approval, by: str, verdict: Verdict, at_us: int = NOW) -> Approval:
    return rules.decide(approval, word(by, verdict, at_us), frozenset(ROLES[by]))


def test_whoever_may_be_another_of_the_request_does_not_count() -> None:
    for verdict in (Verdict.APPROVE, Verdict.REJECT):
        with pytest.raises(PilotageError) as refused:
            rules.decide(ASKED, word("one", verdict), frozenset({"approver"}), "asks")
        assert refused.value.code == "permission_denied"
    withdrawn = rules.decide(ASKED, word("asks", Verdict.WITHDRAW), frozenset(), "one")
    assert withdrawn.state is ApprovalState.WITHDRAWN


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(
            st.sampled_from(PEOPLE), st.sampled_from(["use", *Verdict]), st.integers(0, NOW // 4)
        ),
        max_size=12,
    ),
)
def test_whatever_is_said_four_eyes_hold(needed: int, said: list[tuple[str, str, int]]) -> None:
    """Against a model that keeps only who approved and whether it has ended."""
    approval, now_us = replace(ASKED, needed=needed), 0
    approved: set[str] = set()
    outcomes: list[tuple[bool, bool]] = []
    ended = ""
    for by, what, passed_us in said:
        now_us += passed_us
        is_open = not ended and now_us < approval.expires_at_us
        is_approver = by in {"one", "two"} and by not in approved
        is_given = len(approved) >= needed
        allowed = (
            is_open
            and {
                "approve": is_approver and not is_given,
                "reject": is_approver and not is_given,
                "withdraw": by == "asks",
                "revoke": by in approved,
                "use": is_given,
            }[str(what)]
        )
        before = approval
        try:
            if what == "use":
                approval = rules.use(approval, now_us, 7)
            else:
                approval = say(approval, by, Verdict(what), now_us)
        except PilotageError as refused:
            outcomes.append((allowed, refused.code in {"conflict", "permission_denied"}))
            continue
        assert allowed
        assert approval.rev == before.rev + 1
        if what == "approve":
            approved.add(by)
        else:
            past = {"reject": "rejected", "withdraw": "withdrawn", "revoke": "revoked"}
            ended = past.get(str(what), "used")
        expected = ended or ("approved" if len(approved) >= needed else "pending")
        assert approval.state == expected
        assert approval.given == len(approved)
    assert set(outcomes) <= {(False, True)}
    assert not approved & {"asks", "made", "three"}


@given(st.integers(0, 3 * NOW))
def test_only_what_is_open_expires(now_us: int) -> None:
    is_late = now_us >= ASKED.expires_at_us

    for state in (ApprovalState.PENDING, ApprovalState.APPROVED):
        found = rules.assess(replace(ASKED, state=state), now_us)
        assert found is (ApprovalState.EXPIRED if is_late else state)
    for ended in ENDED:
        assert rules.assess(replace(ASKED, state=ApprovalState(ended)), now_us) == ended


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"action": "promote"}, "action"),
        ({"action": "registry.version.promote:"}, "action"),
        ({"reason": "  "}, "reason"),
        ({"reason": "x" * 2_001}, "reason"),
        ({"role": "king"}, "role"),
        ({"role": "gateway"}, "role"),
        ({"needed": 0}, "needed"),
        ({"needed": 11}, "needed"),
        ({"ttl_us": 1}, "expires_in"),
        ({"ttl_us": 91 * 86_400_000_000}, "expires_in"),
        ({"evidence": tuple(map(str, range(101)))}, "evidence"),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, object], param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        rules.check_ask(replace(ASK, **changes))  # type: ignore[arg-type]

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


def test_evidence_is_named_once() -> None:
    assert rules.check_ask(replace(ASK, evidence=("b", "a", "b"))).evidence == ("b", "a")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values), st.dictionaries(st.text(), json_values))
def test_the_hash_is_of_the_state_and_nothing_else(
    one: dict[str, object], other: dict[str, object]
) -> None:
    first = rules.hash_subject(Subject(id="ver_1", name="a", state=one))
    turned = dict(reversed(one.items()))

    assert first == rules.hash_subject(Subject(id="ver_1", name="b", state=turned))
    assert first != rules.hash_subject(Subject(id="ver_2", name="a", state=one))
    is_same = one == other and repr(sorted(one.items())) == repr(sorted(other.items()))
    assert is_same or first != rules.hash_subject(Subject(id="ver_1", name="a", state=other))


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({}, ""),
        ({"state": ApprovalState.PENDING, "votes": (), "needed": 2}, "waits for 2 of 2"),
        ({"state": ApprovalState.REVOKED}, "is revoked"),
        ({"expires_at_us": NOW}, "is expired"),
        ({"subject_hash": "cd"}, "has changed since"),
        ({"role": "security"}, "this needs approver"),
        ({"votes": ()}, "this needs 1 approvals"),
    ],
)
def test_what_does_not_count(changes: dict[str, object], flaw: str) -> None:
    approved = say(ASKED, "one", Verdict.APPROVE)

    found = rules.find_flaw(replace(approved, **changes), "ab", "approver", 1, NOW)  # type: ignore[arg-type]

    assert flaw in found
    assert bool(found) == bool(flaw)


@pytest.mark.parametrize(
    ("said", "by", "verdict", "code"),
    [
        ([], "asks", Verdict.APPROVE, "permission_denied"),
        ([], "made", Verdict.REJECT, "permission_denied"),
        ([], "three", Verdict.APPROVE, "permission_denied"),
        ([], "one", Verdict.WITHDRAW, "permission_denied"),
        ([], "one", Verdict.REVOKE, "permission_denied"),
        (["one"], "one", Verdict.APPROVE, "conflict"),
        (["one"], "two", Verdict.REVOKE, "permission_denied"),
        (["one", "two"], "two", Verdict.REJECT, "conflict"),
    ],
)
def test_what_may_not_be_said(said: list[str], by: str, verdict: Verdict, code: str) -> None:
    approval = replace(ASKED, needed=2)
    for approver in said:
        approval = say(approval, approver, Verdict.APPROVE)

    with pytest.raises(PilotageError) as refused:
        say(approval, by, verdict)

    assert refused.value.code == code


def test_only_what_is_approved_is_used() -> None:
    used = rules.use(say(ASKED, "one", Verdict.APPROVE), NOW, 7)

    assert (used.state, used.used_seq, used.used_at_us) == (ApprovalState.USED, 7, NOW)
    for approval in (ASKED, used):
        with pytest.raises(PilotageError) as refused:
            rules.use(approval, NOW, 8)
        assert refused.value.code == "conflict"

"""What error replies of providers mean: bodies as the providers send them (refusal_cases)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.gateway.providers.errors import MAX_RETRY_AFTER_S, translate_error
from pilotage.gateway.providers.refusals import MAX_MESSAGE
from refusal_cases import CASES, DATE, Case, openai


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_error_reply_means(case: Case) -> None:
    body = b"" if case.body is None else json.dumps(case.body).encode()
    error = translate_error(case.status, list(case.headers), body)
    assert (error.code, error.retry_after_s, error.param) == (case.code, case.wait_s, case.param)
    assert case.says in error.detail
    assert "SECRET" not in str(error)


@pytest.mark.parametrize(
    ("headers", "now_us", "wait_s"),
    [
        ([(b"retry-after", b"7")], 0, 7.0),
        ([(b"retry-after", b"0")], 0, 0.0),
        ([(b"retry-after", b"1.5")], 0, 1.5),
        ([(b"retry-after", b"9" * 400)], 0, MAX_RETRY_AFTER_S),
        ([(b"retry-after", b"soon")], 0, 1.0),
        ([(b"retry-after", b"-5")], 0, 1.0),
        ([(b"retry-after", b"nan")], 0, 1.0),
        ([(b"retry-after", b"")], 0, 1.0),
        ([], 0, 1.0),
        ([(b"retry-after-ms", b"1500"), (b"retry-after", b"9")], 0, 1.5),
        ([(b"retry-after-ms", b"x"), (b"retry-after", b"9")], 0, 9.0),
        ([(b"retry-after", b"Sat, 21 Nov 2026 10:00:30 GMT"), DATE], 0, 30.0),
        ([(b"retry-after", b"Sat, 21 Nov 2026 10:00:30 -0000"), DATE], 0, 30.0),
        ([(b"retry-after", b"Sat, 21 Nov 2026 09:00:00 GMT"), DATE], 0, 0.0),
        ([(b"retry-after", b"Sun, 22 Nov 2026 10:00:00 GMT"), DATE], 0, MAX_RETRY_AFTER_S),
        ([(b"retry-after", b"Sat, 21 Nov 2026 10:00:30 GMT")], 0, 1.0),
        ([(b"retry-after", b"Sat, 21 Nov 2026 10:00:30 GMT")], 1_795_255_220_000_000, 10.0),
    ],
)
def test_a_wait_is_read_and_bounded(
    headers: list[tuple[bytes, bytes]], now_us: int, wait_s: float
) -> None:
    error = translate_error(429, headers, b"", now_us)
    assert (error.code, error.retry_after_s) == ("upstream_overloaded", wait_s)


def test_an_upstreams_words_are_one_short_line() -> None:
    body = json.dumps(openai("line\r\n\x1b[31m two " + "x" * 5000, "invalid_request_error"))
    error = translate_error(400, [], body.encode())
    assert error.detail.startswith("line [31m two xxx")
    assert (len(error.detail), error.detail[-4:]) == (MAX_MESSAGE, "x...")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *("error", "message", "type", "code", "status", "details", "detail", "param"),
                    *("violations", "quotaId", "metadata", "quota_limit", "retryDelay", "reason"),
                    *("innererror", "estimated_time", "loc", "msg"),
                ]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=15,
)


@given(st.integers(100, 599), st.one_of(JSON.map(lambda v: json.dumps(v).encode()), st.binary()))
def test_no_reply_breaks_the_translation(status: int, body: bytes) -> None:
    error = translate_error(status, [(b"retry-after", body[:20])], body)
    assert error.status >= 400
    assert len(error.detail) <= MAX_MESSAGE
    if status >= 500 or status in (401, 403, 404, 408, 429):
        assert error.status != 400


def test_a_reply_too_deep_or_too_large_says_nothing() -> None:
    for body in (b"[" * 100_000, b'{"error":"' + b"x" * 2_000_000 + b'"}'):
        assert translate_error(400, [], body).detail == "The model refused the request."

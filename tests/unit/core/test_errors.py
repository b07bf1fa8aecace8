"""The catalogue of errors."""

import re
from http import HTTPStatus

import pytest

from pilotage.core.errors import CATALOGUE, PilotageError

OPENAI_TYPES = {
    "invalid_request_error",
    "permission_error",
    "rate_limit_error",
    "insufficient_quota",
    "api_error",
}


def test_every_code_is_one_line_with_a_status_of_an_error() -> None:
    known = {status.value for status in HTTPStatus} | {499}  # 499: nginx's "client closed request"
    for code, spec in CATALOGUE.items():
        assert spec.code == code
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
        assert spec.status in known
        assert spec.status >= 400
        assert spec.type in OPENAI_TYPES


def test_titles_are_different_sentences() -> None:
    titles = [spec.title for spec in CATALOGUE.values()]

    assert [title for title in titles if not re.fullmatch(r"[A-Z][^.]+", title)] == []
    assert len(set(titles)) >= len(titles) - 1  # two codes are one fact: by whom a key is lacking
    assert len(CATALOGUE) == len(titles)


def test_what_the_server_did_is_not_blamed_on_the_request() -> None:
    for spec in CATALOGUE.values():
        if spec.status >= 500:
            assert spec.type == "api_error", spec.code
        if spec.status in (400, 401, 403, 404, 413, 422):
            assert not spec.is_retryable, spec.code


def test_an_error_tells_everything_it_was_given() -> None:
    error = PilotageError("conflict", "It is taken.", hint="Wait.", param="name", retry_after_s=2.5)

    assert (error.code, error.status, error.detail) == ("conflict", 409, "It is taken.")
    assert (error.hint, error.param, error.retry_after_s) == ("Wait.", "name", 2.5)
    assert str(error) == "It is taken. Wait."


def test_an_error_without_a_detail_says_its_title() -> None:
    error = PilotageError("draining")

    assert (error.detail, error.hint, error.param) == ("The server is shutting down", "", None)
    assert str(error) == "The server is shutting down"


def test_a_code_outside_the_catalogue_cannot_be_raised() -> None:
    with pytest.raises(KeyError, match="no_such_code"):
        PilotageError("no_such_code")

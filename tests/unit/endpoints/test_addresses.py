"""What an upstream may say of itself."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.addresses import check_model
from pilotage.core.data_classes import DATA_CLASSES
from pilotage.core.errors import PilotageError
from pilotage.endpoints.rules import check_upstream, widens_trust
from pilotage.endpoints.types import MAX_CONNECTIONS, Provider, UpstreamSpec

OPENAI = UpstreamSpec(provider=Provider.OPENAI, base_url="https://api.openai.com/v1")


def check(**other: Any) -> UpstreamSpec:  # noqa: ANN401 - any field
    return check_upstream(replace(OPENAI, **other))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://API.OpenAI.com/v1/", "https://api.openai.com/v1"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000/a/b//", "http://[::1]:9000/a/b"),
        ("https://x/Projects/P-1/endpoints/openapi", "https://x/Projects/P-1/endpoints/openapi"),
    ],
)
def test_an_address_has_one_written_form(text: str, kept: str) -> None:
    assert check(base_url=text).base_url == kept
    assert check(base_url=kept).base_url == kept


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no http://"),
        ("api.openai.com/v1", "no http://"),
        ("ftp://a", "no http://"),
        ("https://", "no http://"),
        ("https:///v1", "no http://"),
        ("http://a b", "no http://"),
        ("http://a:99999", "no http://"),
        ("http://a:0", "no http://"),
        ("http://a:x", "no http://"),
        ("http://[::1", "no http://"),
        ("http://ä.example", "no http://"),
        ("http://a\n", "no http://"),
        ("http://" + "a" * 1000, "no http://"),
        ("https://user:pass@a/v1", "credential"),
        ("https://key@a", "credential"),
        ("https://a/v1?key=1", "query"),
        ("https://a/v1?", "query"),
        ("https://a/v1#x", "query"),
    ],
)
def test_what_is_no_address_is_refused_with_the_fix(text: str, problem: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check(base_url=text)

    assert problem in refused.value.detail
    assert refused.value.param == "base_url"
    assert refused.value.hint
    assert "pass" not in str(refused.value)


@pytest.mark.parametrize(
    "reference", ["", "env:OPENAI_API_KEY", "env:_a1", "file:/run/secrets/a b"]
)
def test_a_reference_is_kept_as_it_is(reference: str) -> None:
    assert check(secret=reference).secret == reference


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abc123",
        "env:sk-proj-abc123",
        "env:",
        "env:1A",
        "file:",
        "file:rel/abc123",
        "abc123",
    ],
)
def test_a_secret_itself_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check(secret=secret)

    assert refused.value.param == "secret"
    assert "env:OPENAI_API_KEY" in refused.value.hint
    assert "abc123" not in str(refused.value)


@given(st.text(max_size=40))
def test_whatever_is_given_as_a_secret_is_a_reference_or_refused(text: str) -> None:
    try:
        kept = check(secret=text).secret
    except PilotageError:
        return
    assert kept == text
    assert not text or text.startswith(("env:", "file:/"))


def test_vertex_takes_credentials_and_no_key() -> None:
    for secret in ("", "file:/run/secrets/google.json"):
        assert check(provider=Provider.VERTEX, secret=secret).secret == secret
    with pytest.raises(PilotageError, match="takes no key from a variable"):
        check(provider=Provider.VERTEX, secret="env:KEY")


def test_a_proxy_is_a_plain_address_with_a_port() -> None:
    assert check(proxy="http://Proxy:3128/").proxy == "http://proxy:3128"
    assert check(proxy="env:PROXY").proxy == "env:PROXY"
    for text in (
        "proxy:3128",
        "https://a:1",
        "http://a",
        "http://u@a:1",
        "http://a:1/x",
        "http://",
    ):
        with pytest.raises(PilotageError, match="no proxy"):
            check(proxy=text)


def test_a_file_of_certificates_is_named_in_full() -> None:
    assert check(ca_file="/etc/ca.pem").ca_file == "/etc/ca.pem"
    for path in ("ca.pem", "~/ca.pem", "/a\n"):
        with pytest.raises(PilotageError, match="absolute"):
            check(ca_file=path)


def test_connections_and_locations_have_bounds() -> None:
    assert check(max_connections=MAX_CONNECTIONS, location="eu").location == "eu"
    for number in (0, -1, MAX_CONNECTIONS + 1):
        with pytest.raises(PilotageError, match="no number of connections"):
            check(max_connections=number)
    with pytest.raises(PilotageError, match="no region"):
        check(location="Frankfurt am Main")


@pytest.mark.parametrize(
    "host",
    [
        "api.openai.com",
        "EU.API.OpenAI.com:443",
        "api.openai.com.",
        "openai.com",
        "api.anthropic.com",
        "aiplatform.googleapis.com",
        "europe-west4-aiplatform.googleapis.com",
    ],
)
def test_no_public_provider_is_in_the_house(host: str) -> None:
    url = f"https://{host}/v1"
    assert check(base_url=url, location="eu").location == "eu"
    with pytest.raises(PilotageError, match="a public provider's") as refused:
        check(base_url=url, location="local")
    assert refused.value.param == "location"
    assert "us or eu-west4" in refused.value.hint


@pytest.mark.parametrize("host", ["10.0.0.5:8000", "notopenai.com", "openai.com.bank", "[::1]"])
def test_another_address_may_be_in_the_house(host: str) -> None:
    assert check(base_url=f"http://{host}/v1", location="local").location == "local"


@pytest.mark.parametrize(
    ("accepts", "than", "widens"),
    [
        ("public", None, False),
        ("internal", None, False),
        ("confidential", None, True),
        ("restricted", None, True),
        ("internal", "public", True),
        ("confidential", "internal", True),
        ("restricted", "confidential", True),
        ("confidential", "confidential", False),
        ("confidential", "restricted", False),
        ("public", "restricted", False),
    ],
)
def test_a_closer_class_of_data_widens_trust(accepts: str, than: str | None, widens: bool) -> None:
    spec = check(base_url="http://gpu", location="local", accepts=accepts)
    before = replace(spec, accepts=than) if than else None
    assert widens_trust(spec, before) is widens


@pytest.mark.parametrize("accepts", DATA_CLASSES)
def test_going_elsewhere_widens_trust_with_more_than_internal_data(accepts: str) -> None:
    before = check(base_url="http://gpu", location="local", accepts=accepts)
    ways = {"base_url": "http://b", "location": "us", "proxy": "http://p:1", "ca_file": "/ca.pem"}
    for field, value in ways.items():
        moved: Any = {field: value}
        widens = accepts in ("confidential", "restricted")
        assert widens_trust(replace(before, **moved), before) is widens, field
    assert not widens_trust(replace(before, secret="env:KEY", max_connections=9), before)


@pytest.mark.parametrize(
    "name", ["gpt-4o-mini", "google/gemini-2.5-flash", "claude-3-5-sonnet@20241022", "a:b+c"]
)
def test_a_model_is_named_as_its_provider_does(name: str) -> None:
    assert check_model(name) == name


@pytest.mark.parametrize("name", ["", "/a", "a b", "a\n", "ä", "a" * 128])
def test_what_names_no_model_is_refused(name: str) -> None:
    with pytest.raises(PilotageError, match="no model of an upstream"):
        check_model(name)

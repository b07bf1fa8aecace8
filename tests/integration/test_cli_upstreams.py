"""Commands on upstreams, routing and settings of tenants, without a server."""

from pathlib import Path

import pytest

from command_line import CommandLine


@pytest.fixture
def pilotage(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("fresh"))


def test_an_upstream_is_made_of_a_preset_and_changed_field_by_field(pilotage: CommandLine) -> None:
    made = pilotage.json("upstreams", "create", "openai", "--preset", "openai")
    pilotage.ok(
        "upstreams",
        "create",
        "gemini",
        "--preset",
        "vertex-openapi",
        "--location",
        "europe-west4",
        "--gcp-project",
        "acme",
    )
    changed = pilotage.json("upstreams", "change", "openai", "--location", "us", "--secret", "")
    listed = {item["name"]: item for item in pilotage.json("upstreams", "list")}

    assert (made["provider"], made["secret"]) == ("openai", "env:OPENAI_API_KEY")
    assert made["base_url"] == "https://api.openai.com/v1"
    assert (changed["location"], changed["secret"], changed["rev"]) == ("us", "", 2)
    assert changed["base_url"] == made["base_url"]
    assert listed["gemini"]["base_url"] == (
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/acme"
        "/locations/europe-west4/endpoints/openapi"
    )
    assert listed["gemini"]["location"] == "europe-west4"


@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        ("upstreams create a", "needs --provider and --url", "--preset"),
        ("upstreams create a --preset acme", "no preset 'acme'", "vllm"),
        ("upstreams create a --preset vertex-openapi", "--gcp-project", "--url"),
        ("upstreams change a", "Nothing is to be changed", "--help"),
        ("tenants change default", "Nothing is to be changed", "--help"),
        ("endpoints route chat", "Nothing is to be changed", "--help"),
        ("endpoints route chat --rule data=restricted", "which deployments", "use="),
        ("endpoints route chat --rule colour=red", "'colour=red' is no part", "use="),
        ("endpoints route chat --shadow 1.0.0", "'1.0.0' is no shadow", "=10"),
        ("endpoints route chat --first-byte-timeout soon", "not a duration", ""),
        ("endpoints deploy chat", "Name one model", "MODEL"),
        ("endpoints deploy chat a --model b", "Name one model", "MODEL"),
    ],
)
def test_a_command_that_says_too_little_is_told_what_to_add(
    fresh: CommandLine, words: str, problem: str, hint: str
) -> None:
    fresh("endpoints", "create", "chat")
    said = fresh(*words.split())

    assert said.code == 2
    assert problem in said.err.splitlines()[0]
    assert hint in said.err


def test_a_secret_given_as_a_reference_is_refused_and_not_repeated(fresh: CommandLine) -> None:
    secret = "sk-proj-0123456789abcdef"
    said = fresh(
        *f"upstreams create leak --provider openai --url https://a/v1 --secret {secret}".split()
    )

    assert said.code == 1
    assert "env:NAME" in said.err
    assert secret not in said.out + said.err


def test_an_address_that_the_settings_keep_shut_is_noted_at_once_and_by_the_doctor(
    pilotage: CommandLine,
) -> None:
    words = "upstreams create gpu --preset vllm"
    made = pilotage.ok(*words.split())
    seen = {item["check"]: item for item in pilotage("doctor", "--json").json}
    pilotage.environment["PILOTAGE_EGRESS_ALLOW"] = "127.0.0.1:8000"
    changed = pilotage.ok("upstreams", "change", "gpu", "--location", "local")
    seen_later = {item["check"] for item in pilotage("doctor", "--json").json}

    assert made.err.startswith("As this command's settings are, 127.0.0.1:8000 may not be called")
    assert "PILOTAGE_EGRESS_ALLOW" in made.err
    assert seen["upstream gpu"]["state"] == "warning"
    assert "egress.allow" in seen["upstream gpu"]["hint"]
    assert changed.err == ""
    assert "upstream gpu" not in seen_later


def test_routing_is_set_piece_by_piece_and_shown(pilotage: CommandLine) -> None:
    for words in (
        "upstreams create openai --preset openai --location us",
        "endpoints create chat",
        "endpoints deploy chat --upstream openai --model gpt-4o-mini",
        "endpoints deploy chat --upstream openai --model gpt-4o",
        "endpoints deploy chat --upstream openai --model o3",
        "endpoints route chat --policy fastest --fallback gpt-4o --retries 2",
        "endpoints route chat --shadow o3=2.5 --shadow-daily-usd 5",
        "endpoints route chat --shadow-concurrency 9 --first-byte-timeout 1m30s --region us",
    ):
        pilotage.ok(*words.split())
    pilotage.ok("endpoints", "route", "chat", "--rule", "data=restricted max=500 use=gpt-4o-mini")
    shown = pilotage.json("endpoints", "show", "chat")
    text = pilotage.ok("endpoints", "show", "chat").out

    assert shown["routing"] == {
        "policy": "fastest",
        "rules": [
            {
                "deployments": ["openai/gpt-4o-mini"],
                "tenants": [],
                "purposes": [],
                "data_classes": ["restricted"],
                "min_input": 0,
                "max_input": 500,
            }
        ],
        "fallbacks": ["openai/gpt-4o"],
        "retries": 2,
        "first_byte_timeout_ms": 90_000,
        "shadow": {
            "deployment": "openai/o3",
            "percent": 2.5,
            "concurrency": 9,
            "daily_usd": "5.00",
        },
    }
    assert shown["regions"] == ["us"]
    for line in (
        "policy             fastest",
        "fallbacks          openai/gpt-4o",
        "first byte within  1m30s",
        "rule 1             data=restricted max=500 use=openai/gpt-4o-mini",
        "shadow             openai/o3, 2.5 % of the calls, 9 at once, up to USD 5.00 a day",
        "regions            us",
    ):
        assert line in text.splitlines()
    pilotage.ok(
        "endpoints", "route", "chat", "--no-shadow", "--no-rules", "--no-fallback", "--anywhere"
    )
    after = pilotage.json("endpoints", "show", "chat")
    assert (after["routing"]["shadow"], after["routing"]["rules"], after["regions"]) == (
        None,
        [],
        [],
    )
    assert after["routing"]["retries"] == 2


def test_a_tenant_is_changed_setting_by_setting(pilotage: CommandLine) -> None:
    pilotage.ok("tenants", "create", "acme")
    pilotage.ok(
        "tenants",
        "change",
        "acme",
        "--region",
        "eu",
        "--region",
        "!local",
        "--time-zone",
        "Asia/Tokyo",
    )
    pilotage.ok(
        "tenants", "change", "acme", "--data-class", "restricted", "--hides", "--feature", "search"
    )
    changed = pilotage.json("tenants", "change", "acme", "--log-percent", "0.25")
    said = pilotage("tenants", "change", "acme", "--time-zone", "Europe")

    assert {name: changed[name] for name in ("time_zone", "regions", "features")} == {
        "time_zone": "Asia/Tokyo",
        "regions": ["eu", "!local"],
        "features": ["search"],
    }
    assert (changed["data_class"], changed["shows"]) == ("restricted", False)
    assert (changed["log_percent"], changed["rev"]) == (0.25, 4)
    assert (said.code, "'Europe' is no time zone" in said.err) == (1, True)


def test_doctor_says_why_a_model_of_an_upstream_is_not_served_and_how_to_mend_it(
    pilotage: CommandLine,
) -> None:
    for words in (
        "upstreams create gpu --preset vllm",
        "endpoints create chat",
        "endpoints deploy chat --upstream gpu --model acme-7b",
    ):
        pilotage.ok(*words.split())
    unpriced = pilotage("doctor")
    pilotage.ok("prices", "set", "acme-7b", "--free")
    deployed = pilotage.ok(
        "endpoints", "deploy", "chat", "--upstream", "gpu", "--model", "acme-70b"
    )
    spare = pilotage.ok("doctor")
    outside = pilotage("endpoints", "route", "chat", "--region", "eu")

    assert unpriced.code == 1
    assert (
        "endpoint chat: not published: no price for acme-7b  "
        "-> Run: pilotage prices set acme-7b --input USD --output USD (or --free)"
    ) in unpriced.out
    assert "gpu/acme-70b cannot be called yet: no price for acme-70b." in deployed.err
    assert "endpoint chat: published" in spare.out
    assert "endpoint chat: a deployment is left out: no price for acme-70b" in spare.out
    assert "nobody said where gpu/acme-7b runs" in outside.err
    assert outside.code == 1
    assert "--location REGION" in outside.err

"""Limits and prices by command and in files."""

import pytest

from command_line import CommandLine

RELEASE = """\
{kind: Limit, name: monthly, tenant: lab, usd: 500/month, action: downgrade, downgrade_to: small}
---
{kind: Limit, name: of-ci, tenant: lab, key: ci, requests: 60/minute}
---
{kind: Limit, name: at-once, endpoint: small, concurrency: 8, on_store_loss: open}
---
{kind: Tenant, name: lab}
---
{kind: Key, name: ci, tenant: lab}
---
{kind: Endpoint, name: small}
"""


@pytest.fixture(scope="module")
def pilotage(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    made = CommandLine(tmp_path_factory.mktemp("limits"))
    made.ok("tenants", "create", "acme")
    made.ok("endpoints", "create", "small")
    return made


def apply(pilotage: CommandLine, text: str, *words: str) -> dict[str, str]:
    (pilotage.folder / "limits.yaml").write_text(text)
    shown = pilotage.json("apply", "-f", "limits.yaml", *words)
    return {f"{item['kind']} {item['name']}": item["result"] for item in shown}


def test_a_limit_is_set_changed_and_deleted(pilotage: CommandLine) -> None:
    made = pilotage.ok("limits", "set", "monthly", "--tenant", "acme", "--usd", "500/month")
    first = pilotage.json("limits", "show", "monthly")
    changed = pilotage.json(
        "limits", "set", "monthly", "--usd", "750.5/month", "--downgrade-to", "small"
    )
    listed = pilotage.ok("limits", "list").out
    shown = pilotage.ok("limits", "show", "monthly").out.splitlines()
    warned = pilotage.ok("limits", "set", "monthly", "--warn", "--on-store-loss", "open")
    deleted = pilotage.ok("limits", "delete", "monthly")

    assert made.out == "monthly: at most USD 500.00/month of tenant acme, then block.\n"
    assert (changed["id"], changed["rev"], changed["amount"]) == (first["id"], 2, "750.50")
    assert "monthly  USD 750.50/month  tenant acme  downgrade to small" in listed
    assert shown[0].split() == ["name", "monthly"]
    assert shown[4] == "while nobody can count  refuse"
    assert warned.out == "monthly: at most USD 750.50/month of tenant acme, then warn.\n"
    assert deleted.out == "monthly is deleted.\n"
    assert pilotage.json("limits", "list") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--tokens 100k/day --user *", "100,000 tokens/day of each user, then block"),
        ("--requests 60/minute --key *", "60 requests/minute of each key, then block"),
        ("--concurrency 8 --warn", "8 calls at once of all calls together, then warn"),
        ("--tokens 1.5m/total --endpoint small", "1,500,000 tokens/total of endpoint small"),
    ],
)
def test_what_a_limit_counts_is_said_in_words(pilotage: CommandLine, words: str, said: str) -> None:
    assert said in pilotage.ok("limits", "set", "said", *words.split()).out
    pilotage.ok("limits", "delete", "said")


REFUSALS = {
    "--usd 0/month": "A limit lets something through.",
    "--usd 9000001/month": "A limit of usd is at most 9000000.00.",
    "--usd 5/minute": "There is no limit of usd per minute.",
    "--tokens many/day": "'many' is no whole number",
    "--usd 5/day --tenant nobody": "There is no tenant 'nobody'.",
    "--usd 5/day --key nobody": "There is no key 'nobody'.",
    "--usd 5/day --endpoint nothing": "There is no endpoint 'nothing'.",
    "--usd 5/day --downgrade-to nothing": "There is no endpoint 'nothing'.",
    "--usd 5/day --endpoint small --downgrade-to small": "cannot be downgraded to itself",
    "--requests 5/day --downgrade-to small": "Only limits of usd or tokens",
}


@pytest.mark.parametrize("words", REFUSALS)
def test_what_a_limit_cannot_be_is_refused(pilotage: CommandLine, words: str) -> None:
    said = pilotage("limits", "set", "x", *words.split())

    assert said.code == 1
    assert REFUSALS[words] in said.err


def test_a_limit_never_counts_something_else(pilotage: CommandLine) -> None:
    pilotage.ok("limits", "set", "fixed", "--tenant", "acme", "--usd", "5/day")
    said = pilotage("limits", "set", "fixed", "--usd", "5/month")
    pilotage.ok("limits", "delete", "fixed")

    assert said.code == 1
    assert "Limit 'fixed' counts something else: its per never changes." in said.err


def test_limits_are_applied_once_and_then_unchanged(pilotage: CommandLine) -> None:
    limits = ("Limit monthly", "Limit of-ci", "Limit at-once")
    planned = apply(pilotage, RELEASE, "--dry-run")
    first = apply(pilotage, RELEASE)
    again = apply(pilotage, RELEASE)
    more = apply(pilotage, RELEASE.replace("500/month", "600/month"))
    shown = {item["name"]: item for item in pilotage.json("limits", "list")}
    keys = pilotage.json("keys", "list", "--tenant", "lab")

    assert [planned[name] for name in limits] == ["created"] * 3
    assert [first[name] for name in limits] == ["created"] * 3
    assert [again[name] for name in limits] == ["unchanged"] * 3
    assert [more[name] for name in limits] == ["changed", "unchanged", "unchanged"]
    assert (shown["monthly"]["amount"], shown["monthly"]["downgrade_to"]) == ("600.00", "small")
    assert shown["of-ci"]["key_id"] == keys[0]["id"]
    assert shown["at-once"]["on_store_loss"] == "open"


MISTAKES = {
    "{kind: Limit, name: a}": "a limit is of one of usd, tokens, requests, concurrency",
    "{kind: Limit, name: a, usd: 1/day, tokens: 1/day}": "of one thing, not of usd and tokens",
    "{kind: Limit, name: a, usd: 1/week}": "usd: write AMOUNT/PERIOD",
    "{kind: Limit, name: a, usd: 1/minute}": "per: There is no limit of usd per minute",
    "{kind: Limit, name: a, usd: 1/day, action: shout}": "action: 'shout' is none of block, warn",
    "{kind: Limit, name: a, usd: 1/day, key: ci}": "tenant: a key's name needs its tenant",
    "{kind: Limit, name: a, usd: 1/day, tenant: nobody}": "tenant: there is no tenant 'nobody'",
    "{kind: Limit, name: a, usd: 1/day, tenant: acme, key: b}": "key: there is no key 'acme/b'",
    "{kind: Limit, name: a, usd: 1/day, endpoint: none}": "endpoint: there is no endpoint 'none'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_limit_is_named(pilotage: CommandLine, text: str) -> None:
    (pilotage.folder / "wrong.yaml").write_text(text)
    said = pilotage("apply", "-f", "wrong.yaml")

    assert said.code == 1
    assert MISTAKES[text] in said.err


def test_a_file_does_not_make_a_limit_count_something_else(pilotage: CommandLine) -> None:
    apply(pilotage, "{kind: Limit, name: moved, tenant: acme, usd: 1/day}")
    (pilotage.folder / "wrong.yaml").write_text("{kind: Limit, name: moved, usd: 1/day}")
    said = pilotage("apply", "-f", "wrong.yaml")

    assert said.code == 1
    assert "tenant: it is there already and counts something else" in said.err


def test_what_a_model_costs_and_where_that_is_written(pilotage: CommandLine) -> None:
    pilotage.ok("prices", "set", "own", "--input", "1", "--output", "2")
    pilotage.ok("prices", "set", "openai/gpt-4.1", "--input", "7", "--output", "8")
    pilotage.ok("prices", "set", "gift", "--free")
    own = pilotage.ok("prices", "show", "own@1.0.0").out
    gift = pilotage.ok("prices", "show", "gift").out
    set_here = pilotage.json("prices", "show", "gpt-4.1", "--provider", "openai")
    listed = pilotage.ok("prices", "show", "gemini-2.5-pro", "--provider", "vertex").out
    unknown = pilotage.ok("prices", "show", "gemma-3-27b-it", "--provider", "vertex").out
    nobody = pilotage.json("prices", "show", "nobody")

    assert "set here. USD per million tokens:" in own
    assert "set here, free." in gift
    assert (set_here["source"], set_here["rates"][0]["input"]) == ("book", "7.00")
    assert "genai-prices-" in listed
    assert "google/gemini-2.5-pro, from the price list" in listed
    assert "over 200,000" in listed
    assert "Charged by the provider besides: web searches." in listed
    assert "gemma-3-27b-it: nobody knows what it costs:" in unknown
    assert "pilotage prices set gemma-3-27b-it" in unknown
    assert (nobody["source"], nobody["why"]) == ("unknown", "it has no price")

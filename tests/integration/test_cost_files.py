"""Budgets and prices of resources from files and by command: what is there stays as it was said."""

from pathlib import Path

import pytest

from command_line import CommandLine

COSTS = """\
{kind: Budget, name: search, usd: 0500.0/month, tenant: acme, endpoint: team/chat,
 thresholds: [50, 110]}
---
{kind: Budget, name: copies, usd: 5/day, tenant: shadow}
---
{kind: ResourcePrice, resource: compute, usd: 0.710, spot_usd: 0.21, endpoint: team/chat}
---
{kind: ResourcePrice, resource: storage, usd: 0.02, from: 2026-01-01}
---
{kind: Tenant, name: acme}
"""


@pytest.fixture
def pilotage(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def results(pilotage: CommandLine, text: str, *words: str) -> dict[str, str]:
    """Return what became of each document."""
    (pilotage.folder / "costs.yaml").write_text(text)
    shown = pilotage.json(*(words or ("apply",)), "-f", "costs.yaml")
    return {f"{item['kind']} {item['name']}": item["result"] for item in shown}


def test_a_second_time_changes_nothing_and_a_third_what_differs(pilotage: CommandLine) -> None:
    first = results(pilotage, COSTS)
    again = results(pilotage, COSTS)
    other = COSTS.replace("0500.0", "600").replace("0.710", "0.8").replace(", spot_usd: 0.21", "")
    third = results(pilotage, other)
    last = results(pilotage, other, "plan")

    assert set(first) == {
        "Tenant acme",
        "Budget search",
        "Budget copies",
        "ResourcePrice compute team/chat",
        "ResourcePrice storage *",
    }
    assert set(first.values()) == {"created"}
    assert again == last == dict.fromkeys(first, "unchanged")
    changed = {name for name, result in third.items() if result == "changed"}
    assert changed == {"Budget search", "ResourcePrice compute team/chat"}
    prices = pilotage.json("cost", "prices")
    assert [(item["price"], item["spot_price"]) for item in prices] == [
        ("0.71", "0.21"),
        ("0.02", ""),
        ("0.80", ""),
    ]
    budget = pilotage.json("budgets", "show", "search")
    assert (budget["amount"], budget["per"], budget["alias"]) == ("600.00", "month", "team/chat")
    assert budget["thresholds"] == [50, 110]


def test_what_is_in_no_document_is_listed_once(pilotage: CommandLine) -> None:
    results(pilotage, COSTS)
    pilotage.ok("budgets", "set", "stray", "--usd", "1/day")
    pilotage.ok("cost", "price", "compute", "0.9", "--endpoint", "team/chat")
    pilotage.ok("cost", "price", "compute", "0.5")

    found = results(pilotage, COSTS, "plan", "--drift")

    strays = {name for name, result in found.items() if result == "not in files"}
    assert strays == {"Budget stray", "ResourcePrice compute *", "Tenant default"}
    assert found["ResourcePrice compute team/chat"] == "changed"  # somebody set another since


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{kind: Budget, name: a, usd: 5}", "usd: '5' says no period"),
        ("{kind: Budget, name: a, usd: 0/day}", "amount: '0' is no budget"),
        ("{kind: Budget, name: a, usd: 1/day, thresholds: [90, 50]}", "percents that rise"),
        ("{kind: Budget, name: a, usd: 1/day, tenant: nobody}", "there is no tenant 'nobody'"),
        ("{kind: Budget, name: a, usd: 1/day, tenant: none}", "there is no tenant 'none'"),
        ("{kind: Budget, name: a, usd: 1/day, endpoint: 'a b'}", "is not a model name"),
        ("{kind: ResourcePrice, resource: gold, usd: 1}", "resource"),
        ("{kind: ResourcePrice, resource: compute, usd: -1}", "usd: '-1' is not a price"),
        ("{kind: ResourcePrice, resource: compute, usd: much}", "usd: not an amount"),
        ("{kind: ResourcePrice, resource: storage, usd: 1, endpoint: chat}", "one price for all"),
        ("{kind: ResourcePrice, resource: compute, usd: 1, from: soon}", "soon"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(
    pilotage: CommandLine, text: str, said: str
) -> None:
    (pilotage.folder / "costs.yaml").write_text(f"{{kind: Tenant, name: first}}\n---\n{text}\n")

    refused = pilotage("apply", "-f", "costs.yaml")

    assert refused.code == 1
    assert said in refused.err
    assert "document 2" in refused.err
    assert [item["name"] for item in pilotage.json("tenants", "list")] == ["default"]


def test_what_was_said_for_good_is_not_said_otherwise(pilotage: CommandLine) -> None:
    results(pilotage, COSTS)

    for before, after, said in (
        ("5/day", "5/month", "usd: it is there already and counts something else"),
        ("tenant: shadow", "feature: faq", "tenant: it is there already"),
        ("usd: 0.02", "usd: 0.03", "from: there is another price from 2026-01-01"),
    ):
        (pilotage.folder / "costs.yaml").write_text(COSTS.replace(before, after))
        refused = pilotage("apply", "-f", "costs.yaml")
        assert (refused.code, said in refused.err) == (1, True), refused.err


def test_a_budget_that_is_set_again_keeps_what_is_not_named(pilotage: CommandLine) -> None:
    pilotage.ok("tenants", "create", "acme")
    wanted = ("--tenant", "acme", "--endpoint", "chat", "--at", "50,90,110")
    pilotage.ok("budgets", "set", "search", "--usd", "500/month", *wanted)
    before = pilotage.json("budgets", "show", "search")
    pilotage.ok("budgets", "set", "search", "--usd", "600/month")
    dearer = pilotage.json("budgets", "show", "search")
    pilotage.ok("budgets", "set", "search", "--at", "75")
    after = pilotage.json("budgets", "show", "search")
    unclear = pilotage("budgets", "set", "search", "--usd", "600")
    percents = pilotage("budgets", "set", "search", "--at", "half")
    moved = pilotage("budgets", "set", "search", "--tenant", "default")
    nothing = pilotage("budgets", "set", "new")

    assert (dearer["amount"], dearer["thresholds"]) == ("600.00", [50, 90, 110])
    assert (after["amount"], after["thresholds"]) == ("600.00", [75])
    scope = [after[name] for name in ("tenant_id", "alias", "per")]
    assert scope == [before[name] for name in ("tenant_id", "alias", "per")]
    assert [said.code for said in (unclear, percents, moved, nothing)] == [2, 2, 1, 1]
    assert "says no period" in unclear.err
    assert "no percents" in percents.err
    assert "its tenant never changes" in moved.err
    assert "amount" in nothing.err
